//! From the tensors of a checkpoint to parameters: found by transformers' names, checked, made F32.

use std::collections::HashMap;
use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::tensors::{Content, Dtype, Tensor as Stored};
use evenkeel::text::printable;
use tch::{Device, Kind, Tensor};

use super::Settings;
use super::config::Config;
use super::encoder::{Linear, Norm};
use crate::error::{Error, Result};
use crate::random::Normal;
use crate::training::Parameter;

/// The type of libtorch for one that can be trained.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F64 => Some(Kind::Double),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// The tensors of a checkpoint by every name that they have.
pub(crate) type ByName<'a> = HashMap<&'a str, &'a Stored>;

/// Lists the tensors of a checkpoint, and refuses one whose weights are computed from others.
pub(crate) fn by_name<'a>(path: &Path, checkpoint: &'a Checkpoint) -> Result<ByName<'a>> {
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

/// Takes the weights of a model one after another, and remembers them as its parameters.
pub(super) struct Weights<'a> {
    path: &'a Path,
    checkpoint: &'a Checkpoint,
    tensors: &'a ByName<'a>,
    /// What stands before the names of the encoder in this checkpoint: `bert.`, or nothing.
    prefix: String,
    /// Whether the head is not to be taken from the checkpoint.
    new_head: bool,
    initial: f64,
    random: Normal,
    settings: Settings,
    parameters: Vec<Parameter>,
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
    ) -> Result<Weights<'a>> {
        const MARK: &str = "embeddings.word_embeddings.weight";
        let with = format!("{}.", config.family.prefix);
        let candidates = [with.as_str(), ""];
        let found = candidates.iter().find(|prefix| tensors.contains_key(format!("{prefix}{MARK}").as_str()));
        let Some(prefix) = found else {
            let reason = format!(
                "it holds neither `{with}{MARK}` nor `{MARK}`: no {} model.",
                config.family.model_type
            );
            return Err(Error::Model { path: path.to_path_buf(), reason });
        };
        Ok(Weights {
            path,
            checkpoint,
            tensors,
            prefix: (*prefix).to_owned(),
            new_head,
            initial: config.initial,
            random: Normal::new(settings.seed),
            settings,
            parameters: Vec::new(),
        })
    }

    /// What stands before the names of the encoder: `bert.`, or nothing.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The parameters, in the order in which they were taken.
    pub fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
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

    /// A matrix of the encoder.
    pub fn linear(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let name = format!("{}{name}", self.prefix);
        self.linear_as(&name, from, to)
    }

    /// A matrix of the encoder that some checkpoints do without: it is initialised then.
    pub fn new_in_encoder(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let name = format!("{}{name}", self.prefix);
        if self.tensors.contains_key(format!("{name}.weight").as_str()) {
            return self.linear_as(&name, from, to);
        }
        self.initialise(&name, from, to)
    }

    /// A matrix of the head.
    pub fn head(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        if self.new_head { self.initialise(name, from, to) } else { self.linear_as(name, from, to) }
    }

    fn linear_as(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let weight = self.stored(&format!("{name}.weight"), &[to, from], true)?;
        let bias = self.stored(&format!("{name}.bias"), &[to], false)?;
        Ok(Linear { weight, bias })
    }

    /// As transformers does: normal with the configuration's standard deviation, and no bias.
    fn initialise(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let numbers = self.random.numbers(to.saturating_mul(from), self.initial);
        let weight = Tensor::f_from_slice(&numbers)?.f_view(lengths(&[to, from]).as_slice())?;
        let bias = Tensor::f_zeros(lengths(&[to]), (Kind::Float, Device::Cpu))?;
        let weight = self.keep(format!("{name}.weight"), weight, true)?;
        Ok(Linear { weight, bias: self.keep(format!("{name}.bias"), bias, false)? })
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

    /// Makes a parameter of numbers that nobody else holds.
    fn keep(&mut self, name: String, values: Tensor, decays: bool) -> Result<Tensor> {
        let tensor = values.f_to_device_(self.settings.device, Kind::Float, false, false)?;
        let tensor = tensor.f_set_requires_grad(true)?;
        self.parameters.push(Parameter { name, tensor: tensor.shallow_clone(), decays, is_complex: false });
        Ok(tensor)
    }
}

/// A shape as libtorch wants it; no dimension of a tensor that exists is beyond its range.
pub(crate) fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect()
}
