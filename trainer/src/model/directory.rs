//! A model's directory as Hugging Face lays it out: configuration, weights, tokenizer.

use std::path::{Path, PathBuf};

use evenkeel::rebalance::options::Lora;
use evenkeel::source::{Format as _, Safetensors, Torch};
use evenkeel::tensors::Tensor as Stored;
use evenkeel::text::printable;
use evenkeel::{Checkpoint, OpenOptions};
use serde_json::{Map, Value};

use super::adapter::is_factor;
use super::config::{self, Config, Kind};
use super::heads::{is_of_head, mark};
use super::llama::Llama;
use super::low_rank::Choice;
use super::stack::Stack;
use super::task::HeadKind;
use super::weights::{Weights, by_name, kind_of};
use super::{Model, Settings, Task};
use crate::error::{Error, Result};
use crate::training::in_memory;

/// What belongs to a tokenizer, as far as it is there: it is copied beside the trained weights.
const TOKENIZER_FILES: &[&str] = &[
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// A directory that can be trained from, opened and checked, with nothing of the weights read yet.
#[derive(Debug)]
pub struct Directory {
    /// What the user named.
    pub(super) given: PathBuf,
    pub(super) path: PathBuf,
    pub(super) checkpoint: Checkpoint,
    pub(super) config: Config,
    /// `config.json` as it stands.
    pub(super) config_text: Vec<u8>,
    /// Its entries, in their order.
    pub(super) config_entries: Map<String, Value>,
    tokenizer: Vec<PathBuf>,
    /// Whether it holds the head that its configuration tells of.
    has_head: bool,
}

impl Directory {
    /// Opens what `path` names: a directory, the file of weights in one, or `org/model` in the local
    /// Hugging Face cache.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`Error::Model`] where the model is not one that can be trained.
    pub fn open(path: &Path) -> Result<Directory> {
        let given = path.to_path_buf();
        let checkpoint = Checkpoint::open(path, &OpenOptions::default())?;
        let path = checkpoint.files().first().and_then(|file| file.path().parent()).unwrap_or(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path }.to_path_buf();
        let wrong = |reason: String| Error::Model { path: path.clone(), reason };
        let formats = [Safetensors.name(), Torch.name()];
        if !formats.contains(&checkpoint.format()) {
            let format = checkpoint.format();
            return Err(wrong(format!(
                "its weights are {format}; this version trains {}.",
                formats.join(", ")
            )));
        }
        let config_path = path.join("config.json");
        let (config_text, config_entries) = config::read(&config_path)?;
        let config = Config::new(&config_path, &config_entries)?;
        let tensors = by_name(&path, &checkpoint)?;
        let is_there = |head| tensors.contains_key(mark(head, config.family));
        let has_head = config.head_kind.is_some_and(is_there);
        if has_head && config.task.is_none() {
            let reason = "its head does not choose one of several labels, nor predict one number \
                          (`problem_type` and `id2label`).";
            return Err(Error::Model { path: config_path, reason: reason.to_owned() });
        }
        let files = TOKENIZER_FILES.iter().map(|name| path.join(name));
        let tokenizer = files.filter(|file| file.is_file()).collect();
        Ok(Directory { given, path, checkpoint, config, config_text, config_entries, tokenizer, has_head })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bytes that the model's own tensors take once they are read: in F32, or with tables and matrices in BF16, as
    /// frozen ones are held. Not counted are its head, and what else the files may hold.
    pub fn bytes(&self, narrow: bool) -> u64 {
        let prefix = format!("{}.", self.config.family.prefix);
        let tensors = self.checkpoint.tensors();
        let is_bare = !tensors.iter().any(|tensor| tensor.name.starts_with(&prefix));
        let own = tensors.iter().filter(|tensor| is_bare || tensor.name.starts_with(&prefix));
        let bytes = |tensor: &Stored| {
            let size = if narrow && tensor.shape.len() > 1 { 2 } else { 4 };
            (tensor.elements as u64).saturating_mul(size)
        };
        own.filter(|tensor| kind_of(tensor.dtype).is_some()).map(bytes).fold(0, u64::saturating_add)
    }

    /// Its weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The files of its tokenizer that are there.
    pub fn tokenizer_files(&self) -> &[PathBuf] {
        &self.tokenizer
    }

    /// What its head is for; `None` where it has none.
    pub fn task(&self) -> Option<&Task> {
        self.config.task.as_ref().filter(|_| self.has_head)
    }

    /// Says which token fills batches up, where the configuration of a decoder does not: by it transformers
    /// finds the last token of an example.
    pub fn set_padding(&mut self, token: usize) {
        if self.config.is_decoder() && self.config.padding.is_none() {
            self.config.padding = Some(token);
        }
    }

    /// Makes the model for a task: with the head that is there, if it is of the kind that this task needs, or
    /// with a new one, if there is none of that kind or [`Settings::new_head`] wants it.
    ///
    /// # Errors
    /// [`Error::Option`] where the head is of that kind, but for other labels, or where such models have no head
    /// for the task; [`Error::Model`] where a tensor is missing or
    /// has another shape than the configuration says; those of reading.
    pub fn load(self, task: &Task, settings: Settings) -> Result<Pretrained> {
        self.build(task, settings, None)
    }

    /// The same, with adapters of low rank as what is trained beside the head.
    ///
    /// # Errors
    /// Those of [`Directory::load`]; [`Error::Option`] where targets fit nothing.
    pub fn adapt(self, task: &Task, settings: Settings, lora: &Lora) -> Result<Pretrained> {
        self.build(task, settings, Some(lora))
    }

    fn build(self, task: &Task, settings: Settings, lora: Option<&Lora>) -> Result<Pretrained> {
        self.check(task, settings)?;
        let new_head = task.head().is_some() && (self.head_for(task).is_none() || settings.new_head);
        let tensors = by_name(&self.path, &self.checkpoint)?;
        let config = &self.config;
        let choice = lora.map(|lora| Choice::new(lora, config.family, task.heads()));
        let weights =
            Weights::new(&self.path, &self.checkpoint, &tensors, config, new_head, settings, choice)?;
        let bare = weights.prefix().is_empty();
        let model: Box<dyn Model> = match &config.kind {
            Kind::Encoder(own) => Box::new(Stack::new(weights, config, own, task, settings)?),
            Kind::Decoder(own) => Box::new(Llama::new(weights, config, own, task, settings)?),
        };
        let is_new =
            |name: &&str| !is_factor(name) && !tensors.contains_key(name) || new_head && is_of_head(name);
        let initialised = model.parameters().iter().map(|parameter| parameter.name.as_str());
        let initialised = initialised.filter(is_new).map(str::to_owned).collect();
        Ok(Pretrained {
            model,
            task: task.clone(),
            lora: lora.cloned(),
            initialised,
            new_head,
            adds_prefix: new_head && bare,
            source: self,
        })
    }

    /// The task of its head, where that is of the kind that another task needs.
    fn head_for(&self, task: &Task) -> Option<&Task> {
        self.task().filter(|head| head.head() == task.head())
    }

    fn check(&self, task: &Task, settings: Settings) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Option(format!("{}: {reason}", printable(&self.path.to_string_lossy()))))
        };
        const NEW: &str = "--new-head begins with one for the data.";
        if let Task::Classes(labels) | Task::Words(labels) = task {
            let distinct: std::collections::HashSet<&String> = labels.iter().collect();
            if labels.len() < 2 || distinct.len() < labels.len() {
                return refuse(format!(
                    "{} labels, {} of them different, cannot be told apart.",
                    labels.len(),
                    distinct.len()
                ));
            }
        }
        if *task == Task::Language {
            return match self.config.family.language {
                Some(_) => Ok(()),
                None => refuse(format!(
                    "a model of the kind {} does not predict the next token.",
                    self.config.family.model_type
                )),
            };
        }
        if self.config.is_decoder() && task.head() != Some(HeadKind::Labels) {
            return refuse(format!(
                "a model of the kind {} has no head for this task here; encoders have.",
                self.config.family.model_type
            ));
        }
        let head = match self.head_for(task) {
            Some(head) if !settings.new_head => head,
            _ => return Ok(()),
        };
        let of = |task: &Task| match task {
            Task::Classes(labels) | Task::Words(labels) => Some(labels.clone()),
            Task::Regression | Task::Choice | Task::Span | Task::Language => None,
        };
        match (of(head), of(task)) {
            (None, None) => Ok(()),
            (Some(own), Some(labels)) if own.len() != labels.len() => refuse(format!(
                "the model's head knows {} labels ({}), the data has {} ({}). {NEW}",
                own.len(),
                listed(&own),
                labels.len(),
                listed(&labels)
            )),
            (Some(own), Some(labels)) if own != labels && !is_nameless(&own) => refuse(format!(
                "the labels of the model's head are {}, in this order; those of the data are {}. {NEW}",
                listed(&own),
                listed(&labels)
            )),
            (Some(_), Some(_)) => Ok(()),
            (None, Some(_)) => {
                refuse(format!("the model's head predicts a number, the data has labels. {NEW}"))
            }
            (Some(own), None) => refuse(format!(
                "the model's head chooses one of {} labels, but a number is to be predicted. {NEW}",
                own.len()
            )),
        }
    }
}

