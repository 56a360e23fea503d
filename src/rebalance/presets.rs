//! Known tasks: where their public releases keep text and labels, what they are judged by, and the
//! settings of the paper (arXiv 2410.12178, appendix D.1).
//!
//! Two releases of GLUE are in use, with other names of the columns: the one on the Hugging Face hub
//! and the original TSV files. [`Preset::columns_in`] tells them apart by the columns that a file has. Tasks
//! that are more than texts with a label have a [`Form`] of their own, which the trainer knows how to read.

use serde::{Deserialize, Serialize};

use super::options::Choice;

/// What a model is judged by; the trainer computes it. Of all of them more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricName {
    /// The part of the examples with the right label.
    Accuracy,
    /// F1 of the label with number 1, for two labels.
    F1,
    /// The plain mean of the labels' F1.
    MacroF1,
    /// F1 over all decisions together: for one label an example that is the accuracy.
    MicroF1,
    /// Matthews' correlation coefficient.
    Matthews,
    /// Pearson's correlation coefficient.
    Pearson,
    /// Spearman's correlation coefficient, of the ranks.
    Spearman,
    /// The mean of accuracy and F1.
    AccuracyF1,
    /// The mean of accuracy and macro-F1 (CB).
    AccuracyMacroF1,
    /// The mean of Pearson's and Spearman's coefficients.
    PearsonSpearman,
    /// The part of the questions that are answered rightly as a whole: with all their answers judged rightly
    /// (MultiRC), or in just the words of one of the right answers (SQuAD).
    ExactMatch,
    /// The mean of F1 over all answers and exact match (MultiRC).
    F1ExactMatch,
    /// The mean over the questions of F1 of an answer's words (SQuAD).
    WordF1,
}

impl MetricName {
    /// All of them.
    pub const ALL: [MetricName; 13] = [
        MetricName::Accuracy,
        MetricName::F1,
        MetricName::MacroF1,
        MetricName::MicroF1,
        MetricName::Matthews,
        MetricName::Pearson,
        MetricName::Spearman,
        MetricName::AccuracyF1,
        MetricName::AccuracyMacroF1,
        MetricName::PearsonSpearman,
        MetricName::ExactMatch,
        MetricName::F1ExactMatch,
        MetricName::WordF1,
    ];

    /// The name on the command line and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            MetricName::Accuracy => "accuracy",
            MetricName::F1 => "f1",
            MetricName::MacroF1 => "macro-f1",
            MetricName::MicroF1 => "micro-f1",
            MetricName::Matthews => "matthews",
            MetricName::Pearson => "pearson",
            MetricName::Spearman => "spearman",
            MetricName::AccuracyF1 => "accuracy-f1",
            MetricName::AccuracyMacroF1 => "accuracy-macro-f1",
            MetricName::PearsonSpearman => "pearson-spearman",
            MetricName::ExactMatch => "exact-match",
            MetricName::F1ExactMatch => "f1-exact-match",
            MetricName::WordF1 => "word-f1",
        }
    }

    /// The metric of a name.
    pub fn named(name: &str) -> Option<MetricName> {
        MetricName::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether it compares numbers rather than labels.
    pub const fn is_of_numbers(self) -> bool {
        matches!(self, MetricName::Pearson | MetricName::Spearman | MetricName::PearsonSpearman)
    }

    /// Whether it is defined for two labels only.
    pub const fn is_of_two_labels(self) -> bool {
        matches!(self, MetricName::F1 | MetricName::AccuracyF1 | MetricName::F1ExactMatch)
    }

    /// Whether it can be computed of examples of a form, `regression` being whether these have numbers.
    pub const fn suits(self, form: Form, regression: bool) -> bool {
        match form {
            Form::Texts | Form::Words => match self {
                MetricName::ExactMatch | MetricName::F1ExactMatch | MetricName::WordF1 => false,
                _ => self.is_of_numbers() == regression,
            },
            Form::Answers => !self.is_of_numbers() && !matches!(self, MetricName::WordF1),
            Form::Choices | Form::Letters => matches!(self, MetricName::Accuracy),
            Form::Spans => matches!(self, MetricName::ExactMatch | MetricName::WordF1),
        }
    }
}

