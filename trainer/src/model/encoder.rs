//! The layers: attention and two matrices with a nonlinearity, each followed by the sum with its input
//! and a norm.

use tch::{TchError, Tensor};

use super::config::{Activation, Config, EncoderConfig};
use super::linear::{Linear, Norm};
use super::padding::{Padding, Tokens};
use super::pass::Pass;
use super::weights::Weights;
use crate::error::Result;

/// One layer.
#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
    constants: Constants,
}

/// What all layers have in common.
#[derive(Clone, Copy, Debug)]
struct Constants {
    heads: i64,
    activation: Activation,
    hidden_dropout: f64,
    attention_dropout: f64,
}

impl Layer {
    /// Takes the weights of layer `number` in the order of transformers.
    fn new(weights: &mut Weights, config: &Config, own: &EncoderConfig, number: usize) -> Result<Layer> {
        let name = |part: &str| format!("encoder.layer.{number}.{part}");
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        Ok(Layer {
            query: weights.linear(&name("attention.self.query"), hidden, hidden)?,
            key: weights.linear(&name("attention.self.key"), hidden, hidden)?,
            value: weights.linear(&name("attention.self.value"), hidden, hidden)?,
            attended: weights.linear(&name("attention.output.dense"), hidden, hidden)?,
            attended_norm: weights.norm(&name("attention.output.LayerNorm"), config)?,
            up: weights.linear(&name("intermediate.dense"), hidden, intermediate)?,
            down: weights.linear(&name("output.dense"), intermediate, hidden)?,
            norm: weights.norm(&name("output.LayerNorm"), config)?,
            constants: Constants {
                heads: i64::try_from(config.heads).unwrap_or(i64::MAX),
                activation: config.activation,
                hidden_dropout: own.hidden_dropout,
                attention_dropout: config.attention_dropout,
            },
        })
    }

    /// Hidden states, examples × length × hidden, or, where filling is spared, tokens × hidden.
    fn forward(&self, x: &Tensor, padding: Option<&Padding>, train: bool) -> Result<Tensor, TchError> {
        let dropout = self.constants.hidden_dropout;
        let attended = self.attended.forward(&self.attention(x, padding, train)?, train)?;
        let x = self.attended_norm.forward(&attended.f_dropout(dropout, train)?.f_add(x)?)?;
        let inner = self.constants.activation.forward(&self.up.forward(&x, train)?)?;
        self.norm.forward(&self.down.forward(&inner, train)?.f_dropout(dropout, train)?.f_add(&x)?)
    }

    fn attention(&self, x: &Tensor, padding: Option<&Padding>, train: bool) -> Result<Tensor, TchError> {
        let tokens = padding.and_then(Padding::tokens);
        let heads = self.constants.heads;
        let split = |x: Tensor| {
            let x = Tokens::spread_out(tokens, x)?;
            let (examples, length, hidden) = x.size3()?;
            x.f_view([examples, length, heads, hidden / heads])?.f_transpose(1, 2)
        };
        let attended = Tensor::f_scaled_dot_product_attention(
            &split(self.query.forward(x, train)?)?,
            &split(self.key.forward(x, train)?)?,
            &split(self.value.forward(x, train)?)?,
            padding.map(Padding::scores),
            if train { self.constants.attention_dropout } else { 0.0 },
            false,
            None::<f64>,
            false,
        )?;
        Tokens::picked(tokens, attended.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }

    /// The same tensors once more, for a part of the graph that outlives this borrow.
    fn shallow_clone(&self) -> Layer {
        Layer {
            query: self.query.shallow_clone(),
            key: self.key.shallow_clone(),
            value: self.value.shallow_clone(),
            attended: self.attended.shallow_clone(),
            attended_norm: self.attended_norm.shallow_clone(),
            up: self.up.shallow_clone(),
            down: self.down.shallow_clone(),
            norm: self.norm.shallow_clone(),
            constants: self.constants,
        }
    }
}

impl Activation {
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Activation::Gelu => x.f_gelu("none"),
            Activation::GeluTanh => x.f_gelu("tanh"),
            Activation::Relu => x.f_relu(),
            Activation::Silu => x.f_silu(),
            Activation::Tanh => x.f_tanh(),
        }
    }
}

/// All layers.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<Layer>,
    /// Whether anything is random in training.
    drops: bool,
}

impl Encoder {
    pub fn new(weights: &mut Weights, config: &Config, own: &EncoderConfig) -> Result<Encoder> {
        let layers = (0..config.layers).map(|number| Layer::new(weights, config, own, number));
        let layers = layers.collect::<Result<_>>()?;
        let drops = own.hidden_dropout > 0.0 || config.attention_dropout > 0.0 || weights.drops();
        Ok(Encoder { layers, drops })
    }

    /// Passes hidden states, examples × length × hidden, through all layers. Where filling is spared, its states
    /// are zero in the end.
    pub fn forward(
        &self,
        embedded: Tensor,
        padding: Option<&Padding>,
        train: bool,
        recompute: bool,
    ) -> Result<Tensor, TchError> {
        let pass = Pass { train, recompute, drops: self.drops };
        let tokens = padding.and_then(Padding::tokens);
        pass.through(&self.layers, embedded, tokens, |layer| {
            let (layer, padding) = (layer.shallow_clone(), padding.map(Padding::shallow_clone));
            move |x: &Tensor| layer.forward(x, padding.as_ref(), train)
        })
    }
}
