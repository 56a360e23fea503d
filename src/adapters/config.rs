//! `adapter_config.json`: which kind of adapter it is, and its scale for each module.
//!
//! PEFT has many kinds of adapters and of variants that change what the two factors mean. Those
//! that are a plain α/r·B·A are read; every other one is refused by its name, because adding its
//! factors to a weight would give numbers of a model that nobody has.

use std::path::Path;

use serde::Deserialize;
use serde::de::MapAccess;
use serde_json::Value;

use super::patterns::Patterns;
use crate::error::{Error, Result};
use crate::source::companion::Companion;
use crate::source::json::{Entries, Keyed};
use crate::text::printable;

/// What messages call the format.
const FORMAT: &str = "adapter configuration";
/// The longest `adapter_config.json` that is read, in bytes; real ones stay below 100 kB.
const MAX_BYTES: u64 = 16_000_000;
/// What PEFT takes for both numbers where the file does not say.
const DEFAULT: i64 = 8;
/// Ways to begin the training of an adapter that leave the base weights as they are.
const PLAIN_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What an adapter says of itself, as far as its product depends on it.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    companion: Companion,
    rank: usize,
    alpha: f64,
    rank_stabilised: bool,
    ranks: Patterns,
    alphas: Patterns,
    /// Conv1D layers: weights are stored as [in, out]. One flag for the whole adapter, which PEFT
    /// overwrites module by module, so that shapes have the last word.
    pub fan_in_fan_out: bool,
    modules_to_save: Vec<String>,
    /// The factor of every product, whatever the file says.
    fixed_scale: Option<f64>,
}

/// The file's entries that are looked at; the many others concern the training.
#[derive(Deserialize)]
struct Raw {
    peft_type: Option<String>,
    r: Option<i64>,
    lora_alpha: Option<f64>,
    use_rslora: Option<bool>,
    fan_in_fan_out: Option<bool>,
    rank_pattern: Option<Entries<Number>>,
    alpha_pattern: Option<Entries<Number>>,
    modules_to_save: Option<Vec<String>>,
    init_lora_weights: Option<Value>,
    use_dora: Option<Value>,
    use_qalora: Option<Value>,
    use_bdlora: Option<Value>,
    arrow_config: Option<Value>,
    kasa_config: Option<Value>,
    monteclora_config: Option<Value>,
    alora_invocation_tokens: Option<Value>,
    trainable_token_indices: Option<Value>,
    target_parameters: Option<Value>,
    layer_replication: Option<Value>,
}

/// A value of `rank_pattern` or `alpha_pattern`.
struct Number(f64);

impl<'de> Keyed<'de> for Number {
    /// A pattern for each of very many layers.
    const MOST: usize = 1 << 16;

    fn next_value<A: MapAccess<'de>>(_: &str, map: &mut A) -> std::result::Result<Self, A::Error> {
        map.next_value().map(Number)
    }
}

impl AdapterConfig {
    /// The file's name in an adapter's directory.
    pub const FILE: &str = "adapter_config.json";

    /// Reads and checks the configuration in a directory.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for what is no such file; [`Error::NoCheckpoint`] for a
    /// kind of adapter that is not read.
    pub fn read(directory: &Path) -> Result<AdapterConfig> {
        let path = directory.join(Self::FILE);
        let (text, companion) = Companion::read(&path, MAX_BYTES, FORMAT)?;
        Self::parse(companion, &text)
    }

