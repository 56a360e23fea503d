//! Who uses a value: from an initializer through the nodes that only pass it on to the operation
//! that makes a weight of it.
//!
//! Names are looked up in the graph of the node and then in the graphs around it. What the file says
//! may be cyclic or endless; every walk here has a fixed number of steps.

use std::collections::HashMap;

use super::model::{Model, Node, Scope};
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// Steps of a walk from one tensor.
const MAX_STEPS: usize = 256;

/// Steps of all these walks together: some for each of the tensors and nodes that a model may have.
/// Functions that very many nodes call let every one of their weights walk through the same body.
const MAX_ALL_STEPS: usize = 1 << 20;

/// Users of a product that are looked at for the bias or the scale which is applied to it.
const MAX_USERS: usize = 16;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An initializer or a Constant: a position in [`Model::tensors`].
    Tensor(usize),
    /// A node's output.
    Node(usize),
    /// An input of the graph or function.
    Input,
}

/// The number of a value.
type Value = u32;

/// The values that a node is connected with. Names are looked up once: they may be long, and a node
/// may be come by very often.
#[derive(Debug, Default)]
struct Wiring {
    inputs: Vec<Option<Value>>,
    /// The first one.
    output: Option<Value>,
    /// The scope of the function that it calls.
    calls: Option<usize>,
}

/// The values of a model and who uses them.
#[derive(Debug)]
pub(super) struct Flow<'a> {
    pub model: &'a Model,
    /// The values by their names.
    scopes: Vec<HashMap<&'a str, Value>>,
    /// The values of each scope's inputs.
    inputs: Vec<Vec<Option<Value>>>,
    wirings: Vec<Wiring>,
    origins: Vec<Origin>,
    /// Node and number of the input, by value.
    uses: Vec<Vec<(u32, u32)>>,
    /// The value of each initializer and Constant.
    tensors: HashMap<usize, Value>,
}

/// An operation that a tensor gets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    node: u32,
    input: u32,
    /// A Transpose lies on the way.
    pub flipped: bool,
    dequantised_by: Option<u32>,
}

impl Consumer {
    /// A position in [`Model::nodes`].
    pub fn node(&self) -> usize {
        self.node as usize
    }

    /// Which of its inputs.
    pub fn input(&self) -> usize {
        self.input as usize
    }

    /// The DequantizeLinear on the way.
    pub fn dequantised_by(&self) -> Option<usize> {
        self.dequantised_by.map(|node| node as usize)
    }
}

impl<'a> Flow<'a> {
    pub fn of(model: &'a Model) -> Checked<Flow<'a>> {
        let mut flow = Flow {
            model,
            scopes: model.scopes.iter().map(|_| HashMap::new()).collect(),
            inputs: Vec::new(),
            wirings: Vec::new(),
            origins: Vec::new(),
            uses: Vec::new(),
            tensors: HashMap::new(),
        };
        flow.define_all()?;
        let of_input = |scope: usize, name: &String| flow.scopes.get(scope)?.get(name.as_str()).copied();
        let of_scope = |(scope, graph): (usize, &Scope)| {
            graph.inputs.iter().map(|name| of_input(scope, name)).collect::<Vec<_>>()
        };
        flow.inputs = model.scopes.iter().enumerate().map(of_scope).collect();
        flow.wirings = model.nodes.iter().map(|node| flow.wiring_of(node)).collect();
        for (position, wiring) in (0u32..).zip(&flow.wirings) {
            for (input, value) in (0u32..).zip(&wiring.inputs) {
                if let Some(uses) = value.and_then(|value| flow.uses.get_mut(value as usize)) {
                    uses.push((position, input));
                }
            }
        }
        Ok(flow)
    }

    fn define_all(&mut self) -> Checked<()> {
        let model = self.model;
        for (scope, graph) in model.scopes.iter().enumerate() {
            for tensor in &graph.initializers {
                let Some(proto) = model.tensors.get(*tensor) else { continue };
                if !self.define(scope, &proto.name, Origin::Tensor(*tensor)) {
                    return rule(format!("it has two initializers named `{}`", printable(&proto.name)));
                }
            }
        }
        for (position, node) in model.nodes.iter().enumerate() {
            let constant = (node.op == "Constant").then(|| node.tensors().next()).flatten();
            let origin = constant.map_or(Origin::Node(position), |(_, tensor)| Origin::Tensor(tensor));
            for output in &node.outputs {
                self.define(node.scope, output, origin);
            }
        }
        for (scope, graph) in model.scopes.iter().enumerate() {
            for input in &graph.inputs {
                self.define(scope, input, Origin::Input);
            }
        }
        Ok(())
    }

    /// Gives a name its value; false where the name is taken. The empty name is an input left out.
    fn define(&mut self, scope: usize, name: &'a str, origin: Origin) -> bool {
        // A model holds far fewer names than 2³².
        let value = self.origins.len() as Value;
        let Some(names) = self.scopes.get_mut(scope) else { return true };
        if name.is_empty() {
            return true;
        }
        if names.contains_key(name) {
            return false;
        }
        names.insert(name, value);
        self.origins.push(origin);
        self.uses.push(Vec::new());
        if let Origin::Tensor(tensor) = origin {
            self.tensors.insert(tensor, value);
        }
        true
    }

    fn wiring_of(&self, node: &Node) -> Wiring {
        let value = |name: &String| self.resolve(node.scope, name).filter(|_| !name.is_empty());
        let called = || self.model.functions.get(&(node.domain.clone(), node.op.clone())).copied();
        Wiring {
            inputs: node.inputs.iter().map(value).collect(),
            output: node.outputs.first().and_then(value),
            calls: (!self.model.functions.is_empty()).then(called).flatten(),
        }
    }

    fn resolve(&self, scope: usize, name: &str) -> Option<Value> {
        let mut scope = Some(scope);
        // A graph's parent stands before it, so that this ends.
        while let Some(at) = scope {
            if let Some(value) = self.scopes.get(at)?.get(name) {
                return Some(*value);
            }
            scope = self.model.scopes.get(at)?.parent.filter(|parent| *parent < at);
        }
        None
    }

    pub fn node(&self, node: usize) -> Option<&'a Node> {
        self.model.nodes.get(node)
    }

