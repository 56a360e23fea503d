//! Encoders with a head that classifies, predicts a number, chooses a text or finds an answer (BERT, RoBERTa, and
//! what is built like them), and decoders with a head that classifies or that of a language model (LLaMA's family).
//!
//! ```text
//! Hugging Face directory ── Directory ── load(Task) ── Pretrained ── write ── Hugging Face directory,
//!                            (config/,                  │                     or an adapter (adapter.rs)
//!                             weights.rs)               └── Model (stack.rs: embeddings, encoder, head of heads.rs;
//!                                                                  llama.rs: decoder, head)
//! ```
//!
//! Parameters keep the names of the checkpoint. They are trained in F32, whatever they were stored as. With LoRA
//! (low_rank.rs) the adapters and the head are the parameters, and all else is frozen.

mod adapter;
mod config;
mod decoder;
mod directory;
mod embeddings;
mod encoder;
mod heads;
mod linear;
mod llama;
mod low_rank;
mod padding;
mod pass;
mod rotary;
mod stack;
mod task;
mod weights;
mod write;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::training::{Mode, Parameter};

pub use config::{Config, Family};
pub(crate) use config::{DecoderConfig, EncoderConfig, Kind};
pub use directory::{Directory, Pretrained};
pub(crate) use linear::Linear;
pub use task::Task;
pub use weights::Trained;
pub(crate) use weights::{ByName, by_name, kind_of, lengths};

/// Some examples, side by side: the shorter ones are padded at the end.
#[derive(Debug)]
pub struct Batch {
    /// The tokens, examples × length, `Kind::Int64`.
    pub ids: Tensor,
    /// 1 where there is a token and 0 where there is padding, of the same shape and type; `None` where
    /// nothing is padded, which is faster.
    pub mask: Option<Tensor>,
    /// Which of the two texts a token belongs to, of the same shape and type; `None`: all to the first.
    pub token_types: Option<Tensor>,
    /// Of a language model: the places whose next token is asked for, counted row by row over examples ×
    /// length, `Kind::Int64`.
    pub places: Option<Tensor>,
    /// For [`Task::Words`]: by what the states of the tokens are multiplied for the mean of each word's,
    /// examples × 2 × length, `Kind::Float`.
    pub words: Option<Tensor>,
}

impl Batch {
    /// The length of a batch that fits. On a GPU, a position out of range would end the process.
    fn fits(&self, longest: usize) -> Result<i64> {
        let shape = self.ids.size();
        let wrong =
            |reason: String| Err(Error::Option(format!("the batch does not fit the model: {reason}.")));
        let [_, length] = *shape.as_slice() else {
            return wrong(format!("its tokens have the shape {shape:?}, not examples × length"));
        };
        for (what, tensor) in [("mask", &self.mask), ("token types", &self.token_types)] {
            if let Some(other) = tensor.as_ref().map(Tensor::size).filter(|other| *other != shape) {
                return wrong(format!("its tokens have the shape {shape:?}, its {what} {other:?}"));
            }
        }
        if length < 1 || usize::try_from(length).unwrap_or(usize::MAX) > longest {
            return wrong(format!("its length is {length}, the model takes 1 to {longest} tokens"));
        }
        Ok(length)
    }
}

/// A model that gives numbers for texts.
pub trait Model {
    /// What of it is trained.
    fn trained(&self) -> &Trained;

    /// The parameters, always in the same order: embeddings, layers, head.
    fn parameters(&self) -> &[Parameter] {
        &self.trained().parameters
    }

    /// The numbers of each row of the batch, rows × [`Task::outputs`] (of a [`Task::Span`] those of each token:
    /// rows × length × 2), or, of a language model, of each of [`Batch::places`], places × vocabulary; in F32.
    /// A graph hangs on them in [`Mode::Train`]. What dropout drops follows from the state of libtorch's generator
    /// alone, with and without recomputing.
    ///
    /// # Errors
    /// [`crate::Error::Option`] where the batch does not fit the model; what libtorch says.
    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor>;

    /// The longest input, in tokens.
    fn max_length(&self) -> usize;
}

/// How a model computes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where it lives.
    pub device: tch::Device,
    /// The seed of a head that the checkpoint does not hold.
    pub seed: u64,
    /// Begin with a new head even where the checkpoint has one.
    pub new_head: bool,
    /// Keep only the input of each layer, and compute the rest again for the gradients: less memory,
    /// a third more time.
    pub recompute: bool,
    /// Compute matrix products in bfloat16. Parameters stay in F32.
    pub bf16: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { device: tch::Device::Cpu, seed: 0, new_head: false, recompute: false, bf16: false }
    }
}
