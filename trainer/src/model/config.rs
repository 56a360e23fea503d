//! `config.json`: what a model's arithmetic depends on, each entry checked when it is read.

use std::path::Path;

use evenkeel::text::printable;
use serde_json::{Map, Value};

use super::task::{HeadKind, Task};
use crate::error::{Error, Result};

/// The longest `config.json` that is read, in bytes; real ones stay below 100 kB.
const MAX_BYTES: u64 = 16_000_000;
/// No size in a real model is larger; sizes are multiplied later on.
const LARGEST: u64 = 1 << 24;

/// How a kind of model differs from the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in the configuration.
    pub model_type: &'static str,
    /// What the names of its classes begin with.
    pub class: &'static str,
    /// What transformers puts before the names of the encoder.
    pub prefix: &'static str,
    /// RoBERTa's head and positions; otherwise BERT's.
    pub(super) is_roberta: bool,
}

impl Family {
    /// The class with a head, as transformers names it.
    pub(super) fn class_of(&self, head: HeadKind) -> String {
        format!("{}{}", self.class, head.class())
    }
}

/// Every kind that can be trained.
pub(super) static FAMILIES: &[Family] = &[
    Family { model_type: "bert", class: "Bert", prefix: "bert", is_roberta: false },
    Family { model_type: "roberta", class: "Roberta", prefix: "roberta", is_roberta: true },
    Family { model_type: "xlm-roberta", class: "XLMRoberta", prefix: "roberta", is_roberta: true },
    Family { model_type: "camembert", class: "Camembert", prefix: "roberta", is_roberta: true },
];

/// The nonlinearity between the two matrices of a layer's second half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// x·Φ(x), exact.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

/// Their names in configurations.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// The sizes and constants of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its kind.
    pub family: &'static Family,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Kinds of tokens: the first and the second text. Some models know only one.
    pub token_types: usize,
    /// Numbers for a token between layers.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// The padding token.
    pub padding: Option<usize>,
    pub(crate) intermediate: usize,
    pub(super) positions: usize,
    pub(super) activation: Activation,
    pub(super) epsilon: f64,
    pub(crate) hidden_dropout: f64,
    pub(crate) attention_dropout: f64,
    pub(super) classifier_dropout: f64,
    /// The standard deviation of new weights.
    pub(super) initial: f64,
    /// What a head is for, if the checkpoint has one.
    pub(super) task: Option<Task>,
    /// The kind of head that `architectures` names; `None` where it names a class without one that is known
    /// here: a head under the same name is for something else then.
    pub(super) head: Option<HeadKind>,
}

impl Config {
    /// The longest input, in tokens: RoBERTa's positions begin behind that of the padding.
    pub fn max_length(&self) -> usize {
        let skipped = if self.family.is_roberta { self.padding.map_or(0, |padding| padding + 1) } else { 0 };
        self.positions.saturating_sub(skipped)
    }

    /// Reads the entries of a configuration that lies at `path`.
    pub(super) fn new(path: &Path, entries: &Map<String, Value>) -> Result<Config> {
        let from = Entries { path, entries };
        let family = from.family()?;
        from.refuse_variants()?;
        let hidden_dropout = from.probability("hidden_dropout_prob")?.unwrap_or(0.1);
        let head = from.head(family)?;
        let padding = from.whole("pad_token_id")?;
        let config = Config {
            family,
            vocabulary: from.size("vocab_size")?,
            token_types: from.whole("type_vocab_size")?.unwrap_or(2),
            hidden: from.size("hidden_size")?,
            layers: from.size("num_hidden_layers")?,
            heads: from.size("num_attention_heads")?,
            padding: match entries.contains_key("pad_token_id") {
                // What transformers takes when nothing is said; null says that there is none.
                false => Some(usize::from(family.is_roberta)),
                true => padding,
            },
            intermediate: from.size("intermediate_size")?,
            positions: from.size("max_position_embeddings")?,
            activation: from.activation()?,
            epsilon: from.number("layer_norm_eps")?.unwrap_or(1e-12),
            hidden_dropout,
            attention_dropout: from.probability("attention_probs_dropout_prob")?.unwrap_or(0.1),
            classifier_dropout: from.probability("classifier_dropout")?.unwrap_or(hidden_dropout),
            initial: from.number("initializer_range")?.unwrap_or(0.02),
            task: head.map_or(Ok(None), |head| from.task(head))?,
            head,
        };
        config.check(&from)?;
        Ok(config)
    }

    fn check(&self, from: &Entries) -> Result<()> {
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(from.wrong(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}.",
                self.hidden, self.heads
            )));
        }
        if self.padding.is_some_and(|padding| padding >= self.vocabulary) {
            return Err(from.wrong("`pad_token_id` lies outside the vocabulary.".to_owned()));
        }
        if self.family.is_roberta && self.padding.is_none() {
            return Err(
                from.wrong("`pad_token_id` is missing: the positions are counted from it.".to_owned())
            );
        }
        if self.max_length() == 0 {
            return Err(from.wrong("`max_position_embeddings` leaves no position for a token.".to_owned()));
        }
        Ok(())
    }
}

