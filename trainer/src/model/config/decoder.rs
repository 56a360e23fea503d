//! What the configurations of LLaMA's family have of their own.

use std::f64::consts::TAU;

use evenkeel::text::printable;
use serde_json::{Map, Value};

use super::entries::Entries;
use super::{Activation, Config, Family, Kind};
use crate::error::Result;

/// What one family does otherwise than another, and what its configuration means by saying nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Variant {
    /// Heads of keys and values; `None`: as many as of queries.
    key_heads: Option<usize>,
    /// Numbers of a head; `None`: the hidden ones divided among the heads.
    head: Option<usize>,
    /// Biases of queries, keys and values, whatever the configuration says.
    has_biases: bool,
    /// The entry `attention_bias` is known.
    may_have_biases: bool,
    /// The entry `mlp_bias` is known.
    may_have_inner_biases: bool,
    /// Queries and keys pass a norm.
    has_norms: bool,
    window: Window,
}

/// Which layers look back no further than `sliding_window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Never,
    /// All, unless it is null.
    Always,
    /// Those from `max_window_layers` on, where `use_sliding_window` is set.
    Switched,
}

pub(super) const LLAMA: Variant = Variant {
    key_heads: None,
    head: None,
    has_biases: false,
    may_have_biases: true,
    may_have_inner_biases: true,
    has_norms: false,
    window: Window::Never,
};
pub(super) const MISTRAL: Variant = Variant {
    key_heads: Some(8),
    may_have_biases: false,
    may_have_inner_biases: false,
    window: Window::Always,
    ..LLAMA
};
pub(super) const QWEN2: Variant = Variant {
    key_heads: Some(32),
    has_biases: true,
    may_have_biases: false,
    may_have_inner_biases: false,
    window: Window::Switched,
    ..LLAMA
};
pub(super) const QWEN3: Variant = Variant {
    key_heads: Some(32),
    head: Some(128),
    may_have_inner_biases: false,
    has_norms: true,
    window: Window::Switched,
    ..LLAMA
};

/// The numbers of a decoder.
#[derive(Clone, Debug)]
pub(crate) struct DecoderConfig {
    /// Heads of keys and values, each for several of queries.
    pub key_heads: usize,
    /// Numbers of a head, even.
    pub head: usize,
    /// Queries, keys and values have biases.
    pub biases: bool,
    /// The matrix behind attention has one.
    pub output_bias: bool,
    /// The matrices of the second half of a layer have some.
    pub inner_biases: bool,
    /// Queries and keys pass a norm of their own.
    pub norms: bool,
    /// How far each layer looks back, in tokens, its own included; `None`: to the start.
    pub windows: Vec<Option<usize>>,
    /// The output matrix is the embedding of tokens.
    pub tied: bool,
    /// The longest input, in tokens.
    pub max_length: usize,
    pub rotary: RotaryConfig,
}

/// Rotary positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RotaryConfig {
    /// θ: the base of the wavelengths.
    pub base: f64,
    pub scaling: Scaling,
}

/// How positions beyond those of the first training are brought in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// Positions are divided by the factor.
    Linear {
        factor: f64,
    },
    /// The base grows with the length of the input beyond `original` (NTK-aware).
    Dynamic {
        factor: f64,
        original: f64,
    },
    /// Long wavelengths are divided by the factor, short ones kept, as LLaMA 3.1 does.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Peng et al. 2023: dimensions between `from` and `to` go over from kept to divided wavelengths, and
    /// cosine and sine are multiplied by `attention`.
    Yarn {
        factor: f64,
        from: f64,
        to: f64,
        attention: f64,
    },
}

/// Reads a decoder's configuration.
pub(super) fn read(from: &Entries, family: &'static Family, variant: Variant) -> Result<Config> {
    let (hidden, heads) = (from.size("hidden_size")?, from.size("num_attention_heads")?);
    let layers = from.size("num_hidden_layers")?;
    let key_heads = from.whole("num_key_value_heads")?.or(variant.key_heads).unwrap_or(heads);
    let head = from.whole("head_dim")?.or(variant.head).unwrap_or(hidden / heads);
    if key_heads == 0 || !heads.is_multiple_of(key_heads) {
        return Err(from.wrong(format!(
            "`num_attention_heads` {heads} is not a multiple of `num_key_value_heads` {key_heads}."
        )));
    }
    if head == 0 || !head.is_multiple_of(2) {
        return Err(from.wrong(format!("heads of {head} numbers cannot be rotated in pairs (`head_dim`).")));
    }
    let may_have_biases = variant.may_have_biases && from.flag("attention_bias");
    let positions = from.size("max_position_embeddings")?;
    let rotary = rotary(from, head, positions)?;
    let reach = match rotary.scaling {
        Scaling::Linear { factor } | Scaling::Dynamic { factor, .. } => positions as f64 * factor,
        _ => positions as f64,
    };
    let head_kind = from.head(family)?;
    Ok(Config {
        family,
        vocabulary: from.size("vocab_size")?,
        hidden,
        layers,
        heads,
        // Some of the first conversions say −1 for none.
        padding: match from.get("pad_token_id").is_some_and(|id| id.as_i64() == Some(-1)) {
            true => None,
            false => from.whole("pad_token_id")?,
        },
        intermediate: from.size("intermediate_size")?,
        activation: from.activation(Activation::Silu)?,
        epsilon: from.number("rms_norm_eps")?.unwrap_or(1e-6),
        attention_dropout: from.probability("attention_dropout")?.unwrap_or(0.0),
        initial: from.number("initializer_range")?.unwrap_or(0.02),
        task: head_kind.map_or(Ok(None), |kind| from.task(kind))?,
        head_kind,
        kind: Kind::Decoder(DecoderConfig {
            key_heads,
            head,
            biases: variant.has_biases || may_have_biases,
            output_bias: may_have_biases,
            inner_biases: variant.may_have_inner_biases && from.flag("mlp_bias"),
            norms: variant.has_norms,
            windows: windows(from, variant.window, layers)?,
            tied: from.flag("tie_word_embeddings"),
            // A float is no exact number of tokens beyond 2⁵³, where none is.
            max_length: reach as usize,
            rotary,
        }),
    })
}

