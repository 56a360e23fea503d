//! Language modelling as a [`Problem`]: prompts with answers, of which the answers alone are learned.

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::balance::Better;
use evenkeel::rebalance::options::{LanguageData, Options, Subsample};
use evenkeel::source::ModelConfig;
use tch::{Device, Kind, Tensor};

use crate::base::Base;
use crate::data::subset::{choose, hold_back};
use crate::data::{Column, Columns, Dialogues, Prompted, PromptedExample, Query, Targets, read};
use crate::error::{Error, Result};
use crate::memory::{self, Batch, Need};
use crate::model::{self, Pretrained, Task};
use crate::training::{Mode, Parameter, Problem, Score, Update, evaluation_batch};

/// A language model and its prompts.
pub struct Language {
    pretrained: Pretrained,
    config: Option<ModelConfig>,
    train: Vec<Prompted>,
    eval: Vec<Prompted>,
    /// The token that fills up shorter sequences.
    pad: u32,
    device: Device,
    /// Sequences of an evaluation batch.
    evaluated: usize,
}

/// The log-probabilities of an example's answer and of its candidates.
struct Likelihoods {
    /// The answer, and then the candidates.
    parts: Vec<f64>,
    /// Tokens of the answer.
    tokens: usize,
}

impl Language {
    /// Reads examples by their columns, and the model for them.
    ///
    /// # Errors
    /// Those of reading and of [`Language::new`].
    pub fn open(options: &Options, data: &LanguageData, device: Device) -> Result<(Language, Vec<String>)> {
        let columns = Columns {
            text: Column::new(&data.prompt),
            pair: None,
            label: Column::new(&data.answer),
            header: None,
        };
        let examples = |path: &Path| PromptedExample::of(&read(path, &columns)?, &data.candidates);
        let seed = options.training.seed;
        let mut train = examples(&data.train)?;
        let eval = match &data.eval {
            Some(path) => examples(path)?,
            None => {
                let (rest, held) = hold_back(&kinds(&train), data.eval_fraction, seed)?;
                let eval = select(&train, &held);
                train = select(&train, &rest);
                eval
            }
        };
        if data.subsample.ratio != 1.0 {
            let Subsample { ratio, choice } = data.subsample;
            train = select(&train, &choose(&kinds(&train), ratio, choice, seed)?);
        }
        Language::new(options, &train, &eval, data.max_length, device)
    }

    /// Makes the model ready for examples, of which a batch's sequences have at most so many tokens. Returns
    /// what a user should know, too.
    ///
    /// # Errors
    /// Whatever does not fit, before anything is trained.
    pub fn new(
        options: &Options,
        train: &[PromptedExample],
        eval: &[PromptedExample],
        max_length: usize,
        device: Device,
    ) -> Result<(Language, Vec<String>)> {
        let base = Base::open(options, max_length, device)?;
        let mut notes = Vec::new();
        let mut tokens = |examples: &[PromptedExample], what: &str| {
            let tokens = Dialogues::new(examples, &base.tokenizer, max_length)?;
            notes.extend(tokens.notes(what, max_length));
            match tokens.examples.is_empty() {
                true => {
                    Err(Error::Option(format!("there is no {what} example of at most {max_length} tokens.")))
                }
                false => Ok(tokens),
            }
        };
        let (train, eval) = (tokens(train, "training")?, tokens(eval, "evaluation")?);
        base.check_tokens(train.largest_id().max(eval.largest_id()))?;
        let (config, pad) = (base.directory.checkpoint().config().cloned(), base.tokenizer.pad());
        let (pretrained, more) = base.load(options, &Task::Language, device)?;
        notes.extend(more);
        let (train, eval) = (train.examples, eval.examples);
        let evaluated = evaluation_batch(options.training.batch);
        Ok((Language { pretrained, config, train, eval, pad, device, evaluated }, notes))
    }

