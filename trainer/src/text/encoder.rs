//! A pretrained encoder with a head: what every kind of example asks of it.

use evenkeel::rebalance::options::Options;
use evenkeel::source::ModelConfig;
use tch::{Device, Kind, Tensor};

use crate::base::Base;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::memory::{self, Batch, Need};
use crate::model::{self, Pretrained, Task};
use crate::training::{Mode, evaluation_batch};

/// A model on its device.
pub(super) struct Encoder {
    pub pretrained: Pretrained,
    pub config: Option<ModelConfig>,
    device: Device,
    /// Examples of an evaluation batch.
    evaluated: usize,
}

impl Encoder {
    /// Loads the weights, with a head for a task, once all examples are there that it will see. Notes say what
    /// begins at random.
    pub fn load(
        base: Base,
        task: &Task,
        examples: [&Examples; 2],
        options: &Options,
        device: Device,
        notes: &mut Vec<String>,
    ) -> Result<Encoder> {
        let largest = examples.iter().map(|examples| examples.tokens().largest_id()).max();
        base.check_tokens(largest.unwrap_or_default())?;
        let config = base.directory.checkpoint().config().cloned();
        let (pretrained, more) = base.load(options, task, device)?;
        notes.extend(more);
        let evaluated = evaluation_batch(options.training.batch);
        Ok(Encoder { pretrained, config, device, evaluated })
    }

    /// The memory that training on some examples and evaluating on others needs.
    pub fn memory(&self, train: &Examples, eval: &Examples, options: &Options) -> Need {
        let batch = |examples: &Examples, most: usize| Batch {
            examples: most.min(examples.len()) * examples.choices(),
            length: (0..examples.len()).map(|example| examples.length(example)).max().unwrap_or(0),
            places: 0,
            on_gpu: self.device.is_cuda(),
        };
        let (learned, evaluated) = (batch(train, options.training.batch), batch(eval, self.evaluated));
        let sizes = memory::Sizes::of(&self.pretrained);
        memory::need(&options.optimizer, &options.training, &sizes, learned, evaluated)
    }

    /// What the model says of some examples, and what it should say.
    fn logits(&self, examples: &Examples, chosen: &[usize], mode: Mode) -> Result<(Tensor, Tensor)> {
        let batch = examples.batch(chosen, self.device)?;
        let inputs = model::Batch {
            ids: batch.ids,
            mask: batch.mask,
            token_types: Some(batch.types),
            places: None,
            words: batch.words,
        };
        let logits = self.pretrained.model().logits(&inputs, mode)?;
        let logits = match self.pretrained.task() {
            Task::Choice => logits.f_view([chosen.len() as i64, -1])?,
            _ => logits,
        };
        Ok((logits, batch.labels))
    }

    /// The mean loss over some examples.
    pub fn loss(&self, examples: &Examples, chosen: &[usize]) -> Result<Tensor> {
        let (logits, labels) = self.logits(examples, chosen, Mode::Train)?;
        Ok(self.pretrained.task().loss(&logits, &labels)?)
    }

    /// Hands over the logits of every example, in no order: those of a span token by token, filling included.
    /// `done` hears of the examples passed so far, and of all.
    pub fn evaluate(
        &self,
        examples: &Examples,
        each: &mut dyn FnMut(usize, &[f32]),
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let mut passed = 0;
        for chosen in examples.by_length(self.evaluated) {
            let (found, _) = self.logits(examples, &chosen, Mode::Evaluate)?;
            let found = Vec::<f32>::try_from(
                found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_reshape([-1])?,
            )?;
            let numbers = found.len() / chosen.len().max(1);
            for (example, values) in chosen.iter().zip(found.chunks_exact(numbers.max(1))) {
                // Of a span what stands in the place of filling may be NaN.
                if values.iter().all(|value| value.is_nan()) {
                    return Err(Error::NotANumber);
                }
                each(*example, values);
            }
            passed += chosen.len();
            done(passed, examples.len());
        }
        Ok(())
    }
}