/// How far each layer looks back.
fn windows(from: &Entries, window: Window, layers: usize) -> Result<Vec<Option<usize>>> {
    const USUAL: usize = 4096;
    let size = match from.entries.get("sliding_window") {
        Some(Value::Null) => None,
        Some(_) => Some(from.size("sliding_window")?),
        None => Some(USUAL),
    };
    let first = match window {
        Window::Never => layers,
        Window::Always => 0,
        Window::Switched if from.flag("use_sliding_window") => from.whole("max_window_layers")?.unwrap_or(28),
        Window::Switched => layers,
    };
    let by_number = (0..layers).map(|layer| size.filter(|_| layer >= first));
    let Some(types) = from.get("layer_types").filter(|_| window == Window::Switched) else {
        return Ok(by_number.collect());
    };
    let wrong = || {
        from.wrong(
            "`layer_types` does not say \"full_attention\" or \"sliding_attention\" of each layer."
                .to_owned(),
        )
    };
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(wrong)?;
    let of = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(size),
        _ => Err(wrong()),
    };
    types.iter().map(of).collect()
}

/// `rope_theta` and `rope_scaling`, or both in `rope_parameters`, as transformers writes them from version 5 on.
fn rotary(from: &Entries, head: usize, positions: usize) -> Result<RotaryConfig> {
    let empty = Map::new();
    let key = ["rope_parameters", "rope_scaling"].into_iter().find(|key| from.get(key).is_some());
    let entries = match key.map(|key| (key, from.get(key).and_then(Value::as_object))) {
        None => &empty,
        Some((_, Some(entries))) => entries,
        Some((key, None)) => return Err(from.wrong(format!("`{key}` is no JSON object."))),
    };
    let own = Entries { path: from.path, entries };
    let base = match own.number("rope_theta")? {
        Some(base) => base,
        None => from.number("rope_theta")?.unwrap_or(10_000.0),
    };
    if base <= 1.0 {
        return Err(from.wrong(format!("`rope_theta` is {base}; it is above 1.")));
    }
    if own
        .number("partial_rotary_factor")?
        .or(from.number("partial_rotary_factor")?)
        .is_some_and(|x| x != 1.0)
    {
        return Err(from.wrong("`partial_rotary_factor` is not supported.".to_owned()));
    }
    let kind = own.get("rope_type").or(own.get("type")).map_or(Some("default"), Value::as_str);
    let original = match from.number("original_max_position_embeddings")? {
        Some(original) => original,
        None => own.number("original_max_position_embeddings")?.unwrap_or(positions as f64),
    };
    let needed = |key: &str| {
        let number = own.number(key)?.filter(|number| *number > 0.0);
        number.ok_or_else(|| from.wrong(format!("`{key}` of the rotary positions is missing or zero.")))
    };
    let scaling = match kind {
        Some("default") => Scaling::None,
        Some("linear") => Scaling::Linear { factor: needed("factor")? },
        Some("dynamic") => Scaling::Dynamic { factor: needed("factor")?, original: positions as f64 },
        Some("llama3") => {
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if low >= high {
                return Err(
                    from.wrong(format!("`low_freq_factor` {low} is not below `high_freq_factor` {high}."))
                );
            }
            Scaling::Llama3 { factor: needed("factor")?, low, high, original }
        }
        Some("yarn") => {
            let factor = match own.number("factor")? {
                Some(_) => needed("factor")?,
                None => positions as f64 / original,
            };
            yarn(&own, factor, base, original, head)?
        }
        _ => {
            let name = own.get("rope_type").or(own.get("type")).map(Value::to_string).unwrap_or_default();
            return Err(from.wrong(format!(
                "rotary positions of the type {} are not supported; this version knows default, linear, dynamic, \
                 llama3 and yarn.",
                printable(&name)
            )));
        }
    };
    Ok(RotaryConfig { base, scaling })
}

/// YaRN's constants, as transformers takes them from its entries.
fn yarn(own: &Entries, factor: f64, base: f64, original: f64, head: usize) -> Result<Scaling> {
    let positive = |key: &str| Ok::<_, crate::Error>(own.number(key)?.filter(|number| *number > 0.0));
    let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let attention = match (own.number("attention_factor")?, positive("mscale")?, positive("mscale_all_dim")?)
    {
        (Some(given), ..) => given,
        (None, Some(one), Some(all)) => scale(one) / scale(all),
        _ => scale(1.0),
    };
    let width = head as f64;
    // The dimension whose wave turns so often within the original length.
    let dimension = |turns: f64| width * (original / (turns * TAU)).ln() / (2.0 * base.ln());
    let (mut low, mut high) =
        (dimension(positive("beta_fast")?.unwrap_or(32.0)), dimension(positive("beta_slow")?.unwrap_or(1.0)));
    if own.get("truncate") != Some(&Value::Bool(false)) {
        (low, high) = (low.floor(), high.ceil());
    }
    let (from, to) = (low.max(0.0), high.min(width - 1.0));
    // Where both are the same, the step is steep, but no division by zero.
    let to = if from == to { to + 0.001 } else { to };
    Ok(Scaling::Yarn { factor, from, to, attention })
}