    /// The logits of everything that is asked in some queries, asked × vocabulary, and the tokens asked for.
    fn logits(&self, queries: &[&Query], mode: Mode) -> Result<(Tensor, Tensor)> {
        let length = queries.iter().map(|query| query.input.len()).max().unwrap_or(0);
        let room = queries.len() * length;
        let (mut ids, mut mask) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let (mut places, mut tokens) = (Vec::new(), Vec::new());
        for (row, query) in queries.iter().enumerate() {
            ids.extend(query.input.iter().map(|id| i64::from(*id)));
            mask.resize(ids.len(), 1_i64);
            ids.resize((row + 1) * length, i64::from(self.pad));
            mask.resize(ids.len(), 0);
            for asked in &query.asked {
                places.push((row * length + asked.place) as i64);
                tokens.push(i64::from(asked.token));
            }
        }
        let shape = [queries.len() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to(self.device);
        let batch = model::Batch {
            ids: tensor(&ids)?,
            mask: mask.contains(&0).then(|| tensor(&mask)).transpose()?,
            token_types: None,
            words: None,
            places: Some(Tensor::f_from_slice(&places)?.f_to(self.device)?),
        };
        let tokens = Tensor::f_from_slice(&tokens)?.f_to(self.device)?;
        Ok((self.pretrained.model().logits(&batch, mode)?, tokens))
    }

    /// The log-probabilities of all that evaluations ask for, added up over the tokens of each part.
    fn likelihoods(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Likelihoods>> {
        let empty = |example: &Prompted| Likelihoods {
            parts: vec![0.0; example.candidates + 1],
            tokens: example.learned.asked.len(),
        };
        let mut found: Vec<Likelihoods> = self.eval.iter().map(empty).collect();
        let queries = self.eval.iter().enumerate();
        let mut queries: Vec<(usize, &Query)> = queries
            .flat_map(|(number, example)| example.evaluated.iter().map(move |query| (number, query)))
            .collect();
        // The longest first, so that little is filled up.
        queries.sort_by_key(|(_, query)| std::cmp::Reverse(query.input.len()));
        let (all, mut passed) = (queries.len(), 0);
        for batch in queries.chunks(self.evaluated) {
            let (examples, asked): (Vec<usize>, Vec<&Query>) = batch.iter().copied().unzip();
            let (logits, tokens) = self.logits(&asked, Mode::Evaluate)?;
            let probabilities = logits.f_log_softmax(-1, Kind::Float)?;
            let wanted = probabilities.f_gather(1, &tokens.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
            let wanted = Vec::<f32>::try_from(wanted.f_to_device(Device::Cpu)?)?;
            if wanted.iter().any(|value| value.is_nan()) {
                return Err(Error::NotANumber);
            }
            let places = examples
                .iter()
                .zip(asked)
                .flat_map(|(example, query)| query.asked.iter().map(move |asked| (*example, asked.part)));
            for ((example, part), value) in places.zip(wanted) {
                if let Some(sum) = found.get_mut(example).and_then(|found| found.parts.get_mut(part)) {
                    *sum += f64::from(value);
                }
            }
            passed += batch.len();
            done(passed, all);
        }
        Ok(found)
    }
}

/// What examples are stratified by: their right candidates, where they have some.
fn kinds(examples: &[PromptedExample]) -> Targets {
    match examples.iter().all(|example| !example.candidates.is_empty()) {
        true => Targets::Classes(examples.iter().map(|example| example.right as i64).collect()),
        false => Targets::Values(vec![0.0; examples.len()]),
    }
}

fn select(examples: &[PromptedExample], rows: &[usize]) -> Vec<PromptedExample> {
    rows.iter().filter_map(|row| examples.get(*row).cloned()).collect()
}

impl Likelihoods {
    /// The likeliest candidate; of equally likely ones the first.
    fn choice(&self) -> Option<usize> {
        let candidates = self.parts.iter().skip(1).enumerate();
        let best = candidates.fold(None, |best: Option<(usize, f64)>, (number, value)| match best {
            Some((_, most)) if *value <= most => best,
            _ => Some((number, *value)),
        });
        best.map(|(number, _)| number)
    }
}

/// The scores of an evaluation: where all examples have candidates, the part of them in which the right one is the
/// likeliest; and the mean log-probability of a token of the answers, whose negative is the loss.
fn scores(found: &[Likelihoods], examples: &[Prompted]) -> Vec<Score> {
    let mut scores = Vec::new();
    if examples.iter().all(|example| example.candidates > 0) {
        let right = found.iter().zip(examples).filter(|(found, e)| found.choice() == Some(e.right)).count();
        let value = right as f64 / examples.len().max(1) as f64;
        scores.push(Score { name: "accuracy".to_owned(), value, better: Better::More });
    }
    let sum: f64 = found.iter().filter_map(|found| found.parts.first()).sum();
    let tokens: usize = found.iter().map(|found| found.tokens).sum();
    scores.push(Score {
        name: "log-likelihood".to_owned(),
        value: sum / tokens.max(1) as f64,
        better: Better::More,
    });
    scores
}

impl Problem for Language {
    fn parameters(&self) -> &[Parameter] {
        self.pretrained.model().parameters()
    }

    fn config(&self) -> Option<ModelConfig> {
        self.config.clone()
    }

    fn updates(&self) -> &[Update] {
        &self.pretrained.model().trained().updates
    }

    fn weights(&self, only: Option<&[&str]>) -> Result<Checkpoint> {
        self.pretrained.weights(only)
    }

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn evaluation_examples(&self) -> usize {
        self.eval.len()
    }

    fn memory(&self, options: &Options) -> Need {
        let of = |queries: &[&Query], most: usize| {
            let examples = most.min(queries.len());
            Batch {
                examples,
                length: queries.iter().map(|query| query.input.len()).max().unwrap_or(0),
                places: examples * queries.iter().map(|query| query.asked.len()).max().unwrap_or(0),
                on_gpu: self.device.is_cuda(),
            }
        };
        let learned: Vec<&Query> = self.train.iter().map(|example| &example.learned).collect();
        let evaluated: Vec<&Query> = self.eval.iter().flat_map(|example| &example.evaluated).collect();
        let (learned, evaluated) = (of(&learned, options.training.batch), of(&evaluated, self.evaluated));
        let sizes = memory::Sizes::of(&self.pretrained);
        memory::need(&options.optimizer, &options.training, &sizes, learned, evaluated)
    }

    /// The tokens of the answers.
    fn weight(&self, examples: &[usize]) -> f64 {
        let of = |example: &usize| self.train.get(*example).map_or(0, |example| example.learned.asked.len());
        examples.iter().map(of).sum::<usize>() as f64
    }

    /// The mean over the tokens of the answers.
    fn loss(&self, examples: &[usize]) -> Result<Tensor> {
        let queries = examples.iter().filter_map(|example| self.train.get(*example));
        let queries: Vec<&Query> = queries.map(|example| &example.learned).collect();
        let (logits, tokens) = self.logits(&queries, Mode::Train)?;
        Ok(self.pretrained.task().loss(&logits, &tokens)?)
    }

    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>> {
        Ok(scores(&self.likelihoods(done)?, &self.eval))
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.pretrained.write(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(candidates: usize, right: usize) -> Prompted {
        let learned = Query { input: vec![1], asked: Vec::new() };
        Prompted { learned, evaluated: Vec::new(), candidates, right }
    }

    #[test]
    fn the_likeliest_candidate_is_chosen() {
        let of = |parts: &[f64], tokens| Likelihoods { parts: parts.to_vec(), tokens };
        let found = [of(&[-1.0, -3.0, -2.0, -2.0], 2), of(&[-2.0, -0.5, -9.0], 1)];
        let scores = scores(&found, &[example(3, 1), example(2, 1)]);
        assert_eq!((scores[0].name.as_str(), scores[0].value), ("accuracy", 0.5));
        assert_eq!((scores[1].name.as_str(), scores[1].value), ("log-likelihood", -1.0));
        assert_eq!(super::scores(&found, &[example(3, 1), example(0, 0)]).len(), 1);
        assert_eq!(of(&[-1.0], 1).choice(), None);
    }
}
