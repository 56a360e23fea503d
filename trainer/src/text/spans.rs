//! Extractive question answering: which words of a context answer a question (SQuAD).

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::balance::Better;
use evenkeel::rebalance::options::{Options, TextData};
use evenkeel::rebalance::presets::{Form, MetricName};
use evenkeel::source::ModelConfig;
use evenkeel::text::count;
use tch::{Device, Tensor};

use super::answers::Answers;
use super::encoder::Encoder;
use crate::base::Base;
use crate::data::subset::{choose, hold_back_whole};
use crate::data::{Division, Question, Questions, Targets, Windows};
use crate::error::{Error, Result};
use crate::memory::Need;
use crate::model::Task;
use crate::score::{self, Outputs};
use crate::training::{Parameter, Problem, Score, Update};

/// A model and its questions.
pub struct Spans {
    encoder: Encoder,
    train: Windows,
    eval: Windows,
    questions: Questions,
    metrics: Vec<MetricName>,
}

impl Spans {
    /// Reads model and questions, and divides their contexts. Returns what a user should know, too.
    ///
    /// # Errors
    /// Whatever does not fit, before anything is trained.
    pub fn open(options: &Options, data: &TextData, device: Device) -> Result<(Spans, Vec<String>)> {
        let base = Base::open(options, data.max_length, device)?;
        for metric in &data.metrics {
            score::suits(*metric, Form::Spans, false, 1)?;
        }
        let (train, questions) = read(data, options.training.seed)?;
        let division = Division { max_length: data.max_length, overlap: data.doc_stride };
        let train = Windows::new(&train, &base.tokenizer, division, true)?;
        let eval = Windows::new(&questions, &base.tokenizer, division, false)?;
        if train.examples.is_empty() || eval.examples.is_empty() {
            return Err(Error::Option(format!(
                "no question is left to learn from or to evaluate on: of the training questions {} are too long \
                 for --max-length {} and --doc-stride {}, and of {} the answer is not in its context.",
                train.too_long, data.max_length, data.doc_stride, train.misplaced
            )));
        }
        let mut notes = skipped(&train, &eval, data);
        let examples = [&train.examples, &eval.examples];
        let encoder = Encoder::load(base, &Task::Span, examples, options, device, &mut notes)?;
        Ok((Spans { encoder, train, eval, questions, metrics: data.metrics.clone() }, notes))
    }
}

/// The questions to learn from and those to evaluate on. What is held back has contexts of its own.
fn read(data: &TextData, seed: u64) -> Result<(Questions, Questions)> {
    let all = Questions::read(&data.train)?;
    let (train, eval) = match &data.eval {
        Some(path) => (all, Questions::read(path)?),
        None => {
            let contexts: Vec<usize> = all.questions.iter().map(|question| question.context).collect();
            let (rest, held) = hold_back_whole(&contexts, data.eval_fraction, seed)?;
            (all.select(&rest), all.select(&held))
        }
    };
    if data.subsample.ratio == 1.0 {
        return Ok((train, eval));
    }
    let any = Targets::Values(vec![0.0; train.questions.len()]);
    let rows = choose(&any, data.subsample.ratio, data.subsample.choice, seed)?;
    Ok((train.select(&rows), eval))
}

/// What is not learned from, and what is not answered.
fn skipped(train: &Windows, eval: &Windows, data: &TextData) -> Vec<String> {
    let mut notes = Vec::new();
    if train.misplaced > 0 {
        let questions = count(train.misplaced, "training question is", "training questions are");
        notes.push(format!(
            "{questions} left out: the answer does not stand in the context where it is said to."
        ));
    }
    let limits = format!("--max-length {} and --doc-stride {}", data.max_length, data.doc_stride);
    if train.too_long > 0 {
        let questions = count(train.too_long, "training question is", "training questions are");
        notes.push(format!("{questions} left out: too long for {limits}."));
    }
    if eval.too_long > 0 {
        let questions = count(eval.too_long, "evaluation question is", "evaluation questions are");
        notes.push(format!("{questions} too long for {limits}, and count as answered wrongly."));
    }
    notes
}

impl Problem for Spans {
    fn parameters(&self) -> &[Parameter] {
        self.encoder.pretrained.model().parameters()
    }

    fn config(&self) -> Option<ModelConfig> {
        self.encoder.config.clone()
    }

    fn updates(&self) -> &[Update] {
        &self.encoder.pretrained.model().trained().updates
    }

    fn weights(&self, only: Option<&[&str]>) -> Result<Checkpoint> {
        self.encoder.pretrained.weights(only)
    }

    fn examples(&self) -> usize {
        self.train.examples.len()
    }

    /// Questions, not windows.
    fn evaluation_examples(&self) -> usize {
        self.questions.questions.len()
    }

    fn memory(&self, options: &Options) -> Need {
        self.encoder.memory(&self.train.examples, &self.eval.examples, options)
    }

    fn loss(&self, examples: &[usize]) -> Result<Tensor> {
        self.encoder.loss(&self.train.examples, examples)
    }

    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>> {
        let mut answers = Answers::new(&self.questions, &self.eval);
        self.encoder.evaluate(
            &self.eval.examples,
            &mut |window, logits| answers.add(window, logits),
            done,
        )?;
        let predicted = answers.texts();
        let right = |question: &Question| -> Vec<String> {
            question.answers.iter().map(|answer| answer.text.clone()).collect()
        };
        let expected: Vec<Vec<String>> = self.questions.questions.iter().map(right).collect();
        let outputs = Outputs::Words { predicted: &predicted, expected: &expected };
        let score = |metric: &MetricName| {
            let value = score::value(*metric, outputs)?;
            Ok(Score { name: metric.name().to_owned(), value, better: Better::More })
        };
        self.metrics.iter().map(score).collect()
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.encoder.pretrained.write(directory)
    }
}
