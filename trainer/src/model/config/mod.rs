//! `config.json`: what a model's arithmetic depends on. [`Config`] has what all models share, and [`Kind`] the
//! numbers of encoders (encoder.rs) or of decoders (decoder.rs).

mod decoder;
mod encoder;
mod entries;

use std::path::Path;

use serde_json::{Map, Value};

use super::task::{HeadKind, Task};
use crate::error::Result;
use entries::Entries;

pub(crate) use decoder::DecoderConfig;
pub(super) use decoder::Scaling;
pub(crate) use encoder::EncoderConfig;
pub(super) use entries::read;

/// How a kind of model differs from the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in the configuration.
    pub model_type: &'static str,
    /// The class of transformers that has a head for classes or a number.
    pub classifier: &'static str,
    /// The class that predicts the next token, of models that can.
    pub language: Option<&'static str>,
    /// What transformers puts before the names of everything but the head.
    pub prefix: &'static str,
    /// How it is built.
    pub(super) design: Design,
}

/// How models are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    /// BERT's head and positions.
    Bert,
    /// BERT's layers with RoBERTa's head and positions.
    Roberta,
    /// LLaMA's layers.
    Llama(decoder::Variant),
}

/// Every kind that can be trained.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        model_type: "bert",
        classifier: "BertForSequenceClassification",
        language: None,
        prefix: "bert",
        design: Design::Bert,
    },
    Family {
        model_type: "roberta",
        classifier: "RobertaForSequenceClassification",
        language: None,
        prefix: "roberta",
        design: Design::Roberta,
    },
    Family {
        model_type: "xlm-roberta",
        classifier: "XLMRobertaForSequenceClassification",
        language: None,
        prefix: "roberta",
        design: Design::Roberta,
    },
    Family {
        model_type: "camembert",
        classifier: "CamembertForSequenceClassification",
        language: None,
        prefix: "roberta",
        design: Design::Roberta,
    },
    Family {
        model_type: "llama",
        classifier: "LlamaForSequenceClassification",
        language: Some("LlamaForCausalLM"),
        prefix: "model",
        design: Design::Llama(decoder::LLAMA),
    },
    Family {
        model_type: "mistral",
        classifier: "MistralForSequenceClassification",
        language: Some("MistralForCausalLM"),
        prefix: "model",
        design: Design::Llama(decoder::MISTRAL),
    },
    Family {
        model_type: "qwen2",
        classifier: "Qwen2ForSequenceClassification",
        language: Some("Qwen2ForCausalLM"),
        prefix: "model",
        design: Design::Llama(decoder::QWEN2),
    },
    Family {
        model_type: "qwen3",
        classifier: "Qwen3ForSequenceClassification",
        language: Some("Qwen3ForCausalLM"),
        prefix: "model",
        design: Design::Llama(decoder::QWEN3),
    },
];

impl Family {
    /// RoBERTa's head and positions; otherwise BERT's, if it is an encoder.
    pub(super) fn is_roberta(&self) -> bool {
        self.design == Design::Roberta
    }

    /// The class with a head, as transformers names it.
    pub(super) fn class_of(&self, head: HeadKind) -> String {
        let family = self.classifier.strip_suffix(HeadKind::Labels.class()).unwrap_or(self.classifier);
        format!("{family}{}", head.class())
    }

    /// The head's last matrix.
    pub(super) fn output(&self) -> &'static str {
        match self.design {
            Design::Bert => "classifier.weight",
            Design::Roberta => "classifier.out_proj.weight",
            Design::Llama(_) => "score.weight",
        }
    }

    /// The embedding of tokens, behind the prefix.
    pub(super) fn words(&self) -> &'static str {
        match self.design {
            Design::Bert | Design::Roberta => "embeddings.word_embeddings.weight",
            Design::Llama(_) => "embed_tokens.weight",
        }
    }

    /// The modules that stand behind the prefix.
    pub(super) fn modules(&self) -> &'static [&'static str] {
        match self.design {
            Design::Bert | Design::Roberta => &["embeddings", "encoder", "pooler"],
            Design::Llama(_) => &["embed_tokens", "layers", "norm"],
        }
    }

    /// The name that transformers' classes give a tensor or a module, which a checkpoint without a head may hold
    /// without the prefix.
    pub(super) fn full_name(&self, name: &str) -> String {
        let first = name.split('.').next().unwrap_or(name);
        if self.modules().contains(&first) { format!("{}.{name}", self.prefix) } else { name.to_owned() }
    }

    /// The modules that PEFT adapts where nobody names any.
    pub fn adapted(&self) -> &'static [&'static str] {
        match self.design {
            Design::Bert | Design::Roberta => &["query", "value"],
            Design::Llama(_) => &["q_proj", "v_proj"],
        }
    }
}

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
    /// Numbers for a token between layers.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// The padding token.
    pub padding: Option<usize>,
    pub(crate) intermediate: usize,
    pub(super) activation: Activation,
    /// Added to the variance under the root of a norm.
    pub(super) epsilon: f64,
    pub(crate) attention_dropout: f64,
    /// The standard deviation of new weights.
    pub(super) initial: f64,
    /// The task of a head, if the checkpoint has one.
    pub(super) task: Option<Task>,
    /// The kind of head that `architectures` names; `None` where it names a class without one that is known
    /// here: a head under the same name is for something else then.
    pub(super) head_kind: Option<HeadKind>,
    pub(crate) kind: Kind,
}

/// What only some models have.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Encoder(EncoderConfig),
    Decoder(DecoderConfig),
}

impl Config {
    /// The longest input, in tokens.
    pub fn max_length(&self) -> usize {
        match &self.kind {
            Kind::Encoder(own) => own.max_length(self),
            Kind::Decoder(own) => own.max_length,
        }
    }

    /// Whether it can predict the next token.
    pub fn is_decoder(&self) -> bool {
        matches!(self.kind, Kind::Decoder(_))
    }

    /// Reads the entries of a configuration that lies at `path`.
    pub(super) fn new(path: &Path, entries: &Map<String, Value>) -> Result<Config> {
        let from = Entries { path, entries };
        let family = from.family()?;
        let config = match family.design {
            Design::Bert | Design::Roberta => encoder::read(&from, family)?,
            Design::Llama(variant) => decoder::read(&from, family, variant)?,
        };
        config.check(&from)?;
        Ok(config)
    }

    /// A configuration of these entries.
    #[cfg(test)]
    pub(crate) fn of(entries: Value) -> Config {
        Config::new(Path::new("config.json"), entries.as_object().unwrap()).unwrap()
    }

    fn check(&self, from: &Entries) -> Result<()> {
        if self.padding.is_some_and(|padding| padding >= self.vocabulary) {
            return Err(from.wrong("`pad_token_id` lies outside the vocabulary.".to_owned()));
        }
        if self.max_length() == 0 {
            return Err(from.wrong("`max_position_embeddings` leaves no position for a token.".to_owned()));
        }
        Ok(())
    }
}