/// How the examples of a task are made: what a file has to hold, and which head of a model learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text, or two, with a label or a number: columns.
    Texts,
    /// Two texts with a word of each, and a label for the two words.
    Words,
    /// A text, and which of others goes with it.
    Choices,
    /// Answers to questions about passages, and whether each is right.
    Answers,
    /// Questions, and where in a text the answer stands.
    Spans,
    /// Questions to a language model, which names an answer by its letter.
    Letters,
}

impl Form {
    /// What the metrics of its tasks can be, for messages.
    pub fn metrics(self, regression: bool) -> Vec<&'static str> {
        MetricName::ALL
            .into_iter()
            .filter(|metric| metric.suits(self, regression))
            .map(MetricName::name)
            .collect()
    }
}

/// Where one release of a task keeps an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The text, or the first of two.
    pub text: &'static str,
    /// The second one.
    pub pair: Option<&'static str>,
    /// The label: its number, or its name.
    pub label: &'static str,
    /// Whether the files begin with the columns' names; else the names above are their positions, from 0.
    pub header: bool,
}

/// What a task is trained with, where the command line says nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// The highest base learning rate.
    pub peak: f64,
    /// The same where adapters of low rank are trained.
    pub lora_peak: f64,
    /// Examples in a batch.
    pub batch: usize,
    /// Passes over the training examples.
    pub epochs: u64,
    /// The part of all steps in which the rate rises.
    pub warmup: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The norm that gradients are clipped to.
    pub clip: f64,
    /// Tokens of an input, at most.
    pub max_length: usize,
    /// Which examples a part of them is.
    pub choice: Choice,
    /// Fields are trained as the paper's authors do: Adam, a rate that falls in steps, spectra once an epoch.
    pub of_fields: bool,
}

impl Default for Defaults {
    /// The paper's: of the rates {1e-5, 2e-5, 3e-5} and batches {16, 32} that it searched, the middle one
    /// and the smaller one.
    fn default() -> Self {
        Defaults::PAPER
    }
}

impl Defaults {
    const PAPER: Defaults = Defaults {
        peak: 2e-5,
        lora_peak: 4e-4,
        batch: 16,
        epochs: 10,
        warmup: 0.06,
        weight_decay: 0.1,
        clip: 1.0,
        max_length: 128,
        choice: Choice::First,
        of_fields: false,
    };
    /// The paper's for neural operators: of the batches 20 to 100 the smallest, and the rate of FNO on
    /// two-dimensional flow.
    pub const FIELDS: Defaults = Defaults {
        peak: 2.5e-3,
        batch: 20,
        epochs: 500,
        warmup: 0.0,
        weight_decay: 1e-4,
        clip: 0.0,
        max_length: 0,
        choice: Choice::Stride,
        of_fields: true,
        ..Defaults::PAPER
    };
    /// The domain-specific sets have a rate of their own in the paper.
    const DOMAIN: Defaults = Defaults { peak: 3e-5, ..Defaults::PAPER };
    /// The rest as RoBERTa's authors have it (Liu et al. 2019), whom the paper follows here; the questions are
    /// shuffled before a part of them is taken.
    const SQUAD: Defaults = Defaults {
        batch: 24,
        weight_decay: 0.01,
        max_length: 384,
        choice: Choice::Random,
        ..Defaults::PAPER
    };
    /// Of the rates {2e-4, 3e-4, 4e-4} that the paper searched for adapters, the middle one.
    const SCIENCE: Defaults =
        Defaults { peak: 3e-4, lora_peak: 3e-4, batch: 128, epochs: 50, max_length: 256, ..Defaults::PAPER };
}

/// A known task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// The name on the command line.
    pub name: &'static str,
    /// What it asks, for help texts.
    pub about: &'static str,
    /// How its examples are made.
    pub form: Form,
    /// The releases, the one on the hub first; none where the form says where everything stands.
    pub columns: &'static [Columns],
    /// The labels' names in the order of their numbers; empty where the data says it.
    pub labels: &'static [&'static str],
    /// The label is a number to be predicted.
    pub regression: bool,
    /// The metrics; the first one decides which state is best.
    pub metrics: &'static [MetricName],
    /// How it is trained.
    pub defaults: Defaults,
}

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The release that a file belongs to, by the names of its columns: the first one whose columns are
    /// all there, or else one without names.
    pub fn columns_in(&self, names: &[&str]) -> Option<&'static Columns> {
        let has = |c: &&Columns| {
            c.header
                && [Some(c.text), c.pair, Some(c.label)].into_iter().flatten().all(|n| names.contains(&n))
        };
        self.columns.iter().find(has).or_else(|| self.columns.iter().find(|c| !c.header))
    }
}

