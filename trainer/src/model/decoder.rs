//! The layers of LLaMA's family: attention to what came before, and a gated pair of matrices, each behind a
//! norm and added to its input.

use tch::{Device, Kind, TchError, Tensor};

use super::config::{Activation, Config, DecoderConfig};
use super::linear::{Linear, RmsNorm};
use super::padding::Tokens;
use super::pass::Pass;
use super::rotary::{Angles, Rotary};
use super::weights::Weights;
use crate::error::Result;

/// One layer.
#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Norms of each head's queries and keys, in some families.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    output: Linear,
    inner_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    constants: Constants,
}

#[derive(Clone, Copy, Debug)]
struct Constants {
    heads: i64,
    key_heads: i64,
    head: i64,
    activation: Activation,
    attention_dropout: f64,
    /// How far back it looks, in tokens, its own included.
    window: Option<i64>,
}

/// What is the same for all layers of a pass.
#[derive(Debug)]
struct Surroundings {
    angles: Angles,
    /// length × length: which tokens each one sees, where a window is shorter than the input.
    mask: Option<Tensor>,
    /// Where tokens are, where layers get nothing but them.
    tokens: Option<Tokens>,
}

impl Layer {
    /// Takes the weights of layer `number` in the order of transformers.
    fn new(weights: &mut Weights, config: &Config, own: &DecoderConfig, number: usize) -> Result<Layer> {
        let name = |part: &str| format!("layers.{number}.{part}");
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (queries, keys) = (config.heads.saturating_mul(own.head), own.key_heads.saturating_mul(own.head));
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        Ok(Layer {
            query: weights.matrix(&name("self_attn.q_proj"), hidden, queries, own.biases)?,
            key: weights.matrix(&name("self_attn.k_proj"), hidden, keys, own.biases)?,
            value: weights.matrix(&name("self_attn.v_proj"), hidden, keys, own.biases)?,
            output: weights.matrix(&name("self_attn.o_proj"), queries, hidden, own.output_bias)?,
            head_norms: match own.norms {
                true => Some((
                    weights.rms_norm(&name("self_attn.q_norm"), own.head, config)?,
                    weights.rms_norm(&name("self_attn.k_norm"), own.head, config)?,
                )),
                false => None,
            },
            gate: weights.matrix(&name("mlp.gate_proj"), hidden, inner, own.inner_biases)?,
            up: weights.matrix(&name("mlp.up_proj"), hidden, inner, own.inner_biases)?,
            down: weights.matrix(&name("mlp.down_proj"), inner, hidden, own.inner_biases)?,
            input_norm: weights.rms_norm(&name("input_layernorm"), hidden, config)?,
            inner_norm: weights.rms_norm(&name("post_attention_layernorm"), hidden, config)?,
            constants: Constants {
                heads: size(config.heads),
                key_heads: size(own.key_heads),
                head: size(own.head),
                activation: config.activation,
                attention_dropout: config.attention_dropout,
                window: own.windows.get(number).copied().flatten().map(size),
            },
        })
    }

    /// Hidden states, examples × length × hidden, or, where filling is spared, tokens × hidden.
    fn forward(&self, x: &Tensor, around: &Surroundings, train: bool) -> Result<Tensor, TchError> {
        let attended = self.attention(&self.input_norm.forward(x)?, around, train)?;
        let x = x.f_add(&self.output.forward(&attended, train)?)?;
        let inner = self.inner_norm.forward(&x)?;
        let gate = self.constants.activation.forward(&self.gate.forward(&inner, train)?)?;
        let gated = gate.f_mul(&self.up.forward(&inner, train)?)?;
        x.f_add(&self.down.forward(&gated, train)?)
    }

