//! Scores of what a model says: plain arithmetic in `f64`, defined as scikit-learn and SciPy do, and for answers
//! in words as SQuAD's evaluation does (words.rs).
//!
//! Where a score does not exist: F1 of a class that is neither predicted nor expected is 0, and so is the
//! Matthews correlation if all predictions or all labels are of one class (scikit-learn's choices); Pearson's
//! and Spearman's correlations are NaN if one side is constant or there are fewer than two rows (SciPy's).
//! Every score of no rows is NaN.

mod words;

use std::collections::HashMap;

use evenkeel::rebalance::presets::{Form, MetricName};

use crate::error::{Error, Result};

/// What a model said of the evaluation data, and what is right.
#[derive(Clone, Copy, Debug)]
pub enum Outputs<'a> {
    /// Classes.
    Classes {
        /// By the model, each below `classes`.
        predicted: &'a [i64],
        /// By the data.
        expected: &'a [i64],
        /// Their number.
        classes: usize,
        /// For each the question that it belongs to, where several belong to one.
        questions: Option<&'a [usize]>,
    },
    /// Numbers.
    Values {
        /// By the model.
        predicted: &'a [f64],
        /// By the data.
        expected: &'a [f64],
    },
    /// Answers in words.
    Words {
        /// By the model.
        predicted: &'a [String],
        /// By the data: all that are right, for each question.
        expected: &'a [Vec<String>],
    },
}

/// Checks, before any work, that a metric can be computed for a task.
///
/// # Errors
/// It is about classes, and the task is a regression, or the other way round; or about something else that
/// the task's examples do not have; or about two classes, and there are more.
pub fn suits(metric: MetricName, form: Form, regression: bool, classes: usize) -> Result<()> {
    let name = metric.name();
    let reason = match (metric.is_of_numbers(), regression) {
        (true, false) => format!("the metric {name} is for regression, not for classes."),
        (false, true) => format!("the metric {name} is for classes, not for regression."),
        _ if !metric.suits(form, regression) => {
            format!("the metric {name} is not for this task; it has {}.", form.metrics(regression).join(", "))
        }
        _ if metric.is_of_two_labels() && classes != 2 => {
            format!("the metric {name} is for two classes, not {classes}; take macro-f1.")
        }
        _ => return Ok(()),
    };
    Err(Error::Option(reason))
}

/// The value of a metric.
///
/// # Errors
/// As [`suits`].
pub fn value(metric: MetricName, outputs: Outputs) -> Result<f64> {
    match outputs {
        Outputs::Classes { predicted, expected, classes, questions } => {
            suits(metric, if questions.is_some() { Form::Answers } else { Form::Texts }, false, classes)?;
            let counts = Counts::new(predicted, expected, classes);
            let exact = || exact_match(predicted, expected, questions.unwrap_or_default());
            Ok(match metric {
                MetricName::F1 => counts.f1(1),
                MetricName::MacroF1 => counts.macro_f1(),
                MetricName::Matthews => counts.matthews(),
                MetricName::AccuracyF1 => (counts.accuracy() + counts.f1(1)) / 2.0,
                MetricName::AccuracyMacroF1 => (counts.accuracy() + counts.macro_f1()) / 2.0,
                MetricName::ExactMatch => exact(),
                MetricName::F1ExactMatch => (counts.f1(1) + exact()) / 2.0,
                _ => counts.accuracy(),
            })
        }
        Outputs::Values { predicted, expected } => {
            suits(metric, Form::Texts, true, 1)?;
            let spearman = || pearson(&ranks(predicted), &ranks(expected));
            Ok(match metric {
                MetricName::Spearman => spearman(),
                MetricName::PearsonSpearman => (pearson(predicted, expected) + spearman()) / 2.0,
                _ => pearson(predicted, expected),
            })
        }
        Outputs::Words { predicted, expected } => {
            suits(metric, Form::Spans, false, 1)?;
            Ok(match metric {
                MetricName::ExactMatch => words::exact_match(predicted, expected),
                _ => words::word_f1(predicted, expected),
            })
        }
    }
}

/// The part of the questions all of whose rows are right.
fn exact_match(predicted: &[i64], expected: &[i64], questions: &[usize]) -> f64 {
    let mut right: HashMap<usize, bool> = HashMap::new();
    for ((predicted, expected), question) in predicted.iter().zip(expected).zip(questions) {
        *right.entry(*question).or_insert(true) &= predicted == expected;
    }
    right.values().filter(|right| **right).count() as f64 / right.len() as f64
}

/// The class with the largest logit in each row of `classes` numbers; of equal ones the first. NaN is never
/// the largest.
pub fn argmax(logits: &[f32], classes: usize) -> Vec<i64> {
    let best = |row: &[f32]| {
        let start = (0, f32::NEG_INFINITY);
        let pick = |best: (usize, f32), (class, logit): (usize, &f32)| {
            if *logit > best.1 { (class, *logit) } else { best }
        };
        row.iter().enumerate().fold(start, pick).0 as i64
    };
    logits.chunks_exact(classes.max(1)).map(best).collect()
}

/// How often each class was predicted, expected, and both at once.
struct Counts {
    rows: f64,
    right: Vec<f64>,
    predicted: Vec<f64>,
    expected: Vec<f64>,
}

