//! An operator with its weights.

use tch::{Device, Tensor, no_grad_guard};

use super::config::{Architecture, Config};
use super::fno::Fno;
use super::unet::UNet;
use super::weights::{Origin, Weights};
use crate::error::Result;
use crate::training::{Mode, Parameter};

/// An operator.
#[derive(Debug)]
pub struct Network {
    config: Config,
    layers: Layers,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
}

#[derive(Debug)]
enum Layers {
    Fno(Fno),
    UNet(UNet),
}

impl Network {
    /// An operator that begins at random.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn random(config: Config, seed: u64, device: Device) -> Result<Network> {
        Network::new(config, Origin::Seed(seed), device)
    }

    pub(super) fn new(config: Config, origin: Origin, device: Device) -> Result<Network> {
        let mut weights = Weights::new(origin, device);
        let layers = match config.architecture {
            Architecture::Fno { width, modes } => Layers::Fno(Fno::new(&mut weights, &config, width, modes)?),
            Architecture::UNet { features, levels } => {
                Layers::UNet(UNet::new(&mut weights, &config, features, levels)?)
            }
        };
        let (parameters, buffers) = weights.finish();
        Ok(Network { config, layers, parameters, buffers })
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is trained, always in the same order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// What belongs to its state and is not trained: running means, by their names in a checkpoint.
    pub fn buffers(&self) -> &[(String, Tensor)] {
        &self.buffers
    }

    /// The number of parameters, a complex one counted once.
    pub fn size(&self) -> usize {
        self.parameters.iter().map(Parameter::numbers).sum()
    }

    /// The next state: [examples, points…, inputs] → [examples, points…, outputs]. `places` are the coordinates
    /// of the points, [points…, axes], which a UNet does not ask for.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn forward(&self, states: &Tensor, places: &Tensor, mode: Mode) -> Result<Tensor> {
        let _no_graph = (mode == Mode::Evaluate).then(no_grad_guard);
        Ok(match &self.layers {
            Layers::Fno(fno) => fno.forward(states, places)?,
            Layers::UNet(unet) => unet.forward(states, mode)?,
        })
    }
}
