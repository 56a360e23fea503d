//! Prediction of frame after frame, and the loss over it.

use tch::{Device, Reduction, Tensor};

use crate::error::{Error, Result};
use crate::operators::Network;
use crate::training::Mode;

/// How trajectories of one shape are predicted.
#[derive(Debug)]
pub struct Rollout {
    /// Frames that the operator is given.
    initial: usize,
    /// Frames of a trajectory.
    times: usize,
    channels: i64,
    /// Coordinates of the points, [points…, axes].
    places: Tensor,
}

impl Rollout {
    /// For trajectories of so many frames and channels on a grid with these coordinates along its axes; the first
    /// `initial` frames are given.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(
        initial: usize,
        times: usize,
        channels: usize,
        coordinates: &[Vec<f32>],
        device: Device,
    ) -> Result<Rollout> {
        let places = places(coordinates)?.f_to_device(device)?;
        Ok(Rollout { initial, times, channels: channels as i64, places })
    }

    /// Frames that the operator is given.
    pub fn initial(&self) -> usize {
        self.initial
    }

    /// Frames that it predicts.
    pub fn predicted(&self) -> usize {
        self.times.saturating_sub(self.initial)
    }

    /// Predicts the frames of some trajectories [samples, times, points…, channels] one after another; each is
    /// handed on with its number, [samples, points…, channels].
    ///
    /// # Errors
    /// What libtorch says, and those of `each`.
    pub fn run(
        &self,
        network: &Network,
        frames: &Tensor,
        mode: Mode,
        mut each: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let given = frames.f_narrow(1, 0, self.initial as i64)?;
        // All frames of a point side by side, the oldest first.
        let mut window = given.f_movedim_int(1, -2)?.f_flatten(-2, -1)?;
        for time in self.initial..self.times {
            let next = network.forward(&window, &self.places, mode)?;
            each(time, &next)?;
            if time + 1 < self.times {
                let newer = window.f_narrow(-1, self.channels, (self.initial as i64 - 1) * self.channels)?;
                window = Tensor::f_cat(&[&newer, &next], -1)?;
            }
        }
        Ok(())
    }

    /// The sum of the mean squared errors of all predicted frames: a scalar, with its graph through all of them.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn loss(&self, network: &Network, frames: &Tensor) -> Result<Tensor> {
        let mut errors = Vec::with_capacity(self.predicted());
        self.run(network, frames, Mode::Train, |time, next| {
            errors.push(next.f_mse_loss(&frames.f_select(1, time as i64)?, Reduction::Mean)?);
            Ok(())
        })?;
        if errors.is_empty() {
            return Err(Error::Option("there is no frame to predict.".to_owned()));
        }
        Ok(Tensor::f_stack(&errors, 0)?.f_sum(tch::Kind::Float)?)
    }
}

/// The coordinates of the points of a grid, [points…, axes], from those of its axes.
fn places(coordinates: &[Vec<f32>]) -> Result<Tensor> {
    let axes = coordinates.iter().map(|axis| Tensor::f_from_slice(axis)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_stack(&Tensor::f_meshgrid_indexing(&axes, "ij")?, -1)?)
}
