//! Adapters on their base: which tensor each part belongs to, and what becomes of it.

use std::sync::Arc;

use super::Adapter;
use super::delta::{Delta, Product, Term};
use super::layers::{Form, Layer, named};
use super::names::{Shift, Targets, Unfit};
use crate::error::{Error, Result};
use crate::source::{LeftOut, ModelConfig};
use crate::tensors::{Content, Dtype, Kind, Tensor};
use crate::text::{printable, shape};

/// The output layer of language models: where a file does not hold it, it is tied to the embedding.
const HEAD: &str = "lm_head";
/// Modules under which models keep the embedding of their input.
const EMBEDDINGS: [&str; 6] =
    ["embed_tokens", "wte", "shared", "word_embeddings", "embed_in", "tok_embeddings"];
/// Modules of GPT-2's kind that are Conv1D where the model has them at all.
const CONV1D: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];

/// A base checkpoint to which adapters are added one after another.
pub(crate) struct Merge<'a> {
    tensors: Vec<Tensor>,
    /// What is added to each tensor.
    terms: Vec<Vec<Term>>,
    targets: Targets,
    config: Option<&'a ModelConfig>,
    /// Weights of the base are stored as [in, out], as far as names and shapes tell.
    conv1d: bool,
    left_out: Vec<LeftOut>,
}

