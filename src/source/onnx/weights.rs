//! From the tensors of a graph to those of the checkpoint: what each is for, its form, its name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::encodings::Transposed;
use super::flow::{Consumer, Flow};
use super::model::Node;
use super::names;
use super::quantised::{Blocks, Codes, Dequantised, is_readable};
use super::recurrent::Recurrent;
use super::scales::{self, BlockParameters, Parameters};
use super::values::{Places, Values, values};
use crate::source::problem::{Checked, rule};
use crate::source::{Contents, LeftOut, MAX_SHARING};
use crate::tensors::{Content, Dtype, Kind, Tensor};
use crate::text;

/// Lists what a model holds.
pub(super) fn contents(flow: &Flow, places: &Places) -> Checked<Contents> {
    let values: Vec<Values> =
        flow.model.tensors.iter().map(|proto| values(proto, places)).collect::<Checked<_>>()?;
    refuse_overlaps(&values, flow, places)?;
    let consumers = flow.consumers()?;
    let assembly = Assembly {
        flow,
        values,
        by_use: names_by_use(flow, &consumers),
        consumers,
        parameters: HashMap::new(),
        layers: HashMap::new(),
        names: HashSet::new(),
        repeated: HashMap::new(),
        plumbing: 0,
        renamed: Vec::new(),
        out: Contents::default(),
    };
    Ok(assembly.run())
}

/// Tensors in another file may be the same one, but not parts of each other; and those of a small file
/// must not keep a machine busy for long.
fn refuse_overlaps(values: &[Values], flow: &Flow, places: &Places) -> Checked<()> {
    let stored = |(tensor, values): (usize, &Values)| match values {
        Values::Plain(of) | Values::Nibbles { bytes: of, .. } => match &of.content {
            Content::Stored { file, bytes } if *file != places.file && !bytes.is_empty() => {
                Some((*file, bytes.start, bytes.end, tensor))
            }
            _ => None,
        },
        Values::Unread(_) => None,
    };
    let mut all: Vec<_> = values.iter().enumerate().filter_map(stored).collect();
    all.sort_unstable();
    for (before, after) in all.iter().zip(all.iter().skip(1)) {
        let same = (before.1, before.2) == (after.1, after.2);
        if before.0 == after.0 && after.1 < before.2 && !same {
            let name = |tensor: usize| {
                text::printable(flow.model.tensors.get(tensor).map_or("", |proto| &proto.name)).into_owned()
            };
            return rule(format!(
                "the external data of the tensors `{}` and `{}` overlap at byte {}",
                name(before.3),
                name(after.3),
                after.1
            ));
        }
    }
    let bytes = all.iter().fold(0u64, |sum, (_, start, end, _)| sum.saturating_add(end - start));
    let files: HashMap<usize, u64> = places.externals.values().copied().collect();
    let length = files.values().fold(0u64, |sum, length| sum.saturating_add(*length));
    if bytes > length.saturating_mul(MAX_SHARING) {
        return rule(format!(
            "its tensors share their external data so that they hold {bytes} bytes, more than {MAX_SHARING} times those files"
        ));
    }
    Ok(())
}

struct Assembly<'a> {
    flow: &'a Flow<'a>,
    /// By the position in the model's list, like all that follows.
    values: Vec<Values>,
    consumers: Vec<Vec<Consumer>>,
    /// Names that a node gives its weights: by the position of the node.
    by_use: HashMap<usize, Vec<String>>,
    /// Scales and zero points, and the weight they belong to.
    parameters: HashMap<usize, usize>,
    /// The modules of recurrent nodes, and which of its module's layers each is, in the file's order.
    layers: HashMap<usize, (String, usize)>,
    names: HashSet<String>,
    /// How often a name had to be made different.
    repeated: HashMap<String, usize>,
    /// Scalars and small integers that the graph computes with.
    plumbing: usize,
    /// Positions in the output, and in the model.
    renamed: Vec<(usize, usize)>,
    out: Contents,
}