    /// The value of a node's input.
    fn input(&self, node: &Node, input: usize) -> Option<Value> {
        *self.wirings.get(node.number)?.inputs.get(input)?
    }

    fn origin(&self, value: Value) -> Option<Origin> {
        self.origins.get(value as usize).copied()
    }

    fn uses(&self, value: Option<Value>) -> &[(u32, u32)] {
        value.and_then(|value| self.uses.get(value as usize)).map_or(&[], Vec::as_slice)
    }

    /// The tensor that a node's input is, perhaps through an Identity or a Cast.
    pub fn input_tensor(&self, node: &Node, input: usize) -> Option<usize> {
        let mut value = self.input(node, input)?;
        for _ in 0..8 {
            let before = match self.origin(value)? {
                Origin::Tensor(tensor) => return Some(tensor),
                Origin::Node(node) => self.node(node).filter(|node| passes_on(&node.op))?,
                Origin::Input => return None,
            };
            value = self.input(before, 0)?;
        }
        None
    }

    /// The node whose output a node's input is.
    pub fn input_node(&self, node: &Node, input: usize) -> Option<&'a Node> {
        match self.origin(self.input(node, input)?)? {
            Origin::Node(node) => self.node(node),
            _ => None,
        }
    }

    /// The nodes that use a node's first output, with the numbers of their inputs.
    pub fn users(&self, node: &Node) -> impl Iterator<Item = (&'a Node, usize)> {
        let uses = self.uses(self.wirings.get(node.number).and_then(|wiring| wiring.output));
        let node = |(node, input): &(u32, u32)| Some((self.node(*node as usize)?, *input as usize));
        uses.iter().take(MAX_USERS).filter_map(node)
    }

    /// The names that Identity nodes give a tensor.
    pub fn other_names(&self, tensor: usize) -> Vec<&'a str> {
        let uses = self.uses(self.tensors.get(&tensor).copied());
        let nodes = uses.iter().take(MAX_STEPS).filter_map(|(node, _)| self.node(*node as usize));
        nodes
            .filter(|node| node.op == "Identity")
            .filter_map(|node| node.outputs.first())
            .map(String::as_str)
            .collect()
    }

    /// The operations that each tensor of the model gets to.
    pub fn consumers(&self) -> Checked<Vec<Vec<Consumer>>> {
        let mut steps = 0;
        let of = |tensor| {
            let found = self.consumers_of(tensor, &mut steps);
            if steps > MAX_ALL_STEPS {
                return rule(format!(
                    "its functions use one another's weights so often that {MAX_ALL_STEPS} steps do not follow them"
                ));
            }
            Ok(found)
        };
        (0..self.model.tensors.len()).map(of).collect()
    }

    /// The operations that a tensor gets to. Adds to the number of steps.
    fn consumers_of(&self, tensor: usize, all_steps: &mut usize) -> Vec<Consumer> {
        let mut found = Vec::new();
        let Some(start) = self.tensors.get(&tensor) else { return found };
        let mut steps = 0;
        let mut waiting = vec![(*start, false, None)];
        while let Some((value, flipped, dequantised_by)) = waiting.pop() {
            // In the file's order, although the last one waiting is the first to be taken up.
            let mut later = Vec::new();
            for (node, input) in self.uses(Some(value)) {
                (steps, *all_steps) = (steps + 1, *all_steps + 1);
                if steps > MAX_STEPS {
                    return found;
                }
                let (Some(wiring), Some(op)) = (self.wirings.get(*node as usize), self.node(*node as usize))
                else {
                    continue;
                };
                let mut here = |input| found.push(Consumer { node: *node, input, flipped, dequantised_by });
                match (op.op.as_str(), *input) {
                    (op, 0) if passes_on(op) => {
                        later.extend(wiring.output.map(|v| (v, flipped, dequantised_by)));
                    }
                    ("Transpose", 0) => match op.integers("perm") {
                        None | Some([1, 0]) => {
                            later.extend(wiring.output.map(|v| (v, !flipped, dequantised_by)));
                        }
                        _ => here(0),
                    },
                    ("DequantizeLinear", 0) => {
                        later.extend(wiring.output.map(|v| (v, flipped, dequantised_by.or(Some(*node)))));
                    }
                    _ => match self.inside(wiring, *input) {
                        Some(value) => later.push((value, flipped, dequantised_by)),
                        None => here(*input),
                    },
                }
            }
            waiting.extend(later.into_iter().rev());
        }
        found
    }

    /// The value inside a function of the model that an input of its call becomes.
    fn inside(&self, call: &Wiring, input: u32) -> Option<Value> {
        *self.inputs.get(call.calls?)?.get(input as usize)?
    }
}

/// Operations that change neither the numbers nor their order.
fn passes_on(op: &str) -> bool {
    matches!(op, "Identity" | "Cast" | "CastLike")
}
