//! What layers are made of: matrices, with an adapter or without, and norms.

use tch::{TchError, Tensor};

use super::low_rank::LowRank;

/// A matrix, perhaps with a bias and an adapter.
#[derive(Debug)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub adapter: Option<LowRank>,
}

impl Linear {
    /// Wx + b for the last dimension, and what the adapter adds to it. In training the adapter's dropout is on.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let y = x.f_linear(&self.weight, self.bias.as_ref())?;
        match &self.adapter {
            Some(adapter) => y.f_add(&adapter.forward(x, train)?),
            None => Ok(y),
        }
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> Linear {
        Linear {
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            adapter: self.adapter.as_ref().map(LowRank::shallow_clone),
        }
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub epsilon: f64,
}

impl Norm {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> Norm {
        let (weight, bias) = (self.weight.shallow_clone(), self.bias.shallow_clone());
        Norm { weight, bias, epsilon: self.epsilon }
    }
}

/// Division by the root of the mean square of the last dimension (Zhang and Sennrich 2019).
#[derive(Debug)]
pub(super) struct RmsNorm {
    pub weight: Tensor,
    pub epsilon: f64,
}

impl RmsNorm {
    /// In the type of the weight, F32, whatever comes in.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_to_kind(self.weight.f_kind()?)?;
        x.f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> RmsNorm {
        RmsNorm { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }
}
