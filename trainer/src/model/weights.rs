//! From the tensors of a checkpoint to those of a model: found by transformers' names, checked, and made
//! parameters in F32. With adapters ([`Choice`]) the others are frozen: what is most of them, the tables and
//! matrices, is then held in BF16 where matrix products are computed in it anyway.

use std::collections::HashMap;
use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::tensors::{Content, Dtype, Tensor as Stored};
use evenkeel::text::printable;
use tch::{Device, Kind, Tensor};

use super::Settings;
use super::config::{Config, Family};
use super::linear::{Linear, Norm, RmsNorm};
use super::low_rank::{Choice, LowRank};
use crate::error::{Error, Result};
use crate::random::Numbers;
use crate::training::{Parameter, Update};

/// Sets the generator of adapters apart from that of heads.
const ADAPTERS: u64 = 0x6164_6170_7465_7273;

/// The type of libtorch for one that can be trained.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F64 => Some(Kind::Double),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// The tensors of a checkpoint by every name that they have.
pub(super) type ByName<'a> = HashMap<&'a str, &'a Stored>;

/// Lists the tensors of a checkpoint, and refuses one whose weights are computed from others.
pub(super) fn by_name<'a>(path: &Path, checkpoint: &'a Checkpoint) -> Result<ByName<'a>> {
    let quantised = checkpoint.set_aside().keys().next().cloned().or_else(|| {
        let computed = |tensor: &&Stored| {
            matches!(tensor.content, Content::Encoded(_)) && tensor.stored_as() != tensor.dtype.name()
        };
        checkpoint.tensors().iter().find(computed).map(|tensor| tensor.name.clone())
    });
    if let Some(name) = quantised {
        let reason =
            format!("its weights are quantised (`{}`); train the original checkpoint.", printable(&name));
        return Err(Error::Model { path: path.to_path_buf(), reason });
    }
    let mut found = ByName::new();
    for tensor in checkpoint.tensors() {
        let names = std::iter::once(&tensor.name).chain(&tensor.aliases);
        found.extend(names.map(|name| (name.as_str(), tensor)));
    }
    Ok(found)
}

/// What of a model is trained, and what is not.
#[derive(Debug)]
pub struct Trained {
    /// The parameters, in the order in which they were taken.
    pub parameters: Vec<Parameter>,
    /// The matrices with adapters; none where all of the model is trained.
    pub updates: Vec<Update>,
    /// Ends of the names of modules that are trained whole beside adapters.
    pub saved: Vec<String>,
    /// The bytes of frozen tensors.
    pub frozen: u64,
}

/// Takes the weights of a model one after another, and remembers them as its parameters.
pub(super) struct Weights<'a> {
    path: &'a Path,
    checkpoint: &'a Checkpoint,
    tensors: &'a ByName<'a>,
    /// What stands in this checkpoint before the names of everything but the head: `bert.`, or nothing.
    prefix: String,
    family: &'static Family,
    /// Whether the head is not to be taken from the checkpoint.
    new_head: bool,
    initial: f64,
    random: Numbers,
    /// The generator of adapters: what is adapted changes no head.
    random_adapters: Numbers,
    settings: Settings,
    choice: Option<Choice>,
    trained: Trained,
}