impl Assembly<'_> {
    fn run(mut self) -> Contents {
        self.find_parameters();
        self.find_layers();
        for tensor in 0..self.values.len() {
            match self.form(tensor) {
                Ok(forms) => self.emit(tensor, forms),
                Err(Some(reason)) => {
                    let name = self.raw(tensor).to_owned();
                    self.out.left_out.push(LeftOut { name, reason });
                }
                Err(None) => self.plumbing += 1,
            }
        }
        self.add_aliases();
        self.add_notes();
        self.out
    }

    /// The name in the file.
    fn raw(&self, tensor: usize) -> &str {
        self.flow.model.tensors.get(tensor).map_or("", |proto| &proto.name)
    }

    fn consumers(&self, tensor: usize) -> &[Consumer] {
        self.consumers.get(tensor).map_or(&[], Vec::as_slice)
    }

    fn op(&self, consumer: &Consumer) -> &str {
        self.flow.node(consumer.node()).map_or("", |node| &node.op)
    }

    fn find_parameters(&mut self) {
        for tensor in 0..self.values.len() {
            let consumers = self.consumers(tensor);
            let one = scales::parameters(self.flow, consumers).map(|p| (p.scale, p.zero));
            let blocks = scales::blocks(self.flow, consumers).and_then(Result::ok).map(|p| (p.scale, p.zero));
            if let Some((scale, zero)) = one.or(blocks) {
                self.parameters.insert(scale, tensor);
                self.parameters.extend(zero.map(|zero| (zero, tensor)));
            }
        }
    }

    fn find_layers(&mut self) {
        let mut layers: HashMap<String, usize> = HashMap::new();
        for node in &self.flow.model.nodes {
            if matches!(node.op.as_str(), "LSTM" | "GRU" | "RNN") {
                let module = module_of(node);
                let next = layers.entry(module.clone()).or_default();
                self.layers.insert(node.number, (module, *next));
                *next += 1;
            }
        }
    }

    /// What becomes of a tensor: one or several of the checkpoint's, without names where those are
    /// still to be found; or the reason why it is left out; or nothing worth a word.
    fn form(&self, tensor: usize) -> Result<Vec<Tensor>, Option<String>> {
        if let Some(weight) = self.parameters.get(&tensor) {
            let weight = text::printable(self.raw(*weight)).into_owned();
            return Err(Some(format!("scale or zero point of the quantised weight `{weight}`")));
        }
        let consumers = self.consumers(tensor);
        if let Some(blocks) = scales::blocks(self.flow, consumers) {
            return self.blocks(tensor, blocks).map(|tensor| vec![tensor]).map_err(Some);
        }
        let weight = self.weight(tensor).map_err(Some)?;
        self.refuse_plumbing(tensor, &weight)?;
        let recurrent = consumers.iter().find_map(|consumer| {
            let node = self.flow.node(consumer.node())?;
            Some((Recurrent::of(node, consumer)?, consumer.node()))
        });
        if let Some((recurrent, (module, layer))) =
            recurrent.and_then(|(recurrent, node)| Some((recurrent, self.layers.get(&node)?)))
            && let Some(parts) = recurrent.split(&weight, module, *layer)
        {
            return Ok(parts);
        }
        Ok(vec![if self.is_turned(consumers) { transposed(weight) } else { weight }])
    }

    /// The numbers of a tensor, dequantised where scales belong to it.
    fn weight(&self, tensor: usize) -> Result<Tensor, String> {
        let parameters = scales::parameters(self.flow, self.consumers(tensor));
        match (self.values.get(tensor), parameters) {
            (Some(Values::Unread(reason)), _) => Err(reason.clone()),
            (Some(Values::Plain(plain)), Some(parameters)) if quantises(plain.dtype) => {
                let codes = Codes::Plain(plain.clone());
                self.dequantised(codes, &plain.shape, plain.elements, &parameters)
            }
            (Some(Values::Plain(plain)), _) => Ok(plain.clone()),
            (Some(Values::Nibbles { bytes, shape, elements, signed }), Some(parameters)) => {
                let codes = Codes::Nibbles { bytes: bytes.clone(), signed: *signed };
                self.dequantised(codes, shape, *elements, &parameters)
            }
            (Some(Values::Nibbles { .. }), None) => Err("4-bit integers without their scales".to_owned()),
            (None, _) => Err("not there".to_owned()),
        }
    }

    fn dequantised(
        &self,
        codes: Codes,
        shape: &[usize],
        elements: usize,
        parameters: &Parameters,
    ) -> Result<Tensor, String> {
        let unusable = || "quantised, with scales or zero points that do not fit it".to_owned();
        let scale =
            self.plain(parameters.scale).filter(|scale| is_scale(scale.dtype)).ok_or_else(unusable)?;
        let groups = scales::groups(shape, &scale.shape, parameters).ok_or_else(unusable)?;
        let zero = match parameters.zero.map(|zero| self.values.get(zero)) {
            None => None,
            Some(Some(Values::Plain(zero))) if zero.elements == scale.elements && is_readable(zero.dtype) => {
                Some(Codes::Plain(zero.clone()))
            }
            Some(Some(Values::Nibbles { bytes, elements, signed, .. })) if *elements == scale.elements => {
                Some(Codes::Nibbles { bytes: bytes.clone(), signed: *signed })
            }
            Some(_) => return Err(unusable()),
        };
        let encoding = Dequantised { codes, scale: scale.clone(), zero, groups };
        Ok(Tensor {
            name: String::new(),
            dtype: scale.dtype,
            shape: shape.to_vec(),
            elements,
            content: Content::Encoded(Arc::new(encoding)),
            aliases: Vec::new(),
        })
    }

    fn blocks(&self, tensor: usize, parameters: Result<BlockParameters, String>) -> Result<Tensor, String> {
        let BlockParameters { scale, zero, rows, cols, bits, block } = parameters?;
        let unusable = || "blocks of a size that its scales do not fit".to_owned();
        let codes = self.plain(tensor).filter(|codes| codes.dtype == Dtype::U8).ok_or_else(unusable)?;
        let scales = self.plain(scale).filter(|scales| is_scale(scales.dtype)).ok_or_else(unusable)?;
        let zeros = zero.map(|zero| self.plain(zero).cloned().ok_or_else(unusable)).transpose()?;
        let blocks = Blocks { codes: codes.clone(), scales: scales.clone(), zeros, cols, bits, block };
        let elements = rows.checked_mul(cols).filter(|_| blocks.fits(rows)).ok_or_else(unusable)?;
        Ok(Tensor {
            name: String::new(),
            dtype: scales.dtype,
            shape: vec![rows, cols],
            elements,
            content: Content::Encoded(Arc::new(blocks)),
            aliases: Vec::new(),
        })
    }

    fn plain(&self, tensor: usize) -> Option<&Tensor> {
        match self.values.get(tensor)? {
            Values::Plain(plain) => Some(plain),
            _ => None,
        }
    }

    /// Shapes, axes and scalars that the graph computes with, and tables that are only added or
    /// compared, are no weights. What has a name of its own is listed all the same.
    fn refuse_plumbing(&self, tensor: usize, weight: &Tensor) -> Result<(), Option<String>> {
        const ELEMENTWISE: [&str; 17] = [
            "Add", "Sub", "Mul", "Div", "Pow", "Where", "Equal", "Greater", "Less", "Min", "Max", "Concat",
            "Expand", "And", "Or", "Mod", "Sum",
        ];
        let in_node = self.flow.model.tensors.get(tensor).is_some_and(|proto| proto.in_node);
        let named = names::own(self.raw(tensor)).is_some();
        let small = weight.elements <= 1 || weight.dtype.kind() == Kind::Integer;
        if weight.shape.len() < 2 && small && (in_node || !named) {
            return Err(None);
        }
        let consumers = self.consumers(tensor);
        let no_weight = |consumer: &Consumer| match self.op(consumer) {
            // Behind the weights and biases come lengths and states.
            "LSTM" | "GRU" | "RNN" => consumer.input() > 3,
            op => ELEMENTWISE.contains(&op),
        };
        match consumers.first() {
            Some(first) if !named && weight.shape.len() > 1 && consumers.iter().all(no_weight) => {
                Err(Some(format!("used by {}, but not as a weight", self.op(first))))
            }
            _ => Ok(()),
        }
    }

    /// Whether the stored form is [in, out]. A table that is also looked up stays as it is.
    fn is_turned(&self, consumers: &[Consumer]) -> bool {
        if consumers.iter().any(|consumer| self.op(consumer) == "Gather" && !consumer.flipped) {
            return false;
        }
        let turned = |consumer: &Consumer| {
            let node = self.flow.node(consumer.node())?;
            let rows_out = match (node.op.as_str(), consumer.input()) {
                ("MatMul", 0) => true,
                ("MatMul" | "MatMulInteger" | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat", 1) => false,
                ("QLinearMatMul", 3) => false,
                ("Gemm" | "FusedMatMul", 1) | ("QGemm", 3) => node.integer("transB").unwrap_or(0) != 0,
                _ => return None,
            };
            Some(rows_out == consumer.flipped)
        };
        consumers.iter().find_map(turned).unwrap_or(false)
    }

    fn emit(&mut self, tensor: usize, forms: Vec<Tensor>) {
        let split = forms.len() > 1 || forms.first().is_some_and(|form| self.is_named(form));
        for mut form in forms {
            let candidates = if split { vec![form.name.clone()] } else { self.candidates(tensor, &form) };
            form.name = self.unique(candidates);
            self.renamed.push((self.out.tensors.len(), tensor));
            self.out.tensors.push(form);
        }
    }

    /// A part of a recurrent weight has its name already.
    fn is_named(&self, form: &Tensor) -> bool {
        ["weight_ih_l", "weight_hh_l"].iter().any(|part| form.name.contains(part))
    }

    /// Names for a tensor, the best one first.
    fn candidates(&self, tensor: usize, form: &Tensor) -> Vec<String> {
        let raw = self.raw(tensor);
        let consumers = self.consumers(tensor);
        let own = names::own(raw).map(|own| match consumers.first() {
            Some(first) => self.suited(own, first, form),
            None => own,
        });
        let mut by_use = consumers.iter().filter(|_| own.is_none()).flat_map(|c| self.by_use(c)).peekable();
        // Where all are taken, the first one is made different.
        let first = by_use.peek().copied();
        let by_use = by_use.find(|name| !self.names.contains(*name)).or(first).cloned();
        own.clone().into_iter().chain(by_use).chain([raw.to_owned()]).collect()
    }

    /// Names that an operation gives a tensor.
    fn by_use(&self, consumer: &Consumer) -> &[String] {
        self.by_use.get(&consumer.node()).map_or(&[], Vec::as_slice)
    }

    /// The kind of a kernel or a table is told by its name: one that does not say it is completed.
    fn suited(&self, own: String, first: &Consumer, form: &Tensor) -> String {
        let last = own.rsplit('.').next().unwrap_or_default();
        let says_weight = matches!(last, "weight" | "kernel");
        match self.op(first) {
            "Conv" | "ConvTranspose" | "ConvInteger" | "QLinearConv"
                if form.shape.len() > 2 && !says_weight && !own.contains("conv") =>
            {
                format!("{own}.weight")
            }
            "Gather" if form.shape.len() == 2 && !says_weight && form.dtype.kind() != Kind::Integer => {
                format!("{own}.embedding.weight")
            }
            _ => own,
        }
    }

    fn unique(&mut self, candidates: Vec<String>) -> String {
        for name in &candidates {
            if !name.is_empty() && self.names.insert(name.clone()) {
                return name.clone();
            }
        }
        let base =
            candidates.into_iter().next().filter(|name| !name.is_empty()).unwrap_or("unnamed".to_owned());
        loop {
            let count = self.repeated.entry(base.clone()).or_insert(1);
            *count += 1;
            let name = format!("{base}~{count}");
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    /// The other names of each tensor: the one in the file, those that an Identity gives it, and
    /// those of other modules that share it.
    fn add_aliases(&mut self) {
        for (position, tensor) in std::mem::take(&mut self.renamed) {
            let raw = self.raw(tensor);
            let named = names::own(raw).is_some();
            let identities = self.flow.other_names(tensor).into_iter().filter_map(names::own);
            let shared = self.consumers(tensor).iter().filter(|_| !named);
            let shared = shared.filter_map(|consumer| self.by_use(consumer).first());
            let shared = shared.filter(|name| !self.names.contains(*name)).cloned();
            let all: Vec<String> = identities.chain(shared).chain([raw.to_owned()]).collect();
            let Some(out) = self.out.tensors.get_mut(position) else { continue };
            for alias in all {
                if !alias.is_empty() && !self.names.contains(&alias) {
                    self.names.insert(alias.clone());
                    out.aliases.push(alias);
                }
            }
        }
    }

    fn add_notes(&mut self) {
        let mut note =
            |name: &str, reason: String| self.out.left_out.push(LeftOut { name: name.to_owned(), reason });
        for sparse in &self.flow.model.sparse {
            note(sparse, "a sparse tensor, which is not read".to_owned());
        }
        if self.flow.model.training {
            note("training_info", "a second graph, which trains the first".to_owned());
        }
        if self.plumbing > 0 {
            let count = text::count(self.plumbing, "scalar or integer vector", "scalars and integer vectors");
            note("constants", format!("{count} that the graph computes with"));
        }
    }
}

/// The names that nodes give the tensors which have none of their own. A node's are found once, however
/// many tensors it uses.
fn names_by_use(flow: &Flow, consumers: &[Vec<Consumer>]) -> HashMap<usize, Vec<String>> {
    let mut names = HashMap::new();
    for (proto, consumers) in flow.model.tensors.iter().zip(consumers) {
        if names::own(&proto.name).is_none() {
            for node in consumers.iter().filter_map(|consumer| flow.node(consumer.node())) {
                names.entry(node.number).or_insert_with(|| names::by_use(flow, node));
            }
        }
    }
    names
}

/// The module of a recurrent node.
fn module_of(node: &Node) -> String {
    match names::module(node) {
        Some((module, _)) => module,
        None if node.name.is_empty() => node.op.to_lowercase(),
        None => node.name.replace('/', ""),
    }
}

/// Types that a quantised weight's codes have.
fn quantises(dtype: Dtype) -> bool {
    is_readable(dtype) && matches!(dtype.kind(), Kind::Integer | Kind::Float8)
}

/// Types that scales have; the weight gets that of its scales.
fn is_scale(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// A matrix the other way round; anything else as it is.
fn transposed(of: Tensor) -> Tensor {
    let (&[rows, cols], false) = (of.shape.as_slice(), of.elements == 0) else { return of };
    Tensor {
        name: String::new(),
        dtype: of.dtype,
        shape: vec![cols, rows],
        elements: of.elements,
        aliases: Vec::new(),
        content: Content::Encoded(Arc::new(Transposed { of, stored_rows: rows, stored_cols: cols })),
    }
}