    /// Checks the text of a configuration.
    ///
    /// # Errors
    /// As [`AdapterConfig::read`], but for reading.
    pub fn parse(companion: Companion, text: &[u8]) -> Result<AdapterConfig> {
        let path = companion.path();
        let wrong = |reason: String| malformed(path, reason);
        // Lists would be taken for the entries in their order.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong("it is no JSON object".to_owned()));
        }
        let raw: Raw =
            serde_json::from_slice(text).map_err(|e| wrong(printable(&e.to_string()).into_owned()))?;
        if let Some(reason) = raw.refusal() {
            return Err(Error::NoCheckpoint { path: path.to_path_buf(), reason });
        }
        let rank = raw.r.unwrap_or(DEFAULT);
        let alpha = raw.lora_alpha.unwrap_or(DEFAULT as f64);
        let patterns = |name: &str, entries: Option<Entries<Number>>| {
            let entries = entries.map_or(Vec::new(), |Entries(entries)| entries);
            let numbers = entries.into_iter().map(|(pattern, Number(value))| (pattern, value)).collect();
            Patterns::new(numbers).map_err(|reason| wrong(format!("its `{name}` {reason}")))
        };
        let ranks = patterns("rank_pattern", raw.rank_pattern)?;
        for value in [rank as f64].into_iter().chain(ranks.values()) {
            if !is_rank(value) {
                return Err(wrong(format!(
                    "it gives the rank {value}, but a rank is a whole number from 1 on"
                )));
            }
        }
        Ok(AdapterConfig {
            rank: rank as usize,
            alpha,
            rank_stabilised: raw.use_rslora == Some(true),
            ranks,
            alphas: patterns("alpha_pattern", raw.alpha_pattern)?,
            fan_in_fan_out: raw.fan_in_fan_out == Some(true),
            modules_to_save: raw.modules_to_save.unwrap_or_default(),
            fixed_scale: None,
            companion,
        })
    }

    /// The same with another factor of every product, if one is given.
    pub fn with_scale(self, scale: Option<f64>) -> AdapterConfig {
        AdapterConfig { fixed_scale: scale, ..self }
    }

    /// The file that it was read from.
    pub fn companion(&self) -> &Companion {
        &self.companion
    }

    /// Checks that looking up the scales of so many modules is a matter of moments.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the patterns are too many.
    pub fn check_effort(&self, modules: usize) -> Result<()> {
        const LARGEST: usize = 100_000_000;
        let effort = self.ranks.effort().saturating_add(self.alphas.effort()).saturating_mul(modules);
        if effort <= LARGEST {
            return Ok(());
        }
        let reason = format!("its patterns are too many to be matched against {modules} modules");
        Err(malformed(self.companion.path(), reason))
    }

    /// The rank of a module, and the factor of its product: α/r, or α/√r where it is
    /// rank-stabilised. `module` is the name in the adapted model, without PEFT's prefix.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the factor is beyond `f64`.
    pub fn scale(&self, module: &str) -> Result<(usize, f64)> {
        let rank = self.ranks.find(module).map_or(self.rank, |rank| rank as usize);
        let alpha = self.alphas.find(module).unwrap_or(self.alpha);
        let divisor = if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        let scale = self.fixed_scale.unwrap_or(alpha / divisor);
        if scale.is_finite() {
            return Ok((rank, scale));
        }
        Err(malformed(self.companion.path(), format!("the alpha of `{}` is {alpha}", printable(module))))
    }

    /// Whether a tensor belongs to a module that the adapter holds in full.
    pub fn saves(&self, tensor: &str) -> bool {
        // PEFT compares the ends of module names: `score` also saves a module `my_score`.
        let holds = |module: &String| !module.is_empty() && tensor.contains(&format!("{module}."));
        self.modules_to_save.iter().any(holds)
    }
}

impl Raw {
    /// Why this adapter is none that can be added as α/r·B·A.
    fn refusal(&self) -> Option<String> {
        match self.peft_type.as_deref() {
            Some("LORA") => {}
            Some(other) => {
                let other = printable(other);
                return Some(format!(
                    "this is a PEFT adapter of the type {other}; of these only LORA is read."
                ));
            }
            None => {
                return Some("it has no `peft_type`, so that the kind of adapter is not known.".to_owned());
            }
        }
        let variants: [(&str, &str, &Option<Value>); 10] = [
            ("use_dora", "DoRA rescales the columns of the merged weight", &self.use_dora),
            ("use_qalora", "QA-LoRA pools its inputs in groups", &self.use_qalora),
            ("use_bdlora", "BD-LoRA stores block-diagonal factors", &self.use_bdlora),
            ("arrow_config", "Arrow mixes several adapters for each token", &self.arrow_config),
            ("kasa_config", "KaSA cuts the base weight and scales each rank by itself", &self.kasa_config),
            ("monteclora_config", "MonteCLoRA samples its weights", &self.monteclora_config),
            ("alora_invocation_tokens", "an activated LoRA is never merged", &self.alora_invocation_tokens),
            (
                "trainable_token_indices",
                "it replaces single rows of an embedding",
                &self.trainable_token_indices,
            ),
            ("target_parameters", "it adapts parameters without a module", &self.target_parameters),
            ("layer_replication", "it repeats layers of the base", &self.layer_replication),
        ];
        for (key, what, value) in variants {
            if value.as_ref().is_some_and(is_set) {
                return Some(format!("it sets `{key}` ({what}), which this version does not read."));
            }
        }
        match &self.init_lora_weights {
            None | Some(Value::Null | Value::Bool(_)) => None,
            Some(Value::String(init)) if PLAIN_INITS.contains(&init.as_str()) => None,
            Some(init) => Some(format!(
                "its `init_lora_weights` is {}, which changes the base weights at the start of the training: the adapter does not fit the published base; save it again with PEFT's `path_initial_model_for_weight_conversion`.",
                printable(&init.to_string())
            )),
        }
    }
}

