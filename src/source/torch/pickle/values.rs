//! What a pickle holds: an arena of values that refer to each other by number.

use super::Global;
use crate::source::problem::{Checked, rule};

/// The most values of a file: some ten for a tensor, so 200,000 tensors.
const MAX_VALUES: usize = 1 << 21;
/// What all values may take in memory, in bytes: of a tensor some 600, so that any file may describe
/// 50,000; a larger one a sixteenth of itself.
const MAX_MEMORY: u64 = 1 << 25;
const MEMORY_SHARE: u64 = 16;
/// What the allocator adds to a piece of memory, in bytes.
const OVERHEAD: usize = 16;
/// Integers from zero up to this one are shared, as they are in Python: shapes are full of them.
const SHARED_INTS: u16 = 1024;

/// The number of a value in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u32);

impl Id {
    pub const NONE: Id = Id(0);
    pub const TRUE: Id = Id(1);
    pub const FALSE: Id = Id(2);
    pub const EMPTY_TUPLE: Id = Id(3);
    /// Data of no use here: bytes, sets, placeholders.
    pub const INERT: Id = Id(4);
    const FIRST_INT: u32 = 5;
    /// No value: a place of the memo that was not set.
    pub const UNSET: Id = Id(u32::MAX);

    /// The position in a list that runs along the arena.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// One value.
#[derive(Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    /// An integer of up to 128 bits; longer ones are [`Value::Inert`].
    Int(i128),
    Float(f64),
    /// A text of up to four megabytes; longer ones are [`Value::Inert`].
    Text(Box<str>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// Any mapping, in the order of its entries.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A call of a global that is in the list, or an instance of it: never anything but this record.
    Object(Box<Object>),
    /// What the pickle's surroundings hold under this id: a storage.
    Persistent(Id),
    Inert,
}

impl Value {
    /// Bytes that it takes beside its own size.
    fn heap(&self) -> usize {
        let bytes = match self {
            Value::Text(text) => text.len(),
            Value::Tuple(items) => size_of_val::<[Id]>(items),
            Value::List(items) => size_of_val(items.as_slice()),
            Value::Dict(entries) => size_of_val(entries.as_slice()),
            Value::Object(_) => size_of::<Object>(),
            _ => return 0,
        };
        bytes + OVERHEAD
    }
}

/// The record of a call, or of an instance.
#[derive(Debug, PartialEq)]
pub struct Object {
    pub class: Global,
    /// A tuple.
    pub arguments: Id,
    /// What the instance's state was set to; [`Id::NONE`] where it was not.
    pub state: Id,
}

/// The arena.
#[derive(Debug)]
pub struct Values {
    all: Vec<Value>,
    /// Bytes that they take, and may take.
    memory: u64,
    most: u64,
}

impl Values {
    /// Only the shared constants. `file_bytes` is the length of the file that the others come from.
    pub fn new(file_bytes: u64) -> Values {
        let constants =
            [Value::None, Value::Bool(true), Value::Bool(false), Value::Tuple(Box::default()), Value::Inert];
        let ints = (0..SHARED_INTS).map(|n| Value::Int(i128::from(n)));
        let all = constants.into_iter().chain(ints).collect();
        Values { all, memory: 0, most: MAX_MEMORY.max(file_bytes / MEMORY_SHARE) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Every value with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Value)> {
        (0u32..).map(Id).zip(&self.all)
    }

    /// Adds a value.
    pub fn add(&mut self, value: Value) -> Checked<Id> {
        match value {
            Value::None => return Ok(Id::NONE),
            Value::Bool(true) => return Ok(Id::TRUE),
            Value::Bool(false) => return Ok(Id::FALSE),
            Value::Inert | Value::Global(Global::Inert) => return Ok(Id::INERT),
            Value::Int(n) if (0..i128::from(SHARED_INTS)).contains(&n) => {
                return Ok(Id(Id::FIRST_INT + u32::try_from(n).unwrap_or_default()));
            }
            Value::Tuple(items) if items.is_empty() => return Ok(Id::EMPTY_TUPLE),
            _ => {}
        }
        let id = u32::try_from(self.all.len()).ok().filter(|n| (*n as usize) < MAX_VALUES);
        let Some(id) = id else {
            return rule(format!("its pickle holds more than {MAX_VALUES} values"));
        };
        self.charge(size_of::<Value>() + value.heap())?;
        if self.all.len() == self.all.capacity() {
            // In smaller steps than a vector takes by itself: these are the largest part of the memory.
            self.all.reserve_exact(self.all.len() / 4 + 64);
        }
        self.all.push(value);
        Ok(Id(id))
    }

    /// Counts bytes that are about to be taken.
    fn charge(&mut self, bytes: usize) -> Checked<()> {
        self.memory = self.memory.saturating_add(bytes as u64);
        if self.memory > self.most {
            return rule(format!("its pickle holds values that take more than {} bytes", self.most));
        }
        Ok(())
    }

    /// Counts what is about to be put into a list, or pairs into a mapping, that is already there.
    pub fn charge_items(&mut self, items: usize, pairs: usize) -> Checked<()> {
        // A vector takes up to twice what it holds.
        self.charge(2 * (size_of::<Id>() * items + size_of::<(Id, Id)>() * pairs))
    }

    /// A value by its number.
    pub fn get(&self, id: Id) -> &Value {
        self.all.get(id.position()).unwrap_or(&Value::Inert)
    }

    /// A value that is to be changed. The shared constants are never containers.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Value> {
        self.all.get_mut(id.position())
    }

    /// The members of a tuple or a list.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping, or the attributes of an instance that is only a bag of them.
    pub fn mapping(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Object(object) if object.class == Global::Namespace => match self.get(object.state) {
                Value::Dict(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer.
    pub fn int(&self, id: Id) -> Option<i128> {
        match self.get(id) {
            Value::Int(n) => Some(*n),
            Value::Bool(b) => Some(i128::from(*b)),
            _ => None,
        }
    }

    /// An integer that counts something, or says where it is.
    pub fn count(&self, id: Id) -> Option<u64> {
        self.int(id).and_then(|n| u64::try_from(n).ok())
    }
}
