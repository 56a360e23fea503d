//! A convolution over one axis or two.

use tch::{TchError, Tensor};

/// A kernel [outputs, inputs, points…], with a bias or without.
#[derive(Debug)]
pub(super) struct Convolution {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    /// Points of zeros around the grid.
    pub padding: i64,
}

impl Convolution {
    /// Of x [examples, inputs, points…].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (bias, padding) = (self.bias.as_ref(), self.padding);
        match x.dim() {
            3 => x.f_conv1d(&self.weight, bias, 1, padding, 1, 1),
            _ => x.f_conv2d(&self.weight, bias, 1, padding, 1, 1),
        }
    }
}

/// A convolution that doubles the grid: a kernel [inputs, outputs, 2…] with a stride of 2.
#[derive(Debug)]
pub(super) struct Doubling {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Doubling {
    /// Of x [examples, inputs, points…].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let bias = Some(&self.bias);
        match x.dim() {
            3 => x.f_conv_transpose1d(&self.weight, bias, 2, 0, 0, 1, 1),
            _ => x.f_conv_transpose2d(&self.weight, bias, 2, 0, 0, 1, 1),
        }
    }
}
