//! Through all layers, one after the other: each with a seed of its own, and kept or recomputed.

use tch::{Device, Kind, TchError, Tensor};

use super::padding::Tokens;
use crate::random::{STRIDE, mix};
use crate::torch::recomputed;

/// The circumstances of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// Whether gradients will be wanted, and dropout is on.
    pub train: bool,
    /// Keep only the input of each layer, and compute the rest again for the gradients.
    pub recompute: bool,
    /// Whether anything is random in training.
    pub drops: bool,
}

impl Pass {
    /// Passes hidden states, examples × length × hidden, through all layers: all of them, or those of the given
    /// tokens alone, whose rows the layers then get, and the others are zero in the end. `part` makes a function
    /// of a layer that holds what it needs, for a part of the graph that outlives the borrow.
    pub fn through<L, P>(
        self,
        layers: &[L],
        embedded: Tensor,
        tokens: Option<&Tokens>,
        part: impl Fn(&L) -> P,
    ) -> Result<Tensor, TchError>
    where
        P: Fn(&Tensor) -> Result<Tensor, TchError> + Send + 'static,
    {
        let recompute = self.train && self.recompute;
        let seed = if self.train && self.drops { Some(draw()?) } else { None };
        let mut x = Tokens::picked(tokens, embedded)?;
        if recompute && !x.requires_grad() {
            // Frozen embeddings: the graph has to begin somewhere before the first layer.
            x = x.f_set_requires_grad(true)?;
        }
        for (number, layer) in layers.iter().enumerate() {
            let seed = seed.map(|seed| layer_seed(seed, number));
            let part = part(layer);
            x = match recompute {
                true => recomputed(&x, move |x| seeded(seed, || part(x)))?,
                false => seeded(seed, || part(&x))?,
            };
        }
        Tokens::spread_out(tokens, x)
    }
}

/// Runs with libtorch's generator at a seed. Each layer has its own, so that what it drops can be had
/// again; without recomputing too, so that this choice changes no result.
fn seeded<T>(seed: Option<i64>, body: impl FnOnce() -> T) -> T {
    if let Some(seed) = seed {
        tch::manual_seed(seed);
    }
    body()
}

/// A number from libtorch's generator, which the caller has seeded for the step.
fn draw() -> Result<i64, TchError> {
    Tensor::f_randint(i64::MAX, [1], (Kind::Int64, Device::Cpu))?.f_int64_value(&[0])
}

/// The seed of a layer: the drawn number and the layer's, mixed, because the generator takes only 32 bits
/// of a seed.
fn layer_seed(drawn: i64, layer: usize) -> i64 {
    mix(drawn.cast_unsigned().wrapping_add((layer as u64 + 1).wrapping_mul(STRIDE))).cast_signed()
}