    fn attention(&self, x: &Tensor, around: &Surroundings, train: bool) -> Result<Tensor, TchError> {
        let Constants { heads, key_heads, head, attention_dropout, .. } = self.constants;
        let tokens = around.tokens.as_ref();
        let split = |x: Tensor, heads: i64| {
            let x = Tokens::spread_out(tokens, x)?;
            let (examples, length, _) = x.size3()?;
            x.f_view([examples, length, heads, head])
        };
        let mut query = split(self.query.forward(x, train)?, heads)?;
        let mut key = split(self.key.forward(x, train)?, key_heads)?;
        if let Some((query_norm, key_norm)) = &self.head_norms {
            (query, key) = (query_norm.forward(&query)?, key_norm.forward(&key)?);
        }
        let query = around.angles.turn(&query.f_transpose(1, 2)?)?;
        let key = around.angles.turn(&key.f_transpose(1, 2)?)?;
        let value = split(self.value.forward(x, train)?, key_heads)?.f_transpose(1, 2)?;
        let windowed = self.constants.window.is_some();
        let mask = around.mask.as_ref().filter(|_| windowed);
        let attended = Tensor::f_scaled_dot_product_attention(
            &query,
            &self.shared(&key)?,
            &self.shared(&value)?,
            mask,
            if train { attention_dropout } else { 0.0 },
            mask.is_none(),
            None::<f64>,
            false,
        )?;
        Tokens::picked(tokens, attended.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }

    /// Each head of keys or values once for every head of queries that it serves: kernels that take the
    /// groups as they are keep no less of them for the gradients, and do not exist for every device.
    fn shared(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Constants { heads, key_heads, .. } = self.constants;
        if heads == key_heads {
            return Ok(x.shallow_clone());
        }
        let (examples, _, length, head) = x.size4()?;
        let group = heads / key_heads;
        let repeated = x.f_unsqueeze(2)?.f_expand([examples, key_heads, group, length, head], false)?;
        repeated.f_reshape([examples, heads, length, head])
    }

    /// The same tensors once more, for a part of the graph that outlives this borrow.
    fn shallow_clone(&self) -> Layer {
        let norms = |(query, key): &(RmsNorm, RmsNorm)| (query.shallow_clone(), key.shallow_clone());
        Layer {
            input_norm: self.input_norm.shallow_clone(),
            query: self.query.shallow_clone(),
            key: self.key.shallow_clone(),
            value: self.value.shallow_clone(),
            head_norms: self.head_norms.as_ref().map(norms),
            output: self.output.shallow_clone(),
            inner_norm: self.inner_norm.shallow_clone(),
            gate: self.gate.shallow_clone(),
            up: self.up.shallow_clone(),
            down: self.down.shallow_clone(),
            constants: self.constants,
        }
    }
}

impl Surroundings {
    /// The same tensors once more.
    fn shallow_clone(&self) -> Surroundings {
        Surroundings {
            angles: self.angles.shallow_clone(),
            mask: self.mask.as_ref().map(Tensor::shallow_clone),
            tokens: self.tokens.as_ref().map(Tokens::shallow_clone),
        }
    }
}

/// All layers.
#[derive(Debug)]
pub(super) struct Decoder {
    layers: Vec<Layer>,
    rotary: Rotary,
    /// The window of those layers that have one: they all have the same.
    window: Option<i64>,
    /// Whether anything is random in training.
    drops: bool,
}

impl Decoder {
    pub fn new(weights: &mut Weights, config: &Config, own: &DecoderConfig) -> Result<Decoder> {
        let layers = (0..config.layers).map(|number| Layer::new(weights, config, own, number));
        let layers = layers.collect::<Result<Vec<Layer>>>()?;
        let window = layers.iter().find_map(|layer| layer.constants.window);
        let drops = config.attention_dropout > 0.0 || weights.drops();
        Ok(Decoder { layers, rotary: Rotary::new(own), window, drops })
    }

    /// Passes hidden states, examples × length × hidden, through all layers. What fills up shorter examples
    /// stands at their ends, so that no token ever looks at it; where `mask`, examples × length, says which it is,
    /// it is spared, and its states are zero in the end.
    pub fn forward(
        &self,
        embedded: Tensor,
        mask: Option<&Tensor>,
        train: bool,
        recompute: bool,
    ) -> Result<Tensor, TchError> {
        let (_, length, _) = embedded.size3()?;
        let device = embedded.device();
        let around = Surroundings {
            angles: self.rotary.angles(length, device)?,
            mask: match self.window.filter(|window| *window < length) {
                Some(window) => Some(windowed(length, window, device)?),
                None => None,
            },
            tokens: mask.map(Tokens::of).transpose()?,
        };
        let pass = Pass { train, recompute, drops: self.drops };
        pass.through(&self.layers, embedded, around.tokens.as_ref(), |layer| {
            let (layer, around) = (layer.shallow_clone(), around.shallow_clone());
            move |x: &Tensor| layer.forward(x, &around, train)
        })
    }
}

/// Which tokens, in columns, each one in its row sees: itself and those before it within the window.
fn windowed(length: i64, window: i64, device: Device) -> Result<Tensor, TchError> {
    let all = Tensor::f_ones([length, length], (Kind::Bool, device))?;
    all.f_tril(0)?.f_logical_and(&all.f_triu(1 - window)?)
}
