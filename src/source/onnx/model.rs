//! An ONNX model as it stands in its file: graphs, nodes and tensors, without their data.
//!
//! The messages are those of onnx.proto. Graphs inside of nodes (If, Loop, Scan) and the bodies of
//! functions become [`Scope`]s of their own; all nodes and all tensors stand in one list each.

use std::collections::HashMap;
use std::ops::Range;

use super::wire::{Field, Value, Wire};
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// Graphs that may stand within one another; real ones hardly pass four.
const MAX_DEPTH: usize = 32;

/// What a graph may hold, in [`cost`]s: 50,000 ordinary nodes, five times as many as the exports of
/// large language models have. Each part takes more memory than its bytes in the file.
const MAX_COST: usize = 1 << 21;

/// What the parts of a graph cost, in some dozens of bytes. A tensor also becomes a row of the report:
/// 70,000 of them, and no more, are read.
mod cost {
    pub const NODE: usize = 8;
    pub const TENSOR: usize = 24;
    pub const SCOPE: usize = 8;
    pub const ATTRIBUTE: usize = 2;
    pub const TEXT: usize = 4;
    pub const NUMBER: usize = 1;
    /// Bytes of a text that cost one more.
    pub const BYTES: u64 = 32;
}

/// The most settings of a node that are kept. Real ones have below thirty, and each is looked for once
/// for every tensor that the node uses.
const MAX_ATTRIBUTES: usize = 128;

/// No tensor has more dimensions.
const MAX_DIMENSIONS: usize = 64;

/// A model.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub scopes: Vec<Scope>,
    pub nodes: Vec<Node>,
    pub tensors: Vec<Proto>,
    /// Functions of the model itself, by domain and name.
    pub functions: HashMap<(String, String), usize>,
    /// Names of sparse tensors.
    pub sparse: Vec<String>,
    /// There is a second graph, that trains the first.
    pub training: bool,
}

/// A graph or the body of a function: where names are looked up.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The graph around it.
    pub parent: Option<usize>,
    pub name: String,
    pub inputs: Vec<String>,
    /// Positions in [`Model::tensors`].
    pub initializers: Vec<usize>,
}

/// One operation.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Its position in [`Model::nodes`].
    pub number: usize,
    pub scope: usize,
    pub op: String,
    pub domain: String,
    pub name: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<(String, Attribute)>,
    /// PyTorch's newer exporter writes here which modules the node belongs to.
    pub name_scopes: Option<String>,
}

/// A node's setting.
#[derive(Debug)]
pub(super) enum Attribute {
    Integer(i64),
    Integers(Vec<i64>),
    /// A position in [`Model::tensors`].
    Tensor(usize),
}

impl Node {
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Integer(value) if key == name => Some(*value),
            _ => None,
        })
    }

    pub fn integers(&self, name: &str) -> Option<&[i64]> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Attribute::Integers(values) if key == name => Some(values.as_slice()),
            _ => None,
        })
    }

    pub fn tensors(&self) -> impl Iterator<Item = (&str, usize)> {
        self.attributes.iter().filter_map(|(key, value)| match value {
            Attribute::Tensor(tensor) => Some((key.as_str(), *tensor)),
            _ => None,
        })
    }
}

/// A tensor (TensorProto): its description, and where its data are.
#[derive(Debug, Default)]
pub(super) struct Proto {
    pub name: String,
    /// Part of a node rather than an initializer.
    pub in_node: bool,
    pub dims: Vec<u64>,
    pub data_type: u64,
    pub segmented: bool,
    pub raw: Option<Range<u64>>,
    /// Typed data, by the number of the field that holds them. Only packed fields are taken.
    pub typed: Option<(u64, Range<u64>)>,
    pub external: Option<External>,
}

/// Data in a file of their own.
#[derive(Debug, Default)]
pub(super) struct External {
    pub location: String,
    pub offset: u64,
    pub length: Option<u64>,
}

/// Reads the description of a model.
pub(super) fn read(wire: &Wire) -> Checked<Model> {
    let mut parser = Parser { wire, model: Model::default(), cost: 0 };
    let mut rest = wire.all();
    let mut graph = false;
    while let Some(field) = wire.next(&mut rest)? {
        match field.number {
            7 if graph => return rule("it has two graphs"),
            7 => {
                graph = true;
                parser.graph(field.bytes()?, None, 0)?;
            }
            20 => parser.model.training = true,
            25 => parser.function(field.bytes()?)?,
            _ => {}
        }
    }
    if graph { Ok(parser.model) } else { rule("it has no graph") }
}

struct Parser<'a, 'f> {
    wire: &'a Wire<'f>,
    model: Model,
    cost: usize,
}