impl Counts {
    fn new(predicted: &[i64], expected: &[i64], classes: usize) -> Counts {
        let mut counts = Counts {
            rows: predicted.len().min(expected.len()) as f64,
            right: vec![0.0; classes],
            predicted: vec![0.0; classes],
            expected: vec![0.0; classes],
        };
        let add = |of: &mut Vec<f64>, class: i64| {
            if let Some(count) = usize::try_from(class).ok().and_then(|class| of.get_mut(class)) {
                *count += 1.0;
            }
        };
        for (predicted, expected) in predicted.iter().zip(expected) {
            add(&mut counts.predicted, *predicted);
            add(&mut counts.expected, *expected);
            if predicted == expected {
                add(&mut counts.right, *predicted);
            }
        }
        counts
    }

    fn accuracy(&self) -> f64 {
        self.right.iter().sum::<f64>() / self.rows
    }

    /// 2·right / (predicted + expected).
    fn f1(&self, class: usize) -> f64 {
        let of = |counts: &[f64]| counts.get(class).copied().unwrap_or_default();
        let both = of(&self.predicted) + of(&self.expected);
        match (self.rows > 0.0, both > 0.0) {
            (false, _) => f64::NAN,
            (true, true) => 2.0 * of(&self.right) / both,
            (true, false) => 0.0,
        }
    }

    /// Over the classes that are predicted or expected at least once.
    fn macro_f1(&self) -> f64 {
        let occurs = |class: &usize| {
            let of = |counts: &[f64]| counts.get(*class).copied().unwrap_or_default();
            of(&self.predicted) + of(&self.expected) > 0.0
        };
        let of: Vec<f64> = (0..self.right.len()).filter(occurs).map(|class| self.f1(class)).collect();
        of.iter().sum::<f64>() / of.len() as f64
    }

    /// (n·Σright − Σ p·e) / √((n² − Σp²)(n² − Σe²)).
    fn matthews(&self) -> f64 {
        if self.rows == 0.0 {
            return f64::NAN;
        }
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let square = self.rows * self.rows;
        let covariance = self.right.iter().sum::<f64>() * self.rows - dot(&self.predicted, &self.expected);
        let of_predicted = square - dot(&self.predicted, &self.predicted);
        let of_expected = square - dot(&self.expected, &self.expected);
        if of_predicted * of_expected == 0.0 {
            return 0.0;
        }
        covariance / (of_predicted * of_expected).sqrt()
    }
}

/// Pearson's correlation, computed on the centred and normalised numbers.
fn pearson(x: &[f64], y: &[f64]) -> f64 {
    if x.len() < 2 {
        return f64::NAN;
    }
    let unit = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
        // Scaled first, so that no square overflows.
        let largest = centred.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let norm = centred.iter().map(|value| (value / largest).powi(2)).sum::<f64>().sqrt();
        centred.iter().map(|value| value / largest / norm).collect()
    };
    let constant = |values: &[f64]| values.iter().all(|value| Some(value) == values.first());
    if constant(x) || constant(y) {
        return f64::NAN;
    }
    let product: f64 = unit(x).iter().zip(unit(y)).map(|(a, b)| a * b).sum();
    product.clamp(-1.0, 1.0)
}

/// Ranks from 1; equal values share the mean of theirs. One NaN makes all NaN.
fn ranks(values: &[f64]) -> Vec<f64> {
    if values.iter().any(|value| value.is_nan()) {
        return vec![f64::NAN; values.len()];
    }
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Zeros of both signs are equal, and stand together.
    let rank = |value: &f64| {
        let below = sorted.partition_point(|other| other < value);
        let through = sorted.partition_point(|other| other <= value);
        (below + 1 + through) as f64 / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(metric: MetricName, predicted: &[i64], expected: &[i64], classes: usize) -> f64 {
        value(metric, Outputs::Classes { predicted, expected, classes, questions: None }).unwrap()
    }

    #[test]
    fn metrics_refuse_tasks_that_they_do_not_suit() {
        let texts = |metric, regression, classes| suits(metric, Form::Texts, regression, classes);
        assert!(texts(MetricName::F1, false, 3).unwrap_err().to_string().contains("not 3"));
        assert!(texts(MetricName::Pearson, false, 2).is_err());
        assert!(texts(MetricName::Accuracy, true, 1).is_err());
        assert!(texts(MetricName::MacroF1, false, 3).is_ok());
        let message = suits(MetricName::Accuracy, Form::Spans, false, 1).unwrap_err().to_string();
        assert_eq!(message, "the metric accuracy is not for this task; it has exact-match, word-f1.");
    }

    #[test]
    fn nothing_has_no_score() {
        for metric in MetricName::ALL.into_iter().filter(|metric| metric.suits(Form::Texts, false)) {
            assert!(classes(metric, &[], &[], 2).is_nan(), "{metric:?}");
        }
        let none = Outputs::Values { predicted: &[], expected: &[] };
        assert!(value(MetricName::PearsonSpearman, none).unwrap().is_nan());
    }

    #[test]
    fn a_question_is_right_with_all_its_answers() {
        let of = |metric| {
            let (predicted, expected) = (&[1, 0, 1, 0, 1], &[1, 0, 1, 1, 1]);
            let questions = Some(&[7, 7, 3, 3, 9][..]);
            value(metric, Outputs::Classes { predicted, expected, classes: 2, questions }).unwrap()
        };
        assert_eq!(of(MetricName::ExactMatch), 2.0 / 3.0);
        assert_eq!(of(MetricName::F1), 6.0 / 7.0);
        assert_eq!(of(MetricName::F1ExactMatch), (6.0 / 7.0 + 2.0 / 3.0) / 2.0);
    }

    #[test]
    fn the_largest_logit_wins() {
        assert_eq!(argmax(&[0.1, 0.2, 3.0, 3.0, f32::NAN, -1.0], 2), [1, 0, 1]);
        assert_eq!(argmax(&[f32::NAN, f32::NAN, f32::NEG_INFINITY], 3), [0]);
    }
}
