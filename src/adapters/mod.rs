//! Between source and tensors: low-rank adapters of PEFT, added to the weights of a base checkpoint
//! or looked at alone.
//!
//! An adapter is a directory with `adapter_config.json` and `adapter_model.safetensors`: for every
//! adapted weight W two thin factors A and B, so that the model computes with W + scale·B·A (Hu et
//! al. 2021). Nothing is computed here: a tensor gets an [`Encoding`](crate::tensors::Encoding)
//! (`delta`) that forms the sum when the matrix is measured.

mod config;
mod delta;
mod layers;
mod merge;
mod names;
mod patterns;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::AdapterConfig;
use delta::{Delta, Product};
use layers::{Form, Layers, layers};

pub(crate) use merge::Merge;

use crate::error::{Error, Result};
use crate::source::companion::Companion;
use crate::source::{Contents, Files, LeftOut, OpenOptions, read_file};
use crate::tensors::{Content, Dtype, Tensor};
use crate::text::shape;

/// What reports call the format of an adapter without its base.
pub(crate) const FORMAT: &str = "peft";
/// The names that PEFT gives an adapter's weights, the preferred one first.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// An adapter, read and checked in itself.
#[derive(Debug)]
pub(crate) struct Adapter {
    config: AdapterConfig,
    /// The file of its tensors.
    weights: PathBuf,
    layers: Layers,
    left_out: Vec<LeftOut>,
}

/// Whether a file lies beside an adapter's configuration and is its weights, by their names.
pub(crate) fn is_weights(file: &Path) -> bool {
    file.file_name().is_some_and(|name| WEIGHTS.iter().any(|weights| name == *weights))
}

/// Whether a directory with files of these names is an adapter.
pub(crate) fn is_adapter(names: &[String]) -> bool {
    names.iter().any(|name| name == AdapterConfig::FILE)
}

/// The weights in an adapter's directory.
///
/// # Errors
/// [`Error::NoCheckpoint`] where the configuration or the weights are missing.
pub(crate) fn weights_in(directory: &Path) -> Result<PathBuf> {
    let lacks = |reason: String| Err(Error::NoCheckpoint { path: directory.to_path_buf(), reason });
    if !directory.join(AdapterConfig::FILE).is_file() {
        return lacks(format!(
            "an adapter is a directory with {} and {}, and {0} is missing.",
            AdapterConfig::FILE,
            WEIGHTS.join(" or ")
        ));
    }
    match WEIGHTS.iter().map(|name| directory.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => lacks(format!("it holds {}, but no {}.", AdapterConfig::FILE, WEIGHTS.join(" or "))),
    }
}

impl Adapter {
    /// Reads an adapter by the file of its weights, with the configuration beside it.
    ///
    /// # Errors
    /// Those of the file's format and of the configuration; [`Error::Malformed`] where tensors are
    /// not known, have no partner, or do not fit it.
    pub fn read(weights: &Path, files: &mut Files, options: &OpenOptions) -> Result<Adapter> {
        let directory = weights.parent().unwrap_or(Path::new(""));
        // Before the weights: of an adapter that is not read nothing else is of interest.
        let config = AdapterConfig::read(directory)?.with_scale(options.adapter_scale);
        let (format, mut contents) = read_file(files, weights, options)?;
        format.settle(&mut contents);
        let Contents { tensors, left_out, .. } = contents;
        Adapter::new(weights, config, tensors, left_out)
    }

    /// An adapter that is in no file: the text of its configuration, and its tensors.
    ///
    /// # Errors
    /// As [`Adapter::read`].
    pub fn in_memory(config: &[u8], tensors: Vec<Tensor>, scale: Option<f64>) -> Result<Adapter> {
        let path = Path::new(AdapterConfig::FILE);
        let config = AdapterConfig::parse(Companion::absent(path), config)?.with_scale(scale);
        Adapter::new(Path::new("the adapter in training"), config, tensors, Vec::new())
    }

    fn new(
        weights: &Path,
        config: AdapterConfig,
        tensors: Vec<Tensor>,
        left_out: Vec<LeftOut>,
    ) -> Result<Adapter> {
        let wrong = |reason| Error::Malformed { path: weights.to_path_buf(), format: "PEFT adapter", reason };
        if tensors.is_empty() {
            return Err(wrong("it holds no tensors".to_owned()));
        }
        let layers = layers(tensors, &config, &wrong)?;
        Ok(Adapter { config, weights: weights.to_path_buf(), layers, left_out })
    }

    /// The file that was read beside the weights.
    pub fn companion(&self) -> Companion {
        self.config.companion().clone()
    }

    /// The updates alone, one tensor ΔW = scale·B·A for every adapted weight, under its name.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a size overflows.
    pub fn updates(self) -> Result<Contents> {
        let Adapter { config, weights, layers, mut left_out } = self;
        let mut tensors = Vec::with_capacity(layers.products.len());
        for layer in layers.products {
            let flipped = layer.form == Form::Linear && config.fan_in_fan_out;
            let transposed = flipped || layer.form == Form::Embedding;
            let dims = layer.shape(flipped);
            let elements = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let elements = elements.filter(|n| *n <= usize::MAX / 16).ok_or_else(|| Error::Malformed {
                path: weights.clone(),
                format: "PEFT adapter",
                reason: format!(
                    "{} and its B make a matrix of {}, whose size overflows",
                    layers::named(&layer.a),
                    shape(&dims)
                ),
            })?;
            let rows = dims.first().copied().unwrap_or(1).max(1);
            let product =
                Product { a: layer.a, b: layer.b, rank: layer.rank, scale: layer.scale, transposed };
            tensors.push(Tensor {
                name: layer.weight,
                dtype: Dtype::F64,
                shape: dims,
                elements,
                content: Content::Encoded(Arc::new(Delta::alone(product, rows, elements / rows))),
                aliases: Vec::new(),
            });
        }
        let without = |name: String, reason: &str| LeftOut { name, reason: reason.to_owned() };
        left_out
            .extend(layers.biases.into_iter().map(|(_, bias, _)| without(bias.name, "bias of an adapter")));
        left_out.extend(layers.wholes.into_iter().map(|(_, whole)| {
            without(
                whole.name,
                "replaces a tensor of the base, no update (--adapter on the base measures it)",
            )
        }));
        Ok(Contents { tensors, config: None, left_out })
    }
}
