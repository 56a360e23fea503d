//! When training ends, which state is kept, and the sentence that says why.

use serde::{Deserialize, Deserializer, Serialize};

use super::Target;
use crate::text::number;

/// Evaluations in a row that find no better state after the one that reached the target, before training
/// ends: one or two may be chance.
const SETTLED: u64 = 3;

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better: an accuracy.
    #[default]
    More,
    /// Less is better: an error.
    Less,
}

impl Better {
    /// A number of which more is better, and back.
    pub fn merit(self, metric: f64) -> f64 {
        match self {
            Better::More => metric,
            Better::Less => -metric,
        }
    }
}

/// Decides after every evaluation whether training goes on, and which state is the one to keep.
///
/// A target alone does not end training, for it can be reached while the model still learns: it does when
/// no better state that reaches it is found any more. Of the states that reach it the one with the best metric is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRule {
    /// The alpha STD to reach, and what it was at the start.
    pub target: Option<(Target, f64)>,
    /// Evaluations in a row without a better metric.
    pub patience: Option<u64>,
    /// How much worse than its best the metric may become.
    pub max_metric_drop: Option<f64>,
    /// Which way the metric is better.
    pub better: Better,
    /// Evaluations in a row that may lie below that before training ends: 0, or more where a
    /// [`super::Controller`] is to get a chance to back off.
    pub grace: u64,
    /// The planned epochs.
    pub epochs: u64,
    /// The best state is kept; else the last one, and a target counts as reached when that one reaches it.
    pub keeps_best: bool,
    best: Option<Best>,
    /// The best one of those that reached the target, with its alpha STD.
    reached: Option<(Best, f64)>,
    without_better: u64,
    /// Evaluations since the state that is kept, once one has reached the target.
    since_kept: u64,
    below: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    /// Of the metric; `None` without one, or where it is not finite.
    merit: Option<f64>,
    epoch: f64,
}

impl Best {
    /// Where there is no metric to go by, a later state is the better one.
    fn is_bettered_by(self, other: Best) -> bool {
        self.merit.is_none() || other.merit > self.merit
    }
}

/// Reads a number for which JSON may have `null`: NaN.
///
/// # Errors
/// It is neither.
pub fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// What follows from an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// This state is the one to keep, so far.
    pub keep: bool,
    /// Training ends.
    pub stopped: Option<Stopped>,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Stopped {
    /// The alpha STD is where it was to be.
    Target {
        /// Epochs done.
        epoch: f64,
        /// Epochs done at the state that is kept.
        kept_epoch: f64,
        /// The alpha STD at the start.
        start: f64,
        /// The alpha STD of the state that is kept.
        now: f64,
        /// What it was to reach.
        goal: f64,
        /// The metric did not get better any more; else the planned epochs were done.
        settled: bool,
    },
    /// The metric fell too far.
    MetricDrop {
        /// Epochs done.
        epoch: f64,
        /// The metric now.
        #[serde(deserialize_with = "number_or_nan")]
        now: f64,
        /// The best one.
        best: f64,
        /// The epochs done at the best one.
        best_epoch: f64,
        /// How far it was allowed to fall.
        allowed: f64,
    },
    /// The metric did not get better for too long.
    Patience {
        /// Epochs done.
        epoch: f64,
        /// Evaluations without a better one.
        evaluations: u64,
        /// The best one.
        best: f64,
        /// The epochs done at the best one.
        best_epoch: f64,
    },
    /// All planned epochs are done.
    Epochs {
        /// Their number.
        epochs: u64,
        /// Alpha STD now and its goal, where there is one that was not reached.
        missed: Option<(f64, f64)>,
    },
}

impl StopRule {
    /// A rule at the start of a run.
    pub fn new(
        target: Option<(Target, f64)>,
        patience: Option<u64>,
        max_metric_drop: Option<f64>,
        better: Better,
        grace: u64,
        epochs: u64,
        keeps_best: bool,
    ) -> StopRule {
        let (best, reached, without_better, since_kept, below) = (None, None, 0, 0, 0);
        StopRule {
            target,
            patience,
            max_metric_drop,
            better,
            grace,
            epochs,
            keeps_best,
            best,
            reached,
            without_better,
            since_kept,
            below,
        }
    }

