//! Texts with labels or numbers: classification, regression, words in context, a choice of texts, answers that
//! are to be judged.

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::balance::Better;
use evenkeel::rebalance::options::{Options, TextData};
use evenkeel::rebalance::presets::{Form, MetricName, Preset};
use evenkeel::source::ModelConfig;
use evenkeel::text::count;
use tch::{Device, Tensor};

use super::encoder::Encoder;
use crate::base::Base;
use crate::data::{Column, Columns, Examples, Labels, Layout, Prepared, Sources, Targets, listed, prepare};
use crate::error::{Error, Result};
use crate::memory::Need;
use crate::model::Task;
use crate::score::{self, Outputs, argmax};
use crate::training::{Parameter, Problem, Score, Update};

/// A model and its texts.
pub struct Labelled {
    encoder: Encoder,
    train: Examples,
    eval: Examples,
    labels: Labels,
    metrics: Vec<MetricName>,
}

impl Labelled {
    /// Reads model and data, and checks that they belong together. Returns what a user should know, too.
    ///
    /// # Errors
    /// Whatever does not fit, before anything is trained.
    pub fn open(
        options: &Options,
        data: &TextData,
        form: Form,
        device: Device,
    ) -> Result<(Labelled, Vec<String>)> {
        let base = Base::open(options, data.max_length, device)?;
        let seed = options.training.seed;
        let configured = configured(&base, data);
        let Prepared { train, eval, labels, mut notes } = read(data, form, &base, &configured, seed)?;
        let metrics = data.metrics.clone();
        for metric in &metrics {
            score::suits(*metric, form, data.regression, labels.outputs())?;
        }
        if let Targets::Values(values) = eval.targets()
            && let Some(only) = values.first()
            && values.iter().all(|value| value == only)
        {
            return Err(Error::Option(format!(
                "all labels to evaluate on are {only} ({}), and a correlation with them does not exist: give others with --eval, \
                 or hold back more with --eval-fraction.",
                count(values.len(), "example", "examples")
            )));
        }
        if let (Labels::Classes(names), Form::Texts, true) = (&labels, form, data.labels.is_empty())
            && *names != configured
        {
            notes.push(format!("The classes are the labels that occur: {}.", listed(names)));
        }
        let task = match (&labels, form) {
            (_, Form::Choices) => Task::Choice,
            (Labels::Classes(names), Form::Words) => Task::Words(names.clone()),
            (Labels::Classes(names), _) => Task::Classes(names.clone()),
            (Labels::Regression, _) => Task::Regression,
        };
        let encoder = Encoder::load(base, &task, [&train, &eval], options, device, &mut notes)?;
        Ok((Labelled { encoder, train, eval, labels, metrics }, notes))
    }
}

/// The labels of the model's head; none where it has no head for labels, or where a new one is to have the data's.
fn configured(base: &Base, data: &TextData) -> Vec<String> {
    match base.directory.task() {
        Some(Task::Classes(names) | Task::Words(names)) if !data.new_head => names.clone(),
        _ => Vec::new(),
    }
}

/// Reads the data as its form says: by the columns that were named, or else by those that usual releases have.
fn read(data: &TextData, form: Form, base: &Base, configured: &[String], seed: u64) -> Result<Prepared> {
    let prepared = |layout: Layout| {
        let sources = Sources {
            train: &data.train,
            eval: data.eval.as_deref(),
            eval_fraction: data.eval_fraction,
            layout,
            labels: &data.labels,
            configured,
            regression: data.regression,
            ratio: data.subsample.ratio,
            choice: data.subsample.choice,
            seed,
            max_length: data.max_length,
        };
        prepare(&sources, &base.tokenizer)
    };
    match form {
        Form::Words => return prepared(Layout::Words),
        Form::Choices => return prepared(Layout::Choices),
        Form::Answers => return prepared(Layout::Answers),
        Form::Texts | Form::Spans | Form::Letters => {}
    }
    let mut first = None;
    for columns in columns(data) {
        match prepared(Layout::Columns(&columns)) {
            // Only a column that is not there is a reason to look for others.
            Err(error @ Error::Column { .. }) => first = first.or(Some(error)),
            other => return other,
        }
    }
    Err(first.unwrap_or_else(|| Error::Option("no columns are known for this data.".to_owned())))
}

/// The columns to look for, in this order.
fn columns(data: &TextData) -> Vec<Columns> {
    let column = |name: &str| Column::new(name);
    let known = data.preset.as_deref().and_then(Preset::named).map_or(&[][..], |preset| preset.columns);
    let mut all: Vec<Columns> = known
        .iter()
        .map(|release| Columns {
            text: column(data.text.as_deref().unwrap_or(release.text)),
            pair: data.text_pair.as_deref().or(release.pair).map(column),
            label: column(data.label.as_deref().unwrap_or(release.label)),
            header: Some(release.header),
        })
        .collect();
    if all.is_empty() {
        let texts = match &data.text {
            Some(text) => vec![text.as_str()],
            None => vec!["text", "sentence"],
        };
        all.extend(texts.into_iter().map(|text| Columns {
            text: column(text),
            pair: data.text_pair.as_deref().map(column),
            label: column(data.label.as_deref().unwrap_or("label")),
            header: None,
        }));
    }
    all
}

impl Problem for Labelled {
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
        self.train.len()
    }

    fn evaluation_examples(&self) -> usize {
        self.eval.len()
    }

    fn memory(&self, options: &Options) -> Need {
        self.encoder.memory(&self.train, &self.eval, options)
    }

    fn loss(&self, examples: &[usize]) -> Result<Tensor> {
        self.encoder.loss(&self.train, examples)
    }

    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>> {
        let outputs = self.labels.outputs();
        let mut logits = vec![0f32; self.eval.len() * outputs];
        let mut each = |row: usize, values: &[f32]| {
            for (place, value) in logits.iter_mut().skip(row * outputs).zip(values) {
                *place = *value;
            }
        };
        self.encoder.evaluate(&self.eval, &mut each, done)?;
        let questions = self.eval.questions();
        let widen = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let score = |metric: &MetricName| {
            let value = match self.eval.targets() {
                Targets::Values(expected) => {
                    let (predicted, expected) = (widen(&logits), widen(expected));
                    score::value(*metric, Outputs::Values { predicted: &predicted, expected: &expected })
                }
                targets => {
                    let (predicted, expected) =
                        (argmax(&logits, outputs), targets.classes().unwrap_or_default());
                    let questions = questions.as_deref();
                    score::value(
                        *metric,
                        Outputs::Classes { predicted: &predicted, expected, classes: outputs, questions },
                    )
                }
            };
            Ok(Score { name: metric.name().to_owned(), value: value?, better: Better::More })
        };
        self.metrics.iter().map(score).collect()
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.encoder.pretrained.write(directory)
    }
}