/// Reads the bytes of a `config.json`, and what is in it.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Map<String, Value>)> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    let wrong = |reason: String| Error::Model { path: path.to_path_buf(), reason };
    if length > MAX_BYTES {
        return Err(wrong(format!("{length} bytes are no configuration.")));
    }
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let entries = serde_json::from_slice(&text)
        .map_err(|e| wrong(format!("it is no JSON object: {}.", printable(&e.to_string()))))?;
    Ok((text, entries))
}

/// A configuration under inspection.
struct Entries<'a> {
    path: &'a Path,
    entries: &'a Map<String, Value>,
}

impl Entries<'_> {
    fn wrong(&self, reason: String) -> Error {
        Error::Model { path: self.path.to_path_buf(), reason }
    }

    /// An entry; null counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn family(&self) -> Result<&'static Family> {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        let known = known.join(", ");
        let Some(name) = self.get("model_type").and_then(Value::as_str) else {
            return Err(self.wrong(format!("`model_type` is missing; this version trains {known}.")));
        };
        let family = FAMILIES.iter().find(|family| family.model_type == name);
        family.ok_or_else(|| {
            self.wrong(format!(
                "the architecture `{}` is not supported; this version trains {known}.",
                printable(name)
            ))
        })
    }

    /// Settings under which the weights mean something else.
    fn refuse_variants(&self) -> Result<()> {
        if let Some(kind) = self.get("position_embedding_type").filter(|kind| *kind != "absolute") {
            return Err(self.wrong(format!(
                "`position_embedding_type` {} is not supported; this version trains models with \"absolute\".",
                printable(&kind.to_string())
            )));
        }
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            if self.get(key).is_some_and(|value| value != &Value::Bool(false)) {
                return Err(self.wrong(format!("`{key}` is set; this version trains encoders.")));
            }
        }
        Ok(())
    }

    fn whole(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= LARGEST);
        let number = number.and_then(|number| usize::try_from(number).ok());
        let wrong = || self.wrong(format!("`{key}` is {}, not a size.", printable(&value.to_string())));
        number.map(Some).ok_or_else(wrong)
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.whole(key)?.filter(|value| *value > 0);
        value.ok_or_else(|| self.wrong(format!("`{key}` is missing or zero.")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        let wrong =
            || self.wrong(format!("`{key}` is {}, not a number from 0.", printable(&value.to_string())));
        number.map(Some).ok_or_else(wrong)
    }

    fn probability(&self, key: &str) -> Result<Option<f64>> {
        let number = self.number(key)?;
        match number.filter(|number| *number >= 1.0) {
            Some(number) => Err(self.wrong(format!("`{key}` is {number}, not a probability below 1."))),
            None => Ok(number),
        }
    }

    fn activation(&self) -> Result<Activation> {
        let Some(value) = self.get("hidden_act") else { return Ok(Activation::Gelu) };
        let known = ACTIVATIONS.iter().find(|(name, _)| value == name);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            self.wrong(format!(
                "`hidden_act` {} is not supported; this version knows {}.",
                printable(&value.to_string()),
                names.join(", ")
            ))
        })
    }

    /// The kind of head that the class in `architectures` has; one for labels where nothing is said.
    fn head(&self, family: &Family) -> Result<Option<HeadKind>> {
        let Some(value) = self.get("architectures") else { return Ok(Some(HeadKind::Labels)) };
        let names: Option<Vec<&str>> =
            value.as_array().and_then(|names| names.iter().map(Value::as_str).collect());
        let names = names.ok_or_else(|| self.wrong("`architectures` is not a list of names.".to_owned()))?;
        if names.is_empty() {
            return Ok(Some(HeadKind::Labels));
        }
        Ok(HeadKind::ALL.into_iter().find(|kind| names.contains(&family.class_of(*kind).as_str())))
    }

    /// What the configuration says of a head; transformers' default is two labels without names.
    fn task(&self, head: HeadKind) -> Result<Option<Task>> {
        match head {
            HeadKind::Choice => return Ok(Some(Task::Choice)),
            HeadKind::Span => return Ok(Some(Task::Span)),
            HeadKind::Labels | HeadKind::Words => {}
        }
        let labels = match self.get("id2label") {
            Some(names) => self.labels(names)?,
            None => {
                let count = self.whole("num_labels")?.or(self.whole("_num_labels")?).unwrap_or(2);
                (0..count.min(1 << 16)).map(|number| format!("LABEL_{number}")).collect()
            }
        };
        if head == HeadKind::Words {
            return Ok(Some(Task::Words(labels)));
        }
        match self.get("problem_type").map(|kind| kind.as_str().unwrap_or("?")) {
            Some("single_label_classification") => Ok(Some(Task::Classes(labels))),
            Some("regression") if labels.len() == 1 => Ok(Some(Task::Regression)),
            None if labels.len() == 1 => Ok(Some(Task::Regression)),
            None if labels.len() > 1 => Ok(Some(Task::Classes(labels))),
            _ => Ok(None),
        }
    }

    /// `id2label`: an object from the numbers 0, 1, … to names.
    fn labels(&self, value: &Value) -> Result<Vec<String>> {
        let wrong = || self.wrong("`id2label` does not give a name to each of 0, 1, ….".to_owned());
        let entries = value.as_object().ok_or_else(wrong)?;
        let name =
            |number: usize| entries.get(&number.to_string()).and_then(Value::as_str).map(str::to_owned);
        (0..entries.len()).map(name).collect::<Option<_>>().ok_or_else(wrong)
    }
}