/// Whether an option is in use: PEFT writes null, false or an empty list where it is not.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    }
}

fn is_rank(value: f64) -> bool {
    value.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&value)
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed { path: path.to_path_buf(), format: FORMAT, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AdapterConfig> {
        AdapterConfig::parse(Companion::absent(Path::new("adapter_config.json")), text.as_bytes())
    }

    #[test]
    fn scales_follow_alpha_rank_and_patterns() {
        let plain = parse(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6}"#).unwrap();
        assert_eq!(plain.scale("a.q").unwrap(), (4, 1.5));
        let stabilised =
            parse(r#"{"peft_type": "LORA", "r": 16, "lora_alpha": 6, "use_rslora": true}"#).unwrap();
        assert_eq!(stabilised.scale("a.q").unwrap(), (16, 1.5));
        let by_name = parse(
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8,
                "rank_pattern": {"q": 2}, "alpha_pattern": {"layers.1.q": 3, "q": 5}}"#,
        )
        .unwrap();
        assert_eq!(by_name.scale("layers.0.q").unwrap(), (2, 2.5));
        assert_eq!(by_name.scale("layers.1.q").unwrap(), (2, 1.5));
        assert_eq!(by_name.scale("layers.1.k").unwrap(), (4, 2.0));
        assert_eq!(parse(r#"{"peft_type": "LORA"}"#).unwrap().scale("x").unwrap(), (8, 1.0));
    }

    #[test]
    fn what_is_no_plain_lora_is_refused_by_name() {
        let lora = |more: &str| format!(r#"{{"peft_type": "LORA", {more}}}"#);
        for (text, part) in [
            (r#"{"peft_type": "IA3"}"#.to_owned(), "the type IA3"),
            (r#"{"peft_type": "LO\u001bHA"}"#.to_owned(), "the type LO\\u{1b}HA"),
            ("{}".to_owned(), "no `peft_type`"),
            (lora(r#""use_dora": true"#), "`use_dora` (DoRA"),
            (lora(r#""trainable_token_indices": [1, 2]"#), "`trainable_token_indices`"),
            (lora(r#""target_parameters": ["experts.w1"]"#), "`target_parameters`"),
            (lora(r#""arrow_config": {"top_k": 3}"#), "`arrow_config`"),
            (lora(r#""init_lora_weights": "pissa_niter_4""#), "pissa_niter_4"),
            (lora(r#""init_lora_weights": 7"#), "`init_lora_weights` is 7"),
        ] {
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
        parse(&lora(r#""use_dora": false, "target_parameters": [], "init_lora_weights": "eva""#)).unwrap();
    }

    #[test]
    fn nonsense_is_malformed() {
        for (text, part) in [
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            ("{", "EOF"),
            (r#"{"peft_type": "LORA", "r": 0}"#, "the rank 0"),
            (r#"{"peft_type": "LORA", "r": -8}"#, "the rank -8"),
            (r#"{"peft_type": "LORA", "r": 8.5}"#, "8.5"),
            (r#"{"peft_type": "LORA", "r": 8, "r": 4}"#, "duplicate field"),
            (r#"{"peft_type": "LORA", "lora_alpha": NaN}"#, "expected value"),
            (r#"{"peft_type": "LORA", "lora_alpha": 1e999}"#, "out of range"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"q": 0}}"#, "the rank 0"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"q": 1e30}}"#, "the rank 1"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"q": 1, "q": 2}}"#, "occurs twice"),
            (r#"{"peft_type": "LORA", "alpha_pattern": {"(q": 1}}"#, "`alpha_pattern`"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not say {part:?}");
            assert!(message.contains("is not a valid adapter configuration file"), "{message}");
        }
        let largest = parse(r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1e308}"#).unwrap();
        assert_eq!(largest.scale("q").unwrap(), (1, 1e308));
    }
}