impl<'a> Weights<'a> {
    /// Finds out how the checkpoint at `path` calls its tensors.
    pub fn new(
        path: &'a Path,
        checkpoint: &'a Checkpoint,
        tensors: &'a ByName<'a>,
        config: &Config,
        new_head: bool,
        settings: Settings,
        choice: Option<Choice>,
    ) -> Result<Weights<'a>> {
        let mark = config.family.words();
        let with = format!("{}.", config.family.prefix);
        let candidates = [with.as_str(), ""];
        let found = candidates.iter().find(|prefix| tensors.contains_key(format!("{prefix}{mark}").as_str()));
        let Some(prefix) = found else {
            let reason = format!(
                "it holds neither `{with}{mark}` nor `{mark}`: no {} model.",
                config.family.model_type
            );
            return Err(Error::Model { path: path.to_path_buf(), reason });
        };
        Ok(Weights {
            path,
            checkpoint,
            tensors,
            prefix: (*prefix).to_owned(),
            family: config.family,
            new_head,
            initial: config.initial,
            random: Numbers::new(settings.seed),
            random_adapters: Numbers::new(settings.seed ^ ADAPTERS),
            settings,
            choice,
            trained: Trained { parameters: Vec::new(), updates: Vec::new(), saved: Vec::new(), frozen: 0 },
        })
    }

    /// What stands before the names of everything but the head: `bert.`, or nothing.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether adapters are trained, and most weights are not.
    pub fn has_adapters(&self) -> bool {
        self.choice.is_some()
    }

    /// Whether the adapters drop anything in training.
    pub fn drops(&self) -> bool {
        self.choice.as_ref().is_some_and(|choice| choice.lora.dropout > 0.0)
    }

    /// What was taken, once all of the model is.
    ///
    /// # Errors
    /// [`Error::Option`] where an adapter's target is none of the matrices.
    pub fn finish(mut self) -> Result<Trained> {
        if let Some(choice) = self.choice {
            choice.check()?;
            self.trained.saved = choice.saved;
        }
        Ok(self.trained)
    }

    /// An embedding.
    pub fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<Tensor> {
        self.stored(&format!("{}{name}", self.prefix), &[rows, columns], true)
    }

    /// A norm; old checkpoints call its weight gamma and its bias beta.
    pub fn norm(&mut self, name: &str, config: &Config) -> Result<Norm> {
        let mut take = |new: &str, old: &str| {
            let (new, old) = (format!("{}{name}.{new}", self.prefix), format!("{}{name}.{old}", self.prefix));
            let is_old = !self.tensors.contains_key(new.as_str()) && self.tensors.contains_key(old.as_str());
            self.stored(if is_old { &old } else { &new }, &[config.hidden], false)
        };
        let (weight, bias) = (take("weight", "gamma")?, take("bias", "beta")?);
        Ok(Norm { weight, bias, epsilon: config.epsilon })
    }

    /// A norm without a bias, of so many numbers.
    pub fn rms_norm(&mut self, name: &str, size: usize, config: &Config) -> Result<RmsNorm> {
        let weight = self.stored(&format!("{}{name}.weight", self.prefix), &[size], false)?;
        Ok(RmsNorm { weight, epsilon: config.epsilon })
    }

    /// A matrix with a bias.
    pub fn linear(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        self.matrix(name, from, to, true)
    }

    /// A matrix, with a bias or without.
    pub fn matrix(&mut self, name: &str, from: usize, to: usize, has_bias: bool) -> Result<Linear> {
        let name = format!("{}{name}", self.prefix);
        let linear = self.linear_as(&name, from, to, has_bias)?;
        Ok(Linear { adapter: self.adapter(&name, from, to, &linear.weight)?, ..linear })
    }

    /// A matrix that some checkpoints do without: it is initialised then, and trained whole.
    pub fn new_in_encoder(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let full = format!("{}{name}", self.prefix);
        if self.tensors.contains_key(format!("{full}.weight").as_str()) {
            return self.linear(name, from, to);
        }
        if let Some(choice) = &mut self.choice {
            choice.save(name);
        }
        self.initialise(&full, from, to, true)
    }

    /// A matrix of the head.
    pub fn head(&mut self, name: &str, from: usize, to: usize, has_bias: bool) -> Result<Linear> {
        match self.new_head {
            true => self.initialise(name, from, to, has_bias),
            false => self.linear_as(name, from, to, has_bias),
        }
    }

    /// The matrix from the last states to the vocabulary, under its own name.
    pub fn vocabulary(&mut self, name: &str, rows: usize, columns: usize) -> Result<Tensor> {
        self.stored(name, &[rows, columns], true)
    }

    fn linear_as(&mut self, name: &str, from: usize, to: usize, has_bias: bool) -> Result<Linear> {
        let weight = self.stored(&format!("{name}.weight"), &[to, from], true)?;
        let bias = if has_bias { Some(self.stored(&format!("{name}.bias"), &[to], false)?) } else { None };
        Ok(Linear { weight, bias, adapter: None })
    }

    /// As transformers does: normal with the configuration's standard deviation, and no bias.
    fn initialise(&mut self, name: &str, from: usize, to: usize, has_bias: bool) -> Result<Linear> {
        let numbers = self.random.normal(to.saturating_mul(from), self.initial);
        let weight = Tensor::f_from_slice(&numbers)?.f_view(lengths(&[to, from]).as_slice())?;
        let weight = self.keep(format!("{name}.weight"), weight, true)?;
        let bias = if has_bias {
            let zeros = Tensor::f_zeros(lengths(&[to]), (Kind::Float, Device::Cpu))?;
            Some(self.keep(format!("{name}.bias"), zeros, false)?)
        } else {
            None
        };
        Ok(Linear { weight, bias, adapter: None })
    }

    /// An adapter for a matrix, if it is to have one.
    fn adapter(&mut self, name: &str, from: usize, to: usize, frozen: &Tensor) -> Result<Option<LowRank>> {
        let module = self.family.full_name(name);
        let Some(choice) = self.choice.as_mut() else { return Ok(None) };
        if !choice.adapts(&module) {
            return Ok(None);
        }
        let (rank, dropout) = (choice.lora.rank, choice.lora.dropout);
        let (scale, spectral_scale) = (choice.lora.scale(), choice.lora.spectral_scale());
        let numbers = self.random_adapters.uniform(rank.saturating_mul(from), (from as f64).sqrt().recip());
        let a = Tensor::f_from_slice(&numbers)?.f_view(lengths(&[rank, from]).as_slice())?;
        let b = Tensor::f_zeros(lengths(&[to, rank]), (Kind::Float, Device::Cpu))?;
        let position = self.trained.parameters.len();
        let a = self.parameter(format!("{name}.lora_A.weight"), a, true)?;
        let b = self.parameter(format!("{name}.lora_B.weight"), b, true)?;
        self.trained.updates.push(Update {
            weight: format!("{name}.weight"),
            frozen: frozen.shallow_clone(),
            a: position,
            b: position + 1,
            scale: spectral_scale,
        });
        Ok(Some(LowRank { a, b, scale, dropout }))
    }

    /// A tensor of the checkpoint, of just this shape.
    fn stored(&mut self, name: &str, shape: &[usize], decays: bool) -> Result<Tensor> {
        let wrong = |reason: String| Error::Model { path: self.path.to_path_buf(), reason };
        let Some(tensor) = self.tensors.get(name) else {
            return Err(wrong(format!("the tensor `{name}` is missing.")));
        };
        if tensor.shape != shape {
            return Err(wrong(format!(
                "the tensor `{name}` has the shape {:?}, config.json makes it {shape:?}.",
                tensor.shape
            )));
        }
        let Some(kind) = kind_of(tensor.dtype) else {
            return Err(wrong(format!(
                "the tensor `{name}` is of type {}, not a weight.",
                tensor.dtype.name()
            )));
        };
        let bytes = self.checkpoint.read(tensor, 0..tensor.elements)?;
        let values = Tensor::f_from_data_size(&bytes, &lengths(shape), kind)?;
        self.keep(name.to_owned(), values, decays)
    }

    /// Takes numbers that nobody else holds: as a parameter, or, beside adapters, frozen, unless their module
    /// is to be trained whole.
    fn keep(&mut self, name: String, values: Tensor, decays: bool) -> Result<Tensor> {
        let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
        let module = self.family.full_name(module);
        let is_frozen = self.choice.as_mut().is_some_and(|choice| !choice.saves(&module));
        if is_frozen { self.frozen(&values) } else { self.parameter(name, values, decays) }
    }

    /// A tensor that does not learn. In BF16 only what would be cast to it anyway.
    fn frozen(&mut self, values: &Tensor) -> Result<Tensor> {
        let kind = if self.settings.bf16 && values.dim() > 1 { Kind::BFloat16 } else { Kind::Float };
        let tensor = values.f_to_device_(self.settings.device, kind, false, false)?;
        self.trained.frozen += (tensor.numel() * kind.elt_size_in_bytes()) as u64;
        Ok(tensor)
    }

    /// A tensor that learns, in F32.
    fn parameter(&mut self, name: String, values: Tensor, decays: bool) -> Result<Tensor> {
        let tensor = values.f_to_device_(self.settings.device, Kind::Float, false, false)?;
        let tensor = tensor.f_set_requires_grad(true)?;
        self.trained.parameters.push(Parameter { name, tensor: tensor.shallow_clone(), decays });
        Ok(tensor)
    }
}

/// A shape as libtorch wants it; no dimension of a tensor that exists is beyond its range.
fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect()
}