const fn columns(text: &'static str, pair: Option<&'static str>, label: &'static str) -> Columns {
    Columns { text, pair, label, header: true }
}

const fn glue(
    name: &'static str,
    about: &'static str,
    columns: &'static [Columns],
    labels: &'static [&'static str],
    metrics: &'static [MetricName],
) -> Preset {
    Preset {
        name,
        about,
        form: Form::Texts,
        columns,
        labels,
        regression: labels.is_empty(),
        metrics,
        defaults: Defaults::PAPER,
    }
}

/// A task whose files have one layout.
const fn formed(
    name: &'static str,
    about: &'static str,
    form: Form,
    labels: &'static [&'static str],
    metrics: &'static [MetricName],
    defaults: Defaults,
) -> Preset {
    Preset { name, about, form, columns: &[], labels, regression: false, metrics, defaults }
}

/// A set of "Don't Stop Pretraining" (arXiv 2004.10964): JSONL with the label's name, judged by macro-F1,
/// or micro-F1 for ChemProt and RCT. (The balancing paper reports their accuracy.)
const fn domain(name: &'static str, about: &'static str, metrics: &'static [MetricName]) -> Preset {
    const COLUMNS: &[Columns] = &[columns("text", None, "label")];
    Preset {
        name,
        about,
        form: Form::Texts,
        columns: COLUMNS,
        labels: &[],
        regression: false,
        metrics,
        defaults: Defaults::DOMAIN,
    }
}

const TWO_SENTENCES: Columns = columns("sentence1", Some("sentence2"), "label");
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const PREMISE: &[Columns] = &[columns("premise", Some("hypothesis"), "label")];
/// As the hub names them; the original releases have JSON's truth values.
const TRUTH: &[&str] = &["False", "True"];
const MICRO: &[MetricName] = &[MetricName::MicroF1, MetricName::Accuracy];
const MACRO: &[MetricName] = &[MetricName::MacroF1, MetricName::Accuracy];
const BOTH: &[MetricName] = &[MetricName::AccuracyF1, MetricName::Accuracy, MetricName::F1];
const ACCURACY: &[MetricName] = &[MetricName::Accuracy];
const CORRELATIONS: &[MetricName] = &[MetricName::PearsonSpearman, MetricName::Pearson, MetricName::Spearman];