/// Whether these are the names that transformers gives when it knows none.
fn is_nameless(labels: &[String]) -> bool {
    labels.iter().enumerate().all(|(number, label)| *label == format!("LABEL_{number}"))
}

/// The first labels, for a message.
fn listed(labels: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> =
        labels.iter().take(SHOWN).map(|label| format!("`{}`", printable(label))).collect();
    if labels.len() > SHOWN {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// A model with the directory that it came from.
pub struct Pretrained {
    pub(super) model: Box<dyn Model>,
    pub(super) task: Task,
    pub(super) lora: Option<Lora>,
    initialised: Vec<String>,
    pub(super) new_head: bool,
    adds_prefix: bool,
    pub(super) source: Directory,
}

impl Pretrained {
    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// What it predicts.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The directory that it came from.
    pub fn source(&self) -> &Directory {
        &self.source
    }

    /// The parameters that the checkpoint did not hold, and that began at random: a user must hear of them.
    pub fn initialised(&self) -> &[String] {
        &self.initialised
    }

    /// The name under which [`Pretrained::write`] stores a tensor. It is the original one, but for a
    /// checkpoint of the encoder alone, whose names have no prefix, which gets a head: transformers before
    /// version 5 does not load such a mixture, so the encoder's names get the prefix that it writes itself.
    pub fn stored_name(&self, name: &str) -> String {
        if self.adds_prefix { self.source.config.family.full_name(name) } else { name.to_owned() }
    }

    /// What adapters were asked for.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// The weights as an analysis is to see them, of all tensors or of those with these names: the parameters,
    /// or, with adapters, the checkpoint with them as they are now.
    ///
    /// # Errors
    /// Those of reading.
    pub fn weights(&self, only: Option<&[&str]>) -> Result<Checkpoint> {
        match &self.lora {
            Some(lora) => self.adapted_checkpoint(lora, only),
            None => in_memory(self.source.checkpoint.config().cloned(), self.model.parameters(), only),
        }
    }
}
