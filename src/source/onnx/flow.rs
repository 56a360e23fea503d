//! Who uses a value: from an initializer through the nodes that only pass it on to the operation
//! that makes a weight of it.
//!
//! Names are looked up in the graph of the node and then in the graphs around it. What the file says
//! may be cyclic or endless; every walk here has a fixed number of steps.

use std::collections::HashMap;

use super::model::{Model, Node};
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// Steps of a walk from one tensor.
const MAX_STEPS: usize = 256;

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

/// The values of a model and who uses them.
#[derive(Debug)]
pub(super) struct Flow<'a> {
    pub model: &'a Model,
    scopes: Vec<HashMap<&'a str, usize>>,
    origins: Vec<Origin>,
    /// Node and number of the input, by value.
    uses: Vec<Vec<(usize, usize)>>,
    /// The value of each initializer and Constant.
    tensors: HashMap<usize, usize>,
}

/// An operation that a tensor gets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    pub node: usize,
    /// Which of its inputs.
    pub input: usize,
    /// A Transpose lies on the way.
    pub flipped: bool,
    /// The DequantizeLinear on the way.
    pub dequantised_by: Option<usize>,
}

impl<'a> Flow<'a> {
    pub fn of(model: &'a Model) -> Checked<Flow<'a>> {
        let mut flow = Flow {
            model,
            scopes: model.scopes.iter().map(|_| HashMap::new()).collect(),
            origins: Vec::new(),
            uses: Vec::new(),
            tensors: HashMap::new(),
        };
        for (scope, graph) in model.scopes.iter().enumerate() {
            for tensor in &graph.initializers {
                let Some(proto) = model.tensors.get(*tensor) else { continue };
                if !flow.define(scope, &proto.name, Origin::Tensor(*tensor)) {
                    return rule(format!("it has two initializers named `{}`", printable(&proto.name)));
                }
            }
        }
        for (position, node) in model.nodes.iter().enumerate() {
            let constant = (node.op == "Constant").then(|| node.tensors().next()).flatten();
            let origin = constant.map_or(Origin::Node(position), |(_, tensor)| Origin::Tensor(tensor));
            for output in &node.outputs {
                flow.define(node.scope, output, origin);
            }
        }
        for (scope, graph) in model.scopes.iter().enumerate() {
            for input in &graph.inputs {
                flow.define(scope, input, Origin::Input);
            }
        }
        for (position, node) in model.nodes.iter().enumerate() {
            for (input, name) in node.inputs.iter().enumerate() {
                if let Some(uses) = flow.resolve(node.scope, name).and_then(|value| flow.uses.get_mut(value))
                {
                    uses.push((position, input));
                }
            }
        }
        Ok(flow)
    }

    /// Gives a name its value; false where the name is taken. The empty name is an input left out.
    fn define(&mut self, scope: usize, name: &'a str, origin: Origin) -> bool {
        let value = self.origins.len();
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

    fn resolve(&self, scope: usize, name: &str) -> Option<usize> {
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
    fn input(&self, node: &Node, input: usize) -> Option<usize> {
        self.resolve(node.scope, node.inputs.get(input).filter(|name| !name.is_empty())?)
    }

    /// The tensor that a node's input is, perhaps through an Identity or a Cast.
    pub fn input_tensor(&self, node: &Node, input: usize) -> Option<usize> {
        let mut value = self.input(node, input)?;
        for _ in 0..8 {
            let before = match self.origins.get(value)? {
                Origin::Tensor(tensor) => return Some(*tensor),
                Origin::Node(node) => self.node(*node).filter(|node| passes_on(&node.op))?,
                Origin::Input => return None,
            };
            value = self.input(before, 0)?;
        }
        None
    }

    /// The node whose output a node's input is.
    pub fn input_node(&self, node: &Node, input: usize) -> Option<&'a Node> {
        match self.origins.get(self.input(node, input)?)? {
            Origin::Node(node) => self.node(*node),
            _ => None,
        }
    }

    /// The nodes that use a node's first output, with the numbers of their inputs.
    pub fn users(&self, node: &Node) -> impl Iterator<Item = (&'a Node, usize)> {
        let value = node.outputs.first().and_then(|name| self.resolve(node.scope, name));
        let uses = value.and_then(|value| self.uses.get(value)).map_or(&[][..], Vec::as_slice);
        uses.iter().take(MAX_STEPS).filter_map(|(node, input)| Some((self.node(*node)?, *input)))
    }

    /// The names that Identity nodes give a tensor.
    pub fn other_names(&self, tensor: usize) -> Vec<&'a str> {
        let value = self.tensors.get(&tensor).and_then(|value| self.uses.get(*value));
        let nodes = value.into_iter().flatten().take(MAX_STEPS).filter_map(|(node, _)| self.node(*node));
        nodes
            .filter(|node| node.op == "Identity")
            .filter_map(|node| node.outputs.first())
            .map(String::as_str)
            .collect()
    }

    /// The operations that a tensor gets to.
    pub fn consumers(&self, tensor: usize) -> Vec<Consumer> {
        let mut found = Vec::new();
        let Some(start) = self.tensors.get(&tensor) else { return found };
        let mut steps = 0;
        let mut waiting = vec![(*start, false, None)];
        while let Some((value, flipped, dequantised_by)) = waiting.pop() {
            // In the file's order, although the last one waiting is the first to be taken up.
            let mut later = Vec::new();
            for (position, input) in self.uses.get(value).into_iter().flatten() {
                steps += 1;
                if steps > MAX_STEPS {
                    return found;
                }
                let Some(node) = self.node(*position) else { continue };
                let output = || self.resolve(node.scope, node.outputs.first()?);
                match (node.op.as_str(), *input) {
                    (op, 0) if passes_on(op) => later.extend(output().map(|v| (v, flipped, dequantised_by))),
                    ("Transpose", 0) => match node.integers("perm") {
                        None | Some([1, 0]) => later.extend(output().map(|v| (v, !flipped, dequantised_by))),
                        _ => found.push(Consumer { node: *position, input: 0, flipped, dequantised_by }),
                    },
                    ("DequantizeLinear", 0) => {
                        later.extend(output().map(|v| (v, flipped, dequantised_by.or(Some(*position)))));
                    }
                    _ => match self.inside(node, *input) {
                        Some(value) => later.push((value, flipped, dequantised_by)),
                        None => {
                            found.push(Consumer { node: *position, input: *input, flipped, dequantised_by })
                        }
                    },
                }
            }
            waiting.extend(later.into_iter().rev());
        }
        found
    }

    /// The value inside a function of the model that an input of its call becomes.
    fn inside(&self, call: &Node, input: usize) -> Option<usize> {
        let scope = *self.model.functions.get(&(call.domain.clone(), call.op.clone()))?;
        let name = self.model.scopes.get(scope)?.inputs.get(input)?;
        self.scopes.get(scope)?.get(name.as_str()).copied()
    }
}

/// Operations that change neither the numbers nor their order.
fn passes_on(op: &str) -> bool {
    matches!(op, "Identity" | "Cast" | "CastLike")
}