    /// Takes in an evaluation after `epoch` epochs (a fraction within one), with the alpha STD and the
    /// metric, where they exist.
    pub fn observe(&mut self, epoch: f64, std: Option<f64>, metric: Option<f64>) -> Verdict {
        let goal = self.target.map(|(target, start)| (start, target.goal(start)));
        let merit = metric.map(|metric| self.better.merit(metric));
        let now = Best { merit: merit.filter(|merit| merit.is_finite()), epoch };
        let is_better = self.best.is_none_or(|best| best.is_bettered_by(now));
        let fell = metric.and_then(|_| self.judge(now));
        let reaches = goal.zip(std).is_some_and(|((_, goal), std)| std <= goal);
        let keep = match self.reached {
            _ if !self.keeps_best => true,
            Some((best, _)) => reaches && best.is_bettered_by(now),
            None => reaches || is_better,
        };
        if keep && (reaches || !self.keeps_best) {
            self.reached = std.filter(|_| reaches).map(|std| (now, std));
        }
        let done = epoch >= self.epochs as f64;
        // A later state is kept where there is no metric to go by; it settles nothing.
        let is_no_better = now.merit.is_none() || !self.is_kept(epoch);
        self.since_kept = if self.reached.is_some() && is_no_better { self.since_kept + 1 } else { 0 };
        let settled = self.since_kept >= SETTLED || metric.is_none();
        let stopped = match (self.reached, goal) {
            (Some((kept, now)), Some((start, goal))) => {
                let settled = settled || fell.is_some();
                let target = Stopped::Target { epoch, kept_epoch: kept.epoch, start, now, goal, settled };
                (settled || done).then_some(target)
            }
            _ => {
                let missed = std.zip(goal.map(|(_, goal)| goal));
                fell.or_else(|| done.then_some(Stopped::Epochs { epochs: self.epochs, missed }))
            }
        };
        Verdict { keep, stopped }
    }

    /// Whether the state of this epoch is the best of those that reached the target; for a run that keeps its
    /// last state, the best of all.
    fn is_kept(&self, epoch: f64) -> bool {
        let kept = if self.keeps_best { self.reached.map(|(kept, _)| kept) } else { self.best };
        kept.is_some_and(|kept| kept.epoch == epoch)
    }

    /// What the metric alone says.
    fn judge(&mut self, now: Best) -> Option<Stopped> {
        let best = match self.best {
            Some(best) if !best.is_bettered_by(now) => best,
            _ => {
                (self.without_better, self.below, self.best) = (0, 0, Some(now));
                return None;
            }
        };
        self.without_better += 1;
        let (epoch, best_epoch) = (now.epoch, best.epoch);
        // NaN is never better, and never a best.
        let (best, now) = (best.merit?, now.merit.unwrap_or(f64::NAN));
        let drop = self.max_metric_drop.filter(|allowed| has_fallen(best, now, *allowed));
        let (best, now) = (self.better.merit(best), self.better.merit(now));
        self.below = if drop.is_some() { self.below + 1 } else { 0 };
        if let Some(allowed) = drop.filter(|_| self.below > self.grace) {
            return Some(Stopped::MetricDrop { epoch, now, best, best_epoch, allowed });
        }
        let evaluations = self.without_better;
        let patient = self.patience.is_none_or(|patience| evaluations < patience.max(1));
        (!patient).then_some(Stopped::Patience { epoch, evaluations, best, best_epoch })
    }
}

/// Whether a merit lies more than `allowed` below its best, rounding aside. NaN does.
pub(super) fn has_fallen(best: f64, now: f64, allowed: f64) -> bool {
    let within = best - now <= allowed + 1e-12 * best.abs();
    !within
}

impl Stopped {
    /// Whether the target was reached.
    pub fn reached_target(&self) -> bool {
        matches!(self, Stopped::Target { .. })
    }

    /// A whole sentence for people.
    pub fn sentence(&self) -> String {
        match *self {
            Stopped::Target { epoch, kept_epoch, start, now, goal, settled } => {
                let why = match (settled, kept_epoch == epoch) {
                    (true, true) => "",
                    (true, false) => " and the metric did not get better any more",
                    (false, _) => " and the planned epochs are done",
                };
                let of = if kept_epoch == epoch {
                    String::new()
                } else {
                    format!(" after {}, the best state that reached it", epochs(kept_epoch))
                };
                format!(
                    "Stopped after {} because the alpha STD reached its target{why}: {now:.6}{of}; at most \
                     {goal:.6} was asked for, and {start:.6} was the start ({:+.1} %).",
                    epochs(epoch),
                    100.0 * (now / start - 1.0)
                )
            }
            Stopped::MetricDrop { epoch, now, best, best_epoch, allowed } => format!(
                "Stopped after {} because the metric is {}, more than {allowed} {} its best, {} after {}.",
                epochs(epoch),
                number(now),
                if now > best { "above" } else { "below" },
                number(best),
                epochs(best_epoch)
            ),
            Stopped::Patience { epoch, evaluations, best, best_epoch } => format!(
                "Stopped after {} because {evaluations} {} in a row did not better the metric's best, {} \
                 after {}.",
                epochs(epoch),
                if evaluations == 1 { "evaluation" } else { "evaluations" },
                number(best),
                epochs(best_epoch)
            ),
            Stopped::Epochs { epochs: planned, missed: None } => {
                format!("Stopped after {}, as planned.", epochs(planned as f64))
            }
            Stopped::Epochs { epochs: planned, missed: Some((now, goal)) } => format!(
                "Stopped after {}, as planned; the alpha STD is {now:.6} and did not reach its target, {goal:.6}.",
                epochs(planned as f64)
            ),
        }
    }
}