/// What the paper trains: eight tasks of GLUE, five domain-specific sets, six tasks of SuperGLUE, and two sets of
/// questions.
pub static PRESETS: &[Preset] = &[
    glue(
        "cola",
        "is a sentence grammatical (GLUE)",
        // The TSV files have no header: source, label, the author's mark, sentence.
        &[columns("sentence", None, "label"), Columns { text: "3", pair: None, label: "1", header: false }],
        &["unacceptable", "acceptable"],
        &[MetricName::Matthews, MetricName::Accuracy],
    ),
    glue(
        "sst2",
        "sentiment of film reviews (GLUE)",
        &[columns("sentence", None, "label")],
        &["negative", "positive"],
        ACCURACY,
    ),
    glue(
        "mrpc",
        "do two sentences say the same (GLUE)",
        &[TWO_SENTENCES, columns("#1 String", Some("#2 String"), "Quality")],
        &["not_equivalent", "equivalent"],
        BOTH,
    ),
    glue(
        "qqp",
        "do two questions ask the same (GLUE)",
        &[
            columns("question1", Some("question2"), "label"),
            columns("question1", Some("question2"), "is_duplicate"),
        ],
        &["not_duplicate", "duplicate"],
        BOTH,
    ),
    glue(
        "stsb",
        "how alike are two sentences, 0 to 5 (GLUE)",
        &[TWO_SENTENCES, columns("sentence1", Some("sentence2"), "score")],
        &[],
        CORRELATIONS,
    ),
    glue(
        "mnli",
        "does a sentence follow from another (GLUE)",
        &[
            columns("premise", Some("hypothesis"), "label"),
            columns("sentence1", Some("sentence2"), "gold_label"),
        ],
        &["entailment", "neutral", "contradiction"],
        ACCURACY,
    ),
    glue(
        "qnli",
        "does a sentence answer a question (GLUE)",
        &[columns("question", Some("sentence"), "label")],
        ENTAILMENT,
        ACCURACY,
    ),
    glue("rte", "does a sentence follow from another, small (GLUE)", &[TWO_SENTENCES], ENTAILMENT, ACCURACY),
    domain("rct", "parts of medical abstracts", MICRO),
    domain("scicite", "why an article is cited", MACRO),
    domain("chemprot", "relations of chemicals and proteins", MICRO),
    domain("sciie", "relations in scientific texts (SciERC)", MACRO),
    domain("hyperpartisan", "is a news article hyperpartisan", MACRO),
    glue(
        "boolq",
        "is the answer to a question about a passage yes (SuperGLUE)",
        &[columns("passage", Some("question"), "label"), columns("passage", Some("question"), "answer")],
        TRUTH,
        ACCURACY,
    ),
    glue(
        "cb",
        "is what somebody says meant to be true (SuperGLUE)",
        PREMISE,
        &["entailment", "contradiction", "neutral"],
        &[MetricName::AccuracyMacroF1, MetricName::Accuracy, MetricName::MacroF1],
    ),
    glue("superglue-rte", "rte as SuperGLUE releases it", PREMISE, ENTAILMENT, ACCURACY),
    formed(
        "copa",
        "which of two sentences is a cause or an effect (SuperGLUE)",
        Form::Choices,
        &[],
        ACCURACY,
        Defaults::PAPER,
    ),
    formed(
        "multirc",
        "which answers to a question about a passage are right (SuperGLUE)",
        Form::Answers,
        TRUTH,
        &[MetricName::F1ExactMatch, MetricName::F1, MetricName::ExactMatch],
        Defaults::PAPER,
    ),
    formed(
        "wic",
        "does a word mean the same in two sentences (SuperGLUE)",
        Form::Words,
        TRUTH,
        ACCURACY,
        Defaults::PAPER,
    ),
    formed(
        "squad",
        "which words of a text answer a question (SQuAD 1.1)",
        Form::Spans,
        &[],
        &[MetricName::WordF1, MetricName::ExactMatch],
        Defaults::SQUAD,
    ),
    formed(
        "scienceqa",
        "questions of school science with a text for context, for language models",
        Form::Letters,
        &[],
        ACCURACY,
        Defaults::SCIENCE,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_complete_and_found_by_its_name() {
        assert_eq!(PRESETS.len(), 21);
        for preset in PRESETS {
            assert_eq!(Preset::named(preset.name), Some(preset));
            assert!(!preset.metrics.is_empty());
            assert_eq!(preset.columns.is_empty(), preset.form != Form::Texts, "{}", preset.name);
            for metric in preset.metrics {
                assert!(metric.suits(preset.form, preset.regression), "{}", preset.name);
                assert!(!metric.is_of_two_labels() || preset.labels.len() == 2, "{}", preset.name);
            }
            // Either all releases have pairs, or none.
            assert!(preset.columns.windows(2).all(|w| w[0].pair.is_some() == w[1].pair.is_some()));
        }
        assert_eq!(Preset::named("nope"), None);
        assert!(PRESETS.iter().filter(|p| p.regression).map(|p| p.name).eq(["stsb"]));
    }

    #[test]
    fn the_release_is_told_by_the_columns() {
        let mnli = Preset::named("mnli").unwrap();
        assert_eq!(mnli.columns_in(&["premise", "hypothesis", "label", "idx"]).unwrap().text, "premise");
        let tsv = ["index", "genre", "sentence1", "sentence2", "label1", "gold_label"];
        assert_eq!(mnli.columns_in(&tsv).unwrap().label, "gold_label");
        assert_eq!(mnli.columns_in(&["text", "label"]), None);
        let mrpc = Preset::named("mrpc").unwrap();
        let tsv = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"];
        assert_eq!(mrpc.columns_in(&tsv).unwrap().pair, Some("#2 String"));
        let cola = Preset::named("cola").unwrap();
        assert!(cola.columns_in(&["sentence", "label", "idx"]).unwrap().header);
        assert!(!cola.columns_in(&["gj04", "1", "", "Our friends won't buy this analysis."]).unwrap().header);
    }

    #[test]
    fn names_of_metrics_are_those_in_files() {
        for metric in MetricName::ALL {
            assert_eq!(MetricName::named(metric.name()), Some(metric));
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{}\"", metric.name()));
        }
    }
}
