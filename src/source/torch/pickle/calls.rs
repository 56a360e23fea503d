//! What stands for the call of a global: the container that the called class is, or a record.

use super::values::Object;
use super::{Global, Id, Value, Values};

/// What a call gives.
pub(super) enum Made {
    New(Value),
    /// A value that is already there: containers made of containers share them.
    Same(Id),
    MappingOf(Id),
}

/// What the call of a class with arguments gives; `None` where it cannot be called.
pub(super) fn made(values: &Values, class: Id, arguments: Id) -> Option<Made> {
    /// Containers are made of their first arguments; the number bounds the search.
    const LOOKED_AT: usize = 4;
    let (mut class, mut arguments) = (values.get(class), arguments);
    if let Value::Global(Global::Reconstructor) = class {
        let first = values.sequence(arguments).and_then(|items| items.first());
        class = first.map_or(&Value::Inert, |class| values.get(*class));
        arguments = Id::EMPTY_TUPLE;
    }
    let class = match class {
        // A placeholder may be called with anything.
        Value::Inert | Value::Global(Global::Inert | Global::Reconstructor) => {
            return Some(Made::Same(Id::INERT));
        }
        Value::Global(class) => *class,
        _ => return None,
    };
    let Value::Tuple(items) = values.get(arguments) else { return None };
    let find = |wanted: &dyn Fn(Id) -> bool| items.iter().take(LOOKED_AT).copied().find(|id| wanted(*id));
    let sequence = || find(&|id| values.sequence(id).is_some());
    Some(match class {
        Global::Sequence => sequence().map_or(Made::New(Value::List(Vec::new())), Made::Same),
        Global::Mapping => match find(&|id| matches!(values.get(id), Value::Dict(_))) {
            Some(same) => Made::Same(same),
            None => sequence().map_or(Made::New(Value::Dict(Vec::new())), Made::MappingOf),
        },
        _ => Made::New(Value::Object(Box::new(Object { class, arguments, state: Id::NONE }))),
    })
}
