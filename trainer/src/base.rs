//! What every problem with texts begins with: a model's directory and its tokenizer, that they belong together,
//! and the model for a task.

use evenkeel::rebalance::options::{Data, Options};
use tch::Device;

use crate::data::TextTokenizer;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::{Directory, Pretrained, Settings, Task};

/// A model's directory, with nothing of its weights read yet, and its tokenizer.
#[derive(Debug)]
pub struct Base {
    /// The directory.
    pub directory: Directory,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
}

impl Base {
    /// Opens both, for inputs of at most so many tokens, to be trained on a device.
    ///
    /// # Errors
    /// Those of reading; [`Error::Option`] where the model takes no such inputs, or does not fit into the memory.
    pub fn open(options: &Options, max_length: usize, device: Device) -> Result<Base> {
        let model = options.model.as_deref();
        let model = model.ok_or_else(|| Error::Option("texts need a model to start from.".to_owned()))?;
        let mut directory = Directory::open(model)?;
        let longest = directory.config().max_length();
        if max_length > longest {
            return Err(Error::Option(format!(
                "the model takes at most {longest} tokens: --max-length {longest}."
            )));
        }
        let (is_frozen, training) = (options.lora.is_some(), &options.training);
        let bytes = directory.bytes(is_frozen && training.bf16);
        let left = memory::left(device);
        memory::check_model(bytes, !is_frozen, &options.optimizer, training, left, options.dry_run)?;
        let tokenizer = TextTokenizer::open(directory.path())?;
        directory.set_padding(usize::try_from(tokenizer.pad()).unwrap_or(usize::MAX));
        Ok(Base { directory, tokenizer })
    }

    /// Checks that the model knows all tokens of the data: beyond its embedding there are none.
    ///
    /// # Errors
    /// [`Error::Option`] where it does not.
    pub fn check_tokens(&self, largest: u32) -> Result<()> {
        let vocabulary = self.directory.config().vocabulary;
        let largest = largest.max(self.tokenizer.pad());
        if usize::try_from(largest).map_or(true, |id| id >= vocabulary) {
            return Err(Error::Option(format!(
                "the tokenizer gives token {largest}, but the model knows {vocabulary}: they do not belong together."
            )));
        }
        Ok(())
    }

    /// Reads the model for a task, and says what of it begins at random.
    ///
    /// # Errors
    /// Those of [`Directory::load`] and [`Directory::adapt`].
    pub fn load(self, options: &Options, task: &Task, device: Device) -> Result<(Pretrained, Vec<String>)> {
        let settings = Settings {
            device,
            seed: options.training.seed,
            new_head: matches!(&options.data, Data::Text(data) if data.new_head),
            recompute: options.training.checkpointing,
            bf16: options.training.bf16,
        };
        let pretrained = match &options.lora {
            Some(lora) => self.directory.adapt(task, settings, lora)?,
            None => self.directory.load(task, settings)?,
        };
        let mut notes = Vec::new();
        if !pretrained.initialised().is_empty() {
            let why = match settings.new_head {
                true => "A new head was asked for",
                false => "The checkpoint has no head for this task",
            };
            notes.push(format!("{why}; these begin at random: {}.", pretrained.initialised().join(", ")));
        }
        Ok((pretrained, notes))
    }
}
