//! Operators on disk: a directory of ours, or a file of PDEBench's; and written as a directory.

use std::path::{Path, PathBuf};

use evenkeel::{Checkpoint, OpenOptions};
use tch::Device;

use super::config::Config;
use super::network::Network;
use super::weights::Origin;
use crate::error::{Error, Result};
use crate::files;
use crate::model::by_name;

/// A checkpoint of an operator, opened, with nothing of the weights read yet.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    checkpoint: Checkpoint,
    config: Config,
}

impl Source {
    /// Opens a directory or a file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`Error::Model`] where it is no operator.
    pub fn open(path: &Path) -> Result<Source> {
        let checkpoint = Checkpoint::open(path, &OpenOptions::default())?;
        let config = Config::of(path, &checkpoint)?;
        Ok(Source { path: path.to_path_buf(), checkpoint, config })
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The operator with its weights.
    ///
    /// # Errors
    /// [`Error::Model`] where a tensor is missing, has another shape than the sizes make it, or belongs to none
    /// of the layers.
    pub fn load(&self, device: Device) -> Result<Network> {
        let tensors = by_name(&self.path, &self.checkpoint)?;
        let network =
            Network::new(self.config, Origin::Stored(&self.path, &self.checkpoint, &tensors), device)?;
        let parameters = network.parameters().iter().map(|parameter| parameter.name.as_str());
        let known: std::collections::HashSet<&str> =
            parameters.chain(network.buffers().iter().map(|(name, _)| name.as_str())).collect();
        let odd = self.checkpoint.tensors().iter().find(|tensor| !known.contains(tensor.name.as_str()));
        match odd {
            Some(tensor) => Err(Error::Model {
                path: self.path.clone(),
                reason: format!(
                    "the tensor `{}` is no part of a {} as this version knows it.",
                    evenkeel::text::printable(&tensor.name),
                    self.config.kind().name()
                ),
            }),
            None => Ok(network),
        }
    }
}

impl Network {
    /// Writes it into an empty directory: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for parameter in self.parameters() {
            tensors.push(files::Stored::parameter(parameter)?);
        }
        for (name, tensor) in self.buffers() {
            tensors.push(files::Stored::tensor(name, tensor)?);
        }
        files::write_tensors(&directory.join("model.safetensors"), &tensors)?;
        let mut text = serde_json::to_vec_pretty(&self.config().json())
            .map_err(|error| Error::io("write", directory)(error.into()))?;
        text.push(b'\n');
        // Last: a directory without one is no model yet.
        files::write(&directory.join("config.json"), &text)
    }
}
