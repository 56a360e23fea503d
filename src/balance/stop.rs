//! When training ends before the last planned epoch, and the sentence that says why.

use serde::{Deserialize, Serialize};

use super::Target;

/// Decides after every evaluation whether training goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRule {
    /// The alpha STD to reach, and what it was at the start.
    pub target: Option<(Target, f64)>,
    /// Evaluations in a row without a better metric.
    pub patience: Option<u64>,
    /// How far the metric may fall below its best.
    pub max_metric_drop: Option<f64>,
    /// Evaluations in a row that may lie below that before training ends: 0, or more where a
    /// [`super::Controller`] is to get a chance to back off.
    pub grace: u64,
    /// The planned epochs.
    pub epochs: u64,
    best: Option<Best>,
    without_better: u64,
    below: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    metric: f64,
    epoch: f64,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Stopped {
    /// The alpha STD is where it was to be.
    Target {
        /// Epochs done.
        epoch: f64,
        /// The alpha STD at the start.
        start: f64,
        /// The alpha STD now.
        now: f64,
        /// What it was to reach.
        goal: f64,
    },
    /// The metric fell too far.
    MetricDrop {
        /// Epochs done.
        epoch: f64,
        /// The metric now.
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
        grace: u64,
        epochs: u64,
    ) -> StopRule {
        let (best, without_better, below) = (None, 0, 0);
        StopRule { target, patience, max_metric_drop, grace, epochs, best, without_better, below }
    }

    /// The best metric so far.
    pub fn best(&self) -> Option<f64> {
        self.best.map(|best| best.metric)
    }

    /// Takes in an evaluation after `epoch` epochs (a fraction within one), with the alpha STD and the
    /// metric, where they exist; of the metric more is better. Says whether training ends: the target is
    /// looked at first, the end of the epochs last.
    pub fn observe(&mut self, epoch: f64, std: Option<f64>, metric: Option<f64>) -> Option<Stopped> {
        let goal = self.target.map(|(target, start)| (start, target.goal(start)));
        let reached = goal.zip(std).filter(|((_, goal), now)| now <= goal);
        let fell = metric.and_then(|metric| self.judge(epoch, metric));
        if let Some(((start, goal), now)) = reached {
            return Some(Stopped::Target { epoch, start, now, goal });
        }
        let missed = std.zip(goal.map(|(_, goal)| goal));
        let done = epoch >= self.epochs as f64;
        fell.or_else(|| done.then_some(Stopped::Epochs { epochs: self.epochs, missed }))
    }

    /// What the metric alone says.
    fn judge(&mut self, epoch: f64, metric: f64) -> Option<Stopped> {
        let best = match self.best {
            // NaN is never better, and never a best.
            Some(best) if metric > best.metric => {
                self.without_better = 0;
                Best { metric, epoch }
            }
            Some(best) => {
                self.without_better += 1;
                best
            }
            None if metric.is_nan() => return None,
            None => Best { metric, epoch },
        };
        self.best = Some(best);
        let drop = self.max_metric_drop.filter(|allowed| has_fallen(best.metric, metric, *allowed));
        self.below = if drop.is_some() { self.below + 1 } else { 0 };
        if let Some(allowed) = drop.filter(|_| self.below > self.grace) {
            return Some(Stopped::MetricDrop {
                epoch,
                now: metric,
                best: best.metric,
                best_epoch: best.epoch,
                allowed,
            });
        }
        let evaluations = self.without_better;
        self.patience.filter(|patience| evaluations >= (*patience).max(1)).map(|_| Stopped::Patience {
            epoch,
            evaluations,
            best: best.metric,
            best_epoch: best.epoch,
        })
    }
}