impl<'a> Merge<'a> {
    pub fn new(tensors: Vec<Tensor>, config: Option<&'a ModelConfig>) -> Merge<'a> {
        let names = tensors.iter().enumerate().flat_map(|(position, tensor)| {
            [&tensor.name].into_iter().chain(&tensor.aliases).map(move |name| (name.clone(), position))
        });
        let conv1d = tensors.iter().any(|t| {
            let [inputs, outputs] = *t.shape.as_slice() else { return false };
            t.name.ends_with(".c_attn.weight") && Some(outputs) == inputs.checked_mul(3)
        });
        Merge {
            targets: Targets::new(names),
            terms: vec![Vec::new(); tensors.len()],
            tensors,
            config,
            conv1d,
            left_out: Vec::new(),
        }
    }

    /// Adds one adapter: first what replaces tensors, then its products.
    ///
    /// # Errors
    /// [`Error::Adapter`] where it does not fit the base.
    pub fn add(&mut self, adapter: Adapter) -> Result<()> {
        let unfit = |reason: String| Error::Adapter { path: adapter.weights.clone(), reason };
        let layers = &adapter.layers;
        let held = |layer: &&Layer| self.tied_embedding(&layer.weight).is_none();
        let shift = match layers.products.is_empty() {
            false => self.targets.shift(layers.products.iter().filter(held).map(|l| l.weight.as_str())),
            // What is not there may be new, and then says nothing of a prefix.
            true => {
                Ok(self.targets.shift(layers.wholes.iter().map(|(name, _)| name.as_str())).ok().flatten())
            }
        };
        let shift = shift.map_err(|why| unfit(explain(why, &layers.products, &self.targets)))?;
        for (name, whole) in &layers.wholes {
            match self.targets.find(name, shift.as_ref()) {
                Some(position) => self.replace(position, name, shift.as_ref(), whole),
                None if adapter.config.saves(name) || is_head(name) => self.insert(name, whole),
                None => {
                    return Err(unfit(format!(
                        "{} is in place of a tensor that the base does not hold",
                        named(whole)
                    )));
                }
            }
        }
        for layer in &layers.products {
            let found = self.targets.find(&layer.weight, shift.as_ref());
            let position = found.or_else(|| self.tied_embedding(&layer.weight));
            let Some(position) = position else {
                let missing = Unfit::Missing(layer.weight.clone());
                return Err(unfit(explain(missing, std::slice::from_ref(layer), &self.targets)));
            };
            let product = self.product(position, layer, adapter.config.fan_in_fan_out).map_err(unfit)?;
            self.push(position, Term::Product(product));
        }
        for (name, bias, scale) in &layers.biases {
            let position = self.targets.find(name, shift.as_ref());
            let fits = position.and_then(|p| Some((p, self.tensors.get(p)?)));
            let Some((position, base)) = fits.filter(|(_, t)| t.shape == bias.shape && is_real(t)) else {
                return Err(unfit(format!("{} is added to no bias of the base", named(bias))));
            };
            debug_assert_eq!(base.elements, bias.elements);
            self.push(position, Term::Bias(bias.clone(), *scale));
        }
        self.left_out.extend(adapter.left_out);
        Ok(())
    }

    /// The checkpoint with every adapter in it.
    pub fn finish(self) -> (Vec<Tensor>, Vec<LeftOut>) {
        let merged = |(tensor, terms): (Tensor, Vec<Term>)| {
            if terms.is_empty() {
                return tensor;
            }
            Tensor {
                name: tensor.name.clone(),
                dtype: Dtype::F64,
                shape: tensor.shape.clone(),
                elements: tensor.elements,
                aliases: tensor.aliases.clone(),
                content: Content::Encoded(Arc::new(Delta::onto(tensor, terms))),
            }
        };
        (self.tensors.into_iter().zip(self.terms).map(merged).collect(), self.left_out)
    }

    fn push(&mut self, position: usize, term: Term) {
        if let Some(terms) = self.terms.get_mut(position) {
            terms.push(term);
        }
    }

    /// How a layer's factors make an update of a tensor; the error says why they do not.
    fn product(&self, position: usize, layer: &Layer, flag: bool) -> std::result::Result<Product, String> {
        let Some(base) = self.tensors.get(position) else { return Err("it has no base".to_owned()) };
        if !is_real(base) {
            return Err(format!(
                "{} adapts `{}`, which is stored as {} and not as real numbers",
                named(&layer.a),
                printable(&base.name),
                base.stored_as()
            ));
        }
        let (straight, flipped) = (layer.shape(false) == base.shape, layer.shape(true) == base.shape);
        let transposed = match layer.form {
            // A square weight does not tell, but the flag or its neighbours do.
            Form::Linear if straight && flipped => flag || self.conv1d && is_conv1d(&base.name),
            Form::Linear if straight || flipped => flipped,
            Form::Embedding if straight => true,
            Form::Conv if straight => false,
            _ => {
                return Err(format!(
                    "{} ({}) and its B ({}) do not fit `{}` ({})",
                    named(&layer.a),
                    shape(&layer.a.shape),
                    shape(&layer.b.shape),
                    printable(&base.name),
                    shape(&base.shape)
                ));
            }
        };
        let (a, b) = (layer.a.clone(), layer.b.clone());
        Ok(Product { a, b, rank: layer.rank, scale: layer.scale, transposed })
    }

    /// Puts a whole tensor in place of the one at `position`, which is also known as `name`. A tied
    /// tensor stays under its other names: PEFT trains a copy.
    fn replace(&mut self, position: usize, name: &str, shift: Option<&Shift>, whole: &Tensor) {
        let exact = self.targets.get(name).is_some();
        let own = if exact { name.to_owned() } else { shift.and_then(|s| s.apply(name)).unwrap_or_default() };
        let Some(old) = self.tensors.get_mut(position) else { return };
        let mut names = [old.name.clone()].into_iter().chain(std::mem::take(&mut old.aliases));
        let mut others: Vec<String> = names.by_ref().filter(|other| *other != own).collect();
        if others.is_empty() {
            *old = Tensor { name: own, aliases: Vec::new(), ..whole.clone() };
            if let Some(terms) = self.terms.get_mut(position) {
                terms.clear();
            }
            return;
        }
        old.name = others.remove(0);
        old.aliases = others;
        self.insert(&own, whole);
    }

    fn insert(&mut self, name: &str, whole: &Tensor) {
        self.targets.insert(name.to_owned(), self.tensors.len());
        self.tensors.push(Tensor { name: name.to_owned(), aliases: Vec::new(), ..whole.clone() });
        self.terms.push(Vec::new());
    }

    /// The embedding to which an output layer that the base does not hold is tied.
    fn tied_embedding(&self, name: &str) -> Option<usize> {
        let untied = self.config.is_some_and(|config| {
            config.mentions(&["tie_word_embeddings"]) && !config.flag("tie_word_embeddings")
        });
        // One under another prefix is an output layer all the same.
        if untied || !is_head(name) || self.tensors.iter().any(|tensor| is_head(&tensor.name)) {
            return None;
        }
        let mut embeddings = self.tensors.iter().enumerate().filter(|(_, tensor)| {
            let (parameter, owner) = tensor.parameter_and_owner();
            parameter == "weight" && EMBEDDINGS.contains(&owner)
        });
        let (position, _) = embeddings.next()?;
        embeddings.next().is_none().then_some(position)
    }
}

fn is_real(tensor: &Tensor) -> bool {
    tensor.dtype.kind() == Kind::Real
}

fn is_head(name: &str) -> bool {
    name.strip_suffix(".weight").is_some_and(|module| module.rsplit('.').next() == Some(HEAD))
}

fn is_conv1d(name: &str) -> bool {
    name.strip_suffix(".weight").and_then(|m| m.rsplit('.').next()).is_some_and(|m| CONV1D.contains(&m))
}

/// Why names of the adapter lead to no tensor of the base, by the factor that has the name.
fn explain(why: Unfit, layers: &[Layer], base: &Targets) -> String {
    let factor = |name: &str| {
        let layer = layers.iter().find(|layer| layer.weight == name);
        layer.map_or_else(|| "it".to_owned(), |layer| named(&layer.a))
    };
    match why {
        Unfit::Missing(name) => {
            let own: Vec<String> =
                base.like(&name).iter().map(|own| format!("`{}`", printable(own))).collect();
            let own = if own.is_empty() { "no tensors".to_owned() } else { own.join(" and ") };
            let (factor, name) = (factor(&name), printable(&name));
            format!("{factor} adapts `{name}`, which the base does not hold (it has {own})")
        }
        Unfit::Ambiguous(name, [one, other]) => format!(
            "{} adapts `{}`, which can be `{}` or `{}` of the base",
            factor(&name),
            printable(&name),
            printable(&one),
            printable(&other)
        ),
    }
}