fn epochs(count: f64) -> String {
    let rounded = (count * 100.0).round() / 100.0;
    if rounded == 1.0 { "1 epoch".to_owned() } else { format!("{rounded} epochs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_ends_training_when_the_metric_has_settled() {
        let target = Some((Target::DropPercent(10.0), 0.05));
        let mut rule = StopRule::new(target, None, None, Better::More, 0, 9, true);
        let stds = [0.0451, 0.045, 0.044, 0.046, 0.0449, 0.0448];
        let metrics = [0.6, 0.5, 0.8, 0.9, 0.7, 0.8];
        let evaluation = |i: usize| rule.observe((i + 1) as f64, Some(stds[i]), Some(metrics[i]));
        let seen: Vec<Verdict> = (0..6).map(evaluation).collect();
        // What reaches the target goes before what does not, then the metric decides.
        assert_eq!(seen.iter().map(|v| v.keep).collect::<Vec<_>>(), [true, true, true, false, false, false]);
        assert!(seen[..5].iter().all(|verdict| verdict.stopped.is_none()));
        let stopped = seen[5].stopped.unwrap();
        assert!(stopped.reached_target());
        assert_eq!(
            stopped.sentence(),
            "Stopped after 6 epochs because the alpha STD reached its target and the metric did not get better \
             any more: 0.044000 after 3 epochs, the best state that reached it; at most 0.045000 was asked for, \
             and 0.050000 was the start (-12.0 %)."
        );
    }

    #[test]
    fn a_state_that_reached_the_target_counts_to_the_end() {
        let target = Some((Target::DropPercent(10.0), 0.05));
        let mut rule = StopRule::new(target, None, None, Better::More, 0, 3, true);
        assert_eq!(rule.observe(1.0, Some(0.045), Some(0.5)), Verdict { keep: true, stopped: None });
        assert_eq!(rule.observe(2.0, Some(0.047), Some(0.6)), Verdict { keep: false, stopped: None });
        let sentence = rule.observe(3.0, Some(0.048), Some(0.7)).stopped.unwrap().sentence();
        assert!(
            sentence.starts_with(
                "Stopped after 3 epochs because the alpha STD reached its target and the planned epochs are \
                 done: 0.045000 after 1 epoch, the best state that reached it; at most 0.045000"
            ),
            "{sentence}"
        );
        // A metric that falls too far ends it all the same, and what was reached stays reached.
        let mut rule = StopRule::new(target, None, Some(0.1), Better::More, 0, 9, true);
        let _ = rule.observe(1.0, Some(0.045), Some(0.5));
        let verdict = rule.observe(2.0, Some(0.047), Some(0.3));
        assert!(verdict.stopped.is_some_and(|stopped| stopped.reached_target()));
        // Of a run that keeps its last state only that one counts.
        let mut rule = StopRule::new(target, None, None, Better::More, 0, 2, false);
        let _ = rule.observe(1.0, Some(0.045), Some(0.5));
        let stopped = rule.observe(2.0, Some(0.047), Some(0.4)).stopped.unwrap();
        assert!(!stopped.reached_target());
        // Without a metric there is nothing to wait for.
        let mut rule = StopRule::new(target, None, None, Better::More, 0, 9, true);
        assert!(rule.observe(1.0, Some(0.045), None).stopped.is_some());
        // Nor does a metric that is never a number keep a run going.
        for keeps_best in [true, false] {
            let mut rule = StopRule::new(target, None, None, Better::More, 0, 99, keeps_best);
            let ends = |i: u32| rule.observe(f64::from(i), Some(0.045), Some(f64::NAN)).stopped.is_some();
            assert_eq!((1..=3).map(ends).collect::<Vec<_>>(), [false, false, true]);
        }
    }

    #[test]
    fn the_metric_may_fall_only_so_far() {
        let mut rule = StopRule::new(None, None, Some(0.02), Better::More, 0, 10, true);
        assert_eq!(rule.observe(1.0, None, Some(0.90)).stopped, None);
        // Exactly as far as allowed, by decimals that are no binary fractions.
        assert_eq!(rule.observe(2.0, None, Some(0.88)).stopped, None);
        let stopped = rule.observe(3.0, None, Some(0.879)).stopped.unwrap();
        assert!(stopped.sentence().contains("0.8790, more than 0.02 below its best, 0.9000 after 1 epoch."));
        // With grace it takes two in a row.
        let mut rule = StopRule::new(None, None, Some(0.02), Better::More, 1, 10, true);
        let seen = [0.9, 0.8, 0.89, 0.8, 0.7].map(|m| rule.observe(1.0, None, Some(m)).stopped.is_some());
        assert_eq!(seen, [false, false, false, false, true]);
        let mut rule = StopRule::new(None, None, Some(0.02), Better::More, 0, 10, true);
        assert_eq!(rule.observe(1.0, None, Some(f64::NAN)).stopped, None);
        assert_eq!(rule.observe(1.0, None, Some(0.5)), Verdict { keep: true, stopped: None });
        assert!(rule.observe(1.0, None, Some(f64::NAN)).stopped.is_some());
    }

    /// A correlation with labels that are all alike, an operator whose predictions overflow.
    #[test]
    fn a_metric_that_is_no_number_is_never_the_best_and_can_be_written_down() {
        let mut rule = StopRule::new(None, None, Some(0.1), Better::Less, 0, 10, true);
        // Without any number the last state is the result.
        let seen = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|m| rule.observe(1.0, None, Some(m)));
        assert_eq!(seen, [Verdict { keep: true, stopped: None }; 3]);
        assert!(rule.observe(2.0, None, Some(0.5)).keep);
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<StopRule>(&text).unwrap(), rule);
        let stopped = rule.observe(3.0, None, Some(f64::NAN)).stopped.unwrap();
        let text = serde_json::to_string(&stopped).unwrap();
        let again: Stopped = serde_json::from_str(&text).unwrap();
        assert_eq!(again.sentence(), stopped.sentence());
        assert!(stopped.sentence().contains("the metric is NaN"), "{}", stopped.sentence());
    }

    #[test]
    fn patience_counts_evaluations_since_the_best() {
        let mut rule = StopRule::new(None, Some(2), None, Better::More, 0, 10, true);
        let seen = [0.5, 0.4, 0.6, 0.6, 0.55].map(|m| rule.observe(1.5, None, Some(m)));
        assert_eq!(seen.map(|s| s.stopped.is_some()), [false, false, false, false, true]);
        assert_eq!(seen.map(|s| s.keep), [true, false, true, false, false]);
        let sentence = seen[4].stopped.unwrap().sentence();
        assert!(
            sentence.starts_with("Stopped after 1.5 epochs because 2 evaluations in a row"),
            "{sentence}"
        );
    }

    #[test]
    fn of_an_error_less_is_better() {
        let mut rule = StopRule::new(None, Some(3), Some(0.02), Better::Less, 0, 10, true);
        let seen = [0.3, 0.2, 0.21, 0.19].map(|error| rule.observe(1.0, None, Some(error)));
        assert_eq!(seen.map(|s| s.keep), [true, true, false, true]);
        assert!(seen.iter().all(|s| s.stopped.is_none()));
        assert!(!rule.observe(2.0, None, Some(f64::NAN)).keep);
        let sentence = rule.observe(3.0, None, Some(0.22)).stopped.unwrap().sentence();
        assert_eq!(
            sentence,
            "Stopped after 3 epochs because the metric is 0.2200, more than 0.02 above its best, 0.1900 after 1 \
             epoch."
        );
        let target = Some((Target::DropPercent(10.0), 0.05));
        let mut rule = StopRule::new(target, None, None, Better::Less, 0, 9, true);
        let keep = [0.3, 0.2, 0.25].map(|error| rule.observe(1.0, Some(0.04), Some(error)).keep);
        assert_eq!(keep, [true, true, false]);
    }

    #[test]
    fn epochs_end_it_and_say_what_was_missed() {
        let mut rule = StopRule::new(Some((Target::Below(0.04), 0.05)), None, None, Better::More, 0, 1, true);
        let state = serde_json::to_string(&rule).unwrap();
        let stopped = rule.observe(1.0, Some(0.049), Some(0.7)).stopped.unwrap();
        assert!(!stopped.reached_target());
        assert_eq!(
            stopped.sentence(),
            "Stopped after 1 epoch, as planned; the alpha STD is 0.049000 and did not reach its target, 0.040000."
        );
        // A resumed run decides the same.
        let mut again: StopRule = serde_json::from_str(&state).unwrap();
        assert_eq!(again.observe(1.0, Some(0.049), Some(0.7)).stopped, Some(stopped));
        assert_eq!(again, rule);
    }
}