/// Whether a metric lies more than `allowed` below its best, rounding aside. NaN does.
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
            Stopped::Target { epoch, start, now, goal } => format!(
                "Stopped after {} because the alpha STD reached its target: {now:.6}, at most {goal:.6} was \
                 asked for, and {start:.6} was the start ({:+.1} %).",
                epochs(epoch),
                100.0 * (now / start - 1.0)
            ),
            Stopped::MetricDrop { epoch, now, best, best_epoch, allowed } => format!(
                "Stopped after {} because the metric is {now:.4}, more than {allowed} below its best, {best:.4} \
                 after {}.",
                epochs(epoch),
                epochs(best_epoch)
            ),
            Stopped::Patience { epoch, evaluations, best, best_epoch } => format!(
                "Stopped after {} because {evaluations} {} in a row did not better the metric's best, {best:.4} \
                 after {}.",
                epochs(epoch),
                if evaluations == 1 { "evaluation" } else { "evaluations" },
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
    fn the_target_ends_training_before_anything_else() {
        let target = Some((Target::DropPercent(10.0), 0.05));
        let mut rule = StopRule::new(target, Some(1), Some(0.01), 0, 3);
        assert_eq!(rule.observe(1.0, Some(0.0451), Some(0.8)), None);
        let stopped = rule.observe(2.0, Some(0.045), Some(0.5)).unwrap();
        assert!(stopped.reached_target());
        assert_eq!(
            stopped.sentence(),
            "Stopped after 2 epochs because the alpha STD reached its target: 0.045000, at most 0.045000 was \
             asked for, and 0.050000 was the start (-10.0 %)."
        );
    }

    #[test]
    fn the_metric_may_fall_only_so_far() {
        let mut rule = StopRule::new(None, None, Some(0.02), 0, 10);
        assert_eq!(rule.observe(1.0, None, Some(0.90)), None);
        // Exactly as far as allowed, by decimals that are no binary fractions.
        assert_eq!(rule.observe(2.0, None, Some(0.88)), None);
        let stopped = rule.observe(3.0, None, Some(0.879)).unwrap();
        assert!(stopped.sentence().contains("0.8790, more than 0.02 below its best, 0.9000 after 1 epoch."));
        // With grace it takes two in a row.
        let mut rule = StopRule::new(None, None, Some(0.02), 1, 10);
        let seen = [0.9, 0.8, 0.89, 0.8, 0.7].map(|m| rule.observe(1.0, None, Some(m)).is_some());
        assert_eq!(seen, [false, false, false, false, true]);
        let mut rule = StopRule::new(None, None, Some(0.02), 0, 10);
        assert_eq!(rule.observe(1.0, None, Some(f64::NAN)), None);
        assert_eq!(rule.observe(1.0, None, Some(0.5)), None);
        assert!(rule.observe(1.0, None, Some(f64::NAN)).is_some());
    }

    #[test]
    fn patience_counts_evaluations_since_the_best() {
        let mut rule = StopRule::new(None, Some(2), None, 0, 10);
        let seen = [0.5, 0.4, 0.6, 0.6, 0.55].map(|m| rule.observe(1.5, None, Some(m)));
        assert_eq!(seen.map(|s| s.is_some()), [false, false, false, false, true]);
        assert_eq!(rule.best(), Some(0.6));
        let sentence = seen[4].unwrap().sentence();
        assert!(
            sentence.starts_with("Stopped after 1.5 epochs because 2 evaluations in a row"),
            "{sentence}"
        );
    }

    #[test]
    fn epochs_end_it_and_say_what_was_missed() {
        let mut rule = StopRule::new(Some((Target::Below(0.04), 0.05)), None, None, 0, 1);
        let state = serde_json::to_string(&rule).unwrap();
        let stopped = rule.observe(1.0, Some(0.049), Some(0.7)).unwrap();
        assert!(!stopped.reached_target());
        assert_eq!(
            stopped.sentence(),
            "Stopped after 1 epoch, as planned; the alpha STD is 0.049000 and did not reach its target, 0.040000."
        );
        // A resumed run decides the same.
        let mut again: StopRule = serde_json::from_str(&state).unwrap();
        assert_eq!(again.observe(1.0, Some(0.049), Some(0.7)), Some(stopped));
        assert_eq!(again, rule);
    }
}