impl Parser<'_, '_> {
    fn spend(&mut self, cost: usize) -> Checked<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > MAX_COST {
            rule(
                "its graphs have more nodes, names and tensors than are read (some 70,000 tensors, or 50,000 nodes)",
            )
        } else {
            Ok(())
        }
    }

    fn text(&mut self, field: &Field) -> Checked<String> {
        let place = field.bytes()?;
        let bytes = (place.end - place.start) / cost::BYTES;
        self.spend(cost::TEXT.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX)))?;
        self.wire.text(place)
    }

    fn scope(&mut self, parent: Option<usize>) -> Checked<usize> {
        self.spend(cost::SCOPE)?;
        self.model.scopes.push(Scope { parent, ..Scope::default() });
        Ok(self.model.scopes.len() - 1)
    }

    fn change(&mut self, scope: usize, change: impl FnOnce(&mut Scope)) {
        if let Some(scope) = self.model.scopes.get_mut(scope) {
            change(scope);
        }
    }

    fn graph(&mut self, message: Range<u64>, parent: Option<usize>, depth: usize) -> Checked<()> {
        if depth > MAX_DEPTH {
            return rule(format!(
                "more than {MAX_DEPTH} graphs stand within one another at byte {}",
                message.start
            ));
        }
        let scope = self.scope(parent)?;
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => self.node(field.bytes()?, scope, depth)?,
                2 => {
                    let name = self.text(&field)?;
                    self.change(scope, |scope| scope.name = name);
                }
                5 => {
                    let tensor = self.tensor(field.bytes()?)?;
                    self.change(scope, |scope| scope.initializers.push(tensor));
                }
                11 => {
                    let name = self.named(field.bytes()?)?;
                    self.change(scope, |scope| scope.inputs.push(name));
                }
                15 => {
                    let name = self.sparse(field.bytes()?)?;
                    self.model.sparse.push(name);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn function(&mut self, message: Range<u64>) -> Checked<()> {
        let scope = self.scope(None)?;
        let (mut name, mut domain) = (String::new(), String::new());
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => name = self.text(&field)?,
                4 => {
                    let input = self.text(&field)?;
                    self.change(scope, |scope| scope.inputs.push(input));
                }
                7 => self.node(field.bytes()?, scope, 0)?,
                10 => domain = self.text(&field)?,
                _ => {}
            }
        }
        self.change(scope, |scope| scope.name.clone_from(&name));
        self.model.functions.insert((domain, name), scope);
        Ok(())
    }

    fn node(&mut self, message: Range<u64>, scope: usize, depth: usize) -> Checked<()> {
        self.spend(cost::NODE)?;
        let mut node = Node { scope, ..Node::default() };
        let at = message.start;
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => node.inputs.push(self.text(&field)?),
                2 => node.outputs.push(self.text(&field)?),
                3 => node.name = self.text(&field)?,
                4 => node.op = self.text(&field)?,
                5 if node.attributes.len() == MAX_ATTRIBUTES => {
                    return rule(format!("a node has more than {MAX_ATTRIBUTES} attributes at byte {at}"));
                }
                5 => node.attributes.extend(self.attribute(field.bytes()?, scope, depth)?),
                7 => node.domain = self.text(&field)?,
                9 => node.name_scopes = self.name_scopes(field.bytes()?)?.or(node.name_scopes),
                _ => {}
            }
        }
        self.name_tensors(&node);
        node.number = self.model.nodes.len();
        self.model.nodes.push(node);
        Ok(())
    }

    /// A Constant's tensor goes by the name of its value, that of another node by the attribute's.
    fn name_tensors(&mut self, node: &Node) {
        let output = node.outputs.first().map_or("", String::as_str);
        for (attribute, tensor) in node.tensors() {
            let Some(proto) = self.model.tensors.get_mut(tensor) else { continue };
            proto.in_node = true;
            proto.name =
                if node.op == "Constant" { output.to_owned() } else { format!("{output}.{attribute}") };
        }
    }

    /// An attribute; `None` for those that nothing depends on. Graphs in it are read on the way.
    fn attribute(
        &mut self,
        message: Range<u64>,
        scope: usize,
        depth: usize,
    ) -> Checked<Option<(String, Attribute)>> {
        self.spend(cost::ATTRIBUTE)?;
        let (mut name, mut value) = (String::new(), None);
        let mut integers = Vec::new();
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => name = self.text(&field)?,
                3 => value = Some(Attribute::Integer(field.integer()?.cast_signed())),
                5 => value = Some(Attribute::Tensor(self.tensor(field.bytes()?)?)),
                6 | 11 => self.graph(field.bytes()?, Some(scope), depth + 1)?,
                // Only permutations of dimensions are looked at.
                8 => integers.extend(self.integers(&field)?.into_iter().map(u64::cast_signed)),
                _ => {}
            }
        }
        let value = if integers.is_empty() { value } else { Some(Attribute::Integers(integers)) };
        Ok(value.map(|value| (name, value)))
    }

    /// A repeated number, packed or one by one.
    fn integers(&mut self, field: &Field) -> Checked<Vec<u64>> {
        let mut rest = match &field.value {
            Value::Varint(value) => {
                self.spend(cost::NUMBER)?;
                return Ok(vec![*value]);
            }
            _ => field.bytes()?,
        };
        let mut values = Vec::new();
        while rest.start < rest.end {
            self.spend(cost::NUMBER)?;
            values.push(self.wire.varint(&mut rest)?);
        }
        Ok(values)
    }

    fn tensor(&mut self, message: Range<u64>) -> Checked<usize> {
        self.spend(cost::TENSOR)?;
        let start = message.start;
        let mut proto = Proto::default();
        let mut external = External::default();
        let mut is_external = false;
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => proto.dims.extend(self.integers(&field)?),
                2 => proto.data_type = field.integer()?,
                3 => proto.segmented = true,
                4..=7 | 10 | 11 => typed(&mut proto, &field)?,
                8 => proto.name = self.text(&field)?,
                9 if proto.raw.is_some() => {
                    return rule(format!("the tensor at byte {start} has raw data twice"));
                }
                9 => proto.raw = Some(field.bytes()?),
                13 => self.external(field.bytes()?, &mut external)?,
                14 => is_external = field.integer()? == 1,
                _ => {}
            }
            if proto.dims.len() > MAX_DIMENSIONS {
                return rule(format!("the tensor at byte {start} has more than {MAX_DIMENSIONS} dimensions"));
            }
        }
        proto.external = is_external.then_some(external);
        self.model.tensors.push(proto);
        Ok(self.model.tensors.len() - 1)
    }

    fn external(&mut self, message: Range<u64>, external: &mut External) -> Checked<()> {
        let Some((key, value)) = self.entry(message, &["location", "offset", "length"])? else {
            return Ok(());
        };
        let number = || match value.parse() {
            Ok(number) => Ok(number),
            Err(_) => rule(format!("the {key} `{}` of external data is no number", printable(&value))),
        };
        match key {
            "offset" => external.offset = number()?,
            "length" => external.length = Some(number()?),
            _ => external.location = value,
        }
        Ok(())
    }

    /// A key and its value (StringStringEntryProto), where the key is one of those that are wanted:
    /// some exporters add whole stack traces under others.
    fn entry<'k>(&mut self, message: Range<u64>, wanted: &[&'k str]) -> Checked<Option<(&'k str, String)>> {
        let (mut key, mut value) = (None, None);
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            match field.number {
                1 => {
                    let place = field.bytes()?;
                    if wanted.iter().any(|wanted| place.end - place.start == wanted.len() as u64) {
                        let text = self.wire.text(place)?;
                        key = wanted.iter().find(|wanted| **wanted == text).copied();
                    }
                }
                2 => value = Some(field),
                _ => {}
            }
        }
        let Some(key) = key else { return Ok(None) };
        let value = value.map(|field| self.text(&field)).transpose()?;
        Ok(Some((key, value.unwrap_or_default())))
    }

    fn name_scopes(&mut self, message: Range<u64>) -> Checked<Option<String>> {
        let entry = self.entry(message, &["pkg.torch.onnx.name_scopes"])?;
        Ok(entry.map(|(_, value)| value))
    }

    /// The name in a message that has it as its first field.
    fn named(&mut self, message: Range<u64>) -> Checked<String> {
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            if field.number == 1 {
                return self.text(&field);
            }
        }
        Ok(String::new())
    }

    /// The name of a sparse tensor's values.
    fn sparse(&mut self, message: Range<u64>) -> Checked<String> {
        let mut rest = message;
        while let Some(field) = self.wire.next(&mut rest)? {
            if field.number == 1 {
                let mut values = field.bytes()?;
                while let Some(field) = self.wire.next(&mut values)? {
                    if field.number == 8 {
                        return self.text(&field);
                    }
                }
            }
        }
        Ok(String::new())
    }
}

/// Remembers where typed data are. Texts come one by one; of them only that they are there matters.
fn typed(proto: &mut Proto, field: &Field) -> Checked<()> {
    const TEXTS: u64 = 6;
    let Value::Bytes(place) = &field.value else {
        return rule(format!("the tensor `{}` has numbers that are not packed", printable(&proto.name)));
    };
    match proto.typed.replace((field.number, place.clone())) {
        Some((TEXTS, _)) | None => Ok(()),
        // An empty field is what some writers leave of the other types.
        Some((_, before)) if before.is_empty() => Ok(()),
        Some(before) if place.is_empty() => {
            proto.typed = Some(before);
            Ok(())
        }
        Some(_) => rule(format!("the tensor `{}` has data in two places", printable(&proto.name))),
    }
}
