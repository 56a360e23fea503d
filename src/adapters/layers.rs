//! From the tensors of an adapter's file to its layers: a pair of factors each, checked.

use std::collections::{BTreeMap, HashSet};

use super::config::AdapterConfig;
use super::names::{Parsed, Part};
use crate::error::Result;
use crate::tensors::{Kind, Tensor};
use crate::text::{natural_cmp, printable, shape};

/// What kind of weight a layer adapts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A [r, in] and B [out, r].
    Linear,
    /// A [r, vocabulary] and B [width, r]; the table is [vocabulary, width].
    Embedding,
    /// A [r, in, kernel…] and B [out, r, 1…].
    Conv,
}

/// Two factors that belong together.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The weight that they adapt, by its name in the adapted model.
    pub weight: String,
    pub form: Form,
    pub a: Tensor,
    pub b: Tensor,
    pub rank: usize,
    pub scale: f64,
}

/// Everything that an adapter's file holds, in the natural order of the modules.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub products: Vec<Layer>,
    /// Biases to be added: the bias' name in the adapted model, the tensor, its factor.
    pub biases: Vec<(String, Tensor, f64)>,
    /// Tensors in place of the base's, by their names in the adapted model.
    pub wholes: Vec<(String, Tensor)>,
}

impl Layer {
    /// The shape of ΔW, as weights are stored; `flipped` for a Conv1D layer's [in, out].
    pub fn shape(&self, flipped: bool) -> Vec<usize> {
        let first = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
        let rest = self.a.shape.get(1..).unwrap_or_default();
        match self.form {
            Form::Linear if !flipped => [&[first(&self.b)], rest].concat(),
            Form::Linear | Form::Embedding => [rest, &[first(&self.b)]].concat(),
            Form::Conv => [&[first(&self.b)], rest].concat(),
        }
    }
}

/// The parts of one module, as they are found.
#[derive(Default)]
struct Found {
    configured: String,
    parts: Vec<(Part, Tensor)>,
}

impl Found {
    fn take(&mut self, part: Part) -> Option<Tensor> {
        let at = self.parts.iter().position(|(p, _)| *p == part)?;
        Some(self.parts.swap_remove(at).1)
    }

    /// Both factors, or none of them.
    fn pair(&mut self, a: Part, b: Part) -> std::result::Result<Option<(Tensor, Tensor)>, String> {
        match (self.take(a), self.take(b)) {
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (None, None) => Ok(None),
            (Some(a), None) => Err(format!("{} has no B that belongs to it", named(&a))),
            (None, Some(b)) => Err(format!("{} has no A that belongs to it", named(&b))),
        }
    }

    /// A and B, and the kind of layer that they adapt.
    fn factors(&mut self, module: &str) -> std::result::Result<(Form, Tensor, Tensor), String> {
        match (self.pair(Part::A, Part::B)?, self.pair(Part::EmbeddingA, Part::EmbeddingB)?) {
            (Some((a, b)), None) if a.shape.len() > 2 => Ok((Form::Conv, a, b)),
            (Some((a, b)), None) => Ok((Form::Linear, a, b)),
            (None, Some((a, b))) => Ok((Form::Embedding, a, b)),
            (None, None) => Err(format!("`{}` has a bias, but no factors", printable(module))),
            (Some((a, _)), Some(_)) => {
                Err(format!("{} has the factors of an embedding beside it", named(&a)))
            }
        }
    }
}

/// Sorts the tensors of an adapter; `wrong` makes an error of a sentence on its file.
///
/// # Errors
/// What `wrong` makes of a name that is not known, a factor without the other one, or shapes that
/// do not fit one another or the configuration.
pub(super) fn layers(
    tensors: Vec<Tensor>,
    config: &AdapterConfig,
    wrong: &dyn Fn(String) -> crate::Error,
) -> Result<Layers> {
    let mut layers = Layers::default();
    let modules = by_module(tensors, &mut layers.wholes).map_err(wrong)?;
    config.check_effort(modules.len())?;
    // The attention whose inner `out_proj` is adapted, too, is torch's MultiheadAttention.
    let inner = modules.iter().filter(|(module, found)| **module != found.configured);
    let attentions: HashSet<String> = inner.map(|(_, found)| found.configured.clone()).collect();
    for (module, mut found) in modules {
        let (rank, scale) = config.scale(&found.configured)?;
        if let Some(bias) = found.take(Part::Bias) {
            layers.biases.push((format!("{module}.bias"), bias, scale));
        }
        let (form, a, b) = found.factors(&module).map_err(wrong)?;
        check_shapes(&a, &b, rank).map_err(wrong)?;
        // Of torch's attention PEFT adds the product of `out_proj` twice, when it trains and when it
        // merges: as a part of the attention, and as a layer of its own (seen in 0.21).
        let doubled = module == format!("{}.out_proj", found.configured);
        let scale = if doubled { 2.0 * scale } else { scale };
        let parameter = if attentions.contains(&module) { "in_proj_weight" } else { "weight" };
        layers.products.push(Layer { weight: format!("{module}.{parameter}"), form, a, b, rank, scale });
    }
    layers.products.sort_by(|x, y| natural_cmp(&x.weight, &y.weight));
    Ok(layers)
}

/// The parts of every module; whole tensors go to `wholes`.
fn by_module(
    tensors: Vec<Tensor>,
    wholes: &mut Vec<(String, Tensor)>,
) -> std::result::Result<BTreeMap<String, Found>, String> {
    let mut modules: BTreeMap<String, Found> = BTreeMap::new();
    for tensor in tensors {
        let parsed = Parsed::of(&tensor.name).map_err(|why| format!("{} {why}", named(&tensor)))?;
        let Parsed { part, module, configured } = parsed;
        if part == Part::Whole {
            wholes.push((module, tensor));
            continue;
        }
        if tensor.dtype.kind() != Kind::Real || tensor.elements == 0 {
            let (kind, shape) = (tensor.dtype.name(), shape(&tensor.shape));
            return Err(format!("{} ({kind}, {shape}) is no factor", named(&tensor)));
        }
        let found = modules.entry(module).or_default();
        found.configured = configured;
        if found.parts.iter().any(|(p, _)| *p == part) {
            return Err(format!("{} is there under two names", named(&tensor)));
        }
        found.parts.push((part, tensor));
    }
    Ok(modules)
}

/// A [r, …] and B [out, r, 1…] of the same number of dimensions, with the configured r.
fn check_shapes(a: &Tensor, b: &Tensor, rank: usize) -> std::result::Result<(), String> {
    let both = || format!("{} is {} and B is {}", named(a), shape(&a.shape), shape(&b.shape));
    let ([of_a, _, ..], [_, of_b, ..]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(format!("{}, but factors have two dimensions or more", both()));
    };
    if of_a != of_b {
        return Err(format!("{}: their ranks do not fit", both()));
    }
    if *of_a != rank {
        return Err(format!("{}, but the configuration gives the rank {rank}", both()));
    }
    let pointwise = b.shape.iter().skip(2).all(|side| *side == 1);
    if a.shape.len() != b.shape.len() || !pointwise {
        return Err(format!("{}: these are no two factors of one layer", both()));
    }
    Ok(())
}

/// A tensor for a message.
pub(super) fn named(tensor: &Tensor) -> String {
    format!("the tensor `{}`", printable(&tensor.name))
}
