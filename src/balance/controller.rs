//! `--s auto`: a controller that finds the gain with which a target alpha STD is reached in time.
//!
//! This is ours, not the paper's, whose gains (0.25 to 2) hardly move the STD of a fine-tuned model.
//! The controller starts at the paper's 1.25, and leaves blocks below the mean there. Whenever the STD is known anew it is compared with a course
//! from the start to the target, over the part of the run's learning rate that is spent (so that warm-up
//! and decay count for what they are). Behind it, and falling too slowly to get back to it soon, the gain
//! is raised; well ahead of it the gain is eased; and a metric that falls too far halves it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::BaseRate;
use super::stop::has_fallen;

/// The alpha STD that a run is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// This many percent below the start's.
    DropPercent(f64),
    /// At most this.
    Below(f64),
}

impl Target {
    /// The STD to reach, for that of the start.
    pub fn goal(&self, start: f64) -> f64 {
        match *self {
            Target::DropPercent(percent) => start * (1.0 - percent / 100.0),
            Target::Below(bound) => bound,
        }
    }

    /// Whether it is reached.
    pub fn reached(&self, start: f64, now: f64) -> bool {
        now <= self.goal(start)
    }
}

/// The gain that a run starts with: the paper's.
const FIRST: f64 = 1.25;
/// What one decision multiplies the gain by, at most and at least.
const RAISE: f64 = 1.4;
const EASE: f64 = 0.8;
/// The part of an epoch between two decisions that raise the gain (an epoch being an equal part of the run's
/// learning rate): the gain has to be up before the examples are known by heart, and that takes epochs.
const PAUSE: f64 = 0.05;
/// The part of the run's learning rate before a decision that eases it. Where the STD is known rarely, one
/// decision makes up for several, up to [`AT_ONCE`].
const PATIENCE: f64 = 0.03;
const AT_ONCE: f64 = 2.5;
/// The part of the run's learning rate after which the target is to be reached. What is left then
/// is the slow end of the decay, with which nothing could be made up for.
const AIM: f64 = 0.96;
/// What the course bends by: it asks for two fifths of the way in the first tenth of the learning rate,
/// and for nearly all of it in the first half. Early steps are worth more than late ones: while the loss
/// falls, gradients become small and lose their common direction, and once a small set is learned by
/// heart (MiniLM with 80 sentences: after a third of the learning rate) no gain moves anything.
const BEND: i32 = 5;
/// How far ahead the controller looks: a slope that leads back to the course within this part of the
/// learning rate is enough, and where the STD is already below that point of the course the gain is eased.
const HORIZON: f64 = 0.12;
/// The part of the run's learning rate over which the slope is taken.
const WINDOW: f64 = 0.04;

/// What a controller is to achieve, and within what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// The target.
    pub target: Target,
    /// The alpha STD before the first step.
    pub start: f64,
    /// The base rate over the run.
    pub rate: BaseRate,
    /// What the gain is not raised above.
    pub cap: f64,
    /// How far the metric may fall below its best.
    pub max_metric_drop: Option<f64>,
}

impl Course {
    /// The part of the way to the target by which an alpha in use may be off, and within which of the target
    /// an error could decide whether it is reached.
    pub const DOUBT: f64 = 0.3;

    /// An epoch, as a part of the run.
    fn epoch(&self) -> f64 {
        self.rate.steps_per_epoch.max(1) as f64 / self.rate.steps.max(1) as f64
    }

    /// How far the STD has to fall.
    pub fn way(&self) -> f64 {
        self.start - self.target.goal(self.start)
    }

    /// Whether an STD is so near to the target that a small error would decide whether it is reached.
    pub fn is_close(&self, std: f64) -> bool {
        (std - self.target.goal(self.start)).abs() <= Course::DOUBT * self.way()
    }

    /// What the STD is to be when this part of the run's learning rate is spent.
    fn at(&self, spent: f64) -> f64 {
        let left = (1.0 - spent / AIM).max(0.0).powi(BEND);
        self.target.goal(self.start) + self.way() * left
    }
}

/// Why the gain was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The STD does not fall fast enough.
    Behind,
    /// It is well below its course.
    Ahead,
    /// It is where it was to be.
    Reached,
    /// The metric fell too far below its best.
    MetricFell,
}

/// A change of the gain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Optimizer steps done.
    pub step: u64,
    /// The gain until now.
    pub from: f64,
    /// The gain from now on.
    pub to: f64,
    /// Why.
    pub reason: Reason,
    /// The newest alpha STD.
    pub std: f64,
    /// What it is to be now, on course.
    pub course: f64,
}

/// The controller. It is driven by [`Controller::observe`] and [`Controller::evaluated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    course: Course,
    gain: f64,
    /// The sum of the base rates of all steps, and of those done.
    all: f64,
    spent: f64,
    steps: u64,
    /// Spent part and STD of the latest observations, the oldest first.
    seen: VecDeque<(f64, f64)>,
    /// The spent part at the latest decision.
    decided: f64,
    best: Option<f64>,
    /// Since the last backing off no evaluation was good again.
    held: bool,
}

impl Controller {
    /// A controller at the start of a run.
    pub fn new(course: Course) -> Controller {
        Controller {
            gain: FIRST.min(course.cap),
            all: (0..course.rate.steps).map(|step| course.rate.at(step)).sum(),
            spent: 0.0,
            steps: 0,
            seen: VecDeque::from([(0.0, course.start)]),
            decided: 0.0,
            best: None,
            held: false,
            course,
        }
    }

    /// The gain in use, for metrics below the mean and above it. Only what is above gets the raised one, as in
    /// the paper's pairs: the others would all but stop learning, and it is not they that bring the STD down.
    pub fn gain(&self) -> (f64, f64) {
        (self.gain.min(FIRST), self.gain)
    }

    /// What it is to achieve.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// Takes in the alpha STD of the weights after `step` optimizer steps, and decides; steps never
    /// decrease. The change, where there is one, is to be logged.
    pub fn observe(&mut self, step: u64, std: f64) -> Option<Event> {
        if !std.is_finite() {
            return None;
        }
        self.spend(step);
        let spent = self.share();
        self.seen.push_back((spent, std));
        while self.seen.get(1).is_some_and(|(then, _)| *then <= spent - WINDOW) {
            self.seen.pop_front();
        }
        let pause = PAUSE * self.course.epoch();
        if spent - self.decided < pause {
            return None;
        }
        let goal = self.course.target.goal(self.course.start);
        if std <= goal {
            return self.change(step, self.gain * EASE, Reason::Reached);
        }
        let ahead = self.course.at(spent + HORIZON);
        if std < ahead && spent - self.decided >= PATIENCE {
            return self.change(step, self.gain * EASE, Reason::Ahead);
        }
        let needed = (std - ahead) / HORIZON;
        if std > self.course.at(spent) && self.slope() < needed && !self.held {
            let by = RAISE.powf(((spent - self.decided) / pause).clamp(1.0, AT_ONCE));
            return self.change(step, self.gain * by, Reason::Behind);
        }
        None
    }

    /// Takes in an evaluation after `step` optimizer steps, by a metric of which more is better (see
    /// [`super::Better::merit`]). One that lies further below its best than
    /// is allowed halves the gain, and nothing raises it before an evaluation is good again.
    pub fn evaluated(&mut self, step: u64, metric: f64) -> Option<Event> {
        let best = match self.best {
            Some(best) if metric <= best || metric.is_nan() => best,
            None if metric.is_nan() => return None,
            _ => metric,
        };
        self.best = Some(best);
        self.held = self.course.max_metric_drop.is_some_and(|allowed| has_fallen(best, metric, allowed));
        self.spend(step);
        if self.held { self.change(step, self.gain / 2.0, Reason::MetricFell) } else { None }
    }

    /// Counts the rates of the steps that were done since.
    fn spend(&mut self, step: u64) {
        for done in self.steps..step.min(self.course.rate.steps) {
            self.spent += self.course.rate.at(done);
        }
        self.steps = self.steps.max(step);
    }

    /// The spent part of the run's learning rate.
    fn share(&self) -> f64 {
        if self.all > 0.0 { (self.spent / self.all).min(1.0) } else { 1.0 }
    }

    /// How fast the STD has been falling, per whole learning rate: the slope of the straight line of
    /// least squares.
    fn slope(&self) -> f64 {
        let count = self.seen.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.seen.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|s| s.0), mean(|s| s.1));
        let (mut products, mut squares) = (0.0, 0.0);
        for (spent, std) in &self.seen {
            products += (spent - x) * (std - y);
            squares += (spent - x) * (spent - x);
        }
        if squares > 0.0 { -products / squares } else { 0.0 }
    }

    fn change(&mut self, step: u64, gain: f64, reason: Reason) -> Option<Event> {
        self.decided = self.share();
        let from = self.gain;
        self.gain = gain.min(self.course.cap).max(FIRST.min(self.course.cap));
        let event = Event {
            step,
            from,
            to: self.gain,
            reason,
            std: self.seen.back().map_or(self.course.start, |(_, std)| *std),
            course: self.course.at(self.decided),
        };
        (event.to != from).then_some(event)
    }
}

impl Event {
    /// A whole sentence for the log.
    pub fn sentence(&self) -> String {
        let Event { step, from, to, std, course, .. } = self;
        let why = match self.reason {
            Reason::Behind => format!("the alpha STD, {std:.6}, falls too slowly (course: {course:.6})"),
            Reason::Ahead => {
                format!("the alpha STD, {std:.6}, is well below its course ({course:.6})")
            }
            Reason::Reached => format!("the alpha STD, {std:.6}, is where it was to be"),
            Reason::MetricFell => "the metric fell too far below its best".to_owned(),
        };
        format!("Step {step}: s {from:.3} → {to:.3} above the mean, because {why}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Decay;

    const START: f64 = 0.05;

    fn course(target: Target, steps: u64) -> Course {
        let rate = BaseRate {
            peak: 1e-4,
            decay: Decay::Linear,
            warmup_steps: steps / 16,
            steps,
            steps_per_epoch: steps / 10,
        };
        Course { target, start: START, rate, cap: 8.0, max_metric_drop: Some(0.02) }
    }

    /// The part by which a whole run at one gain lowers the STD: about what MiniLM was seen to do
    /// (1 % at 3, 13 % at 6, 43 % at 12).
    fn response(gain: f64) -> f64 {
        0.5 / (1.0 + (-(gain - 8.2) / 1.9f64).exp())
    }

    /// Runs a model whose STD falls by `response`, times what `strength` says of the part of the learning
    /// rate that is spent, with noise in what is seen and a lag of some steps; gives the last STD, the
    /// largest gain and the events.
    fn simulate(
        mut controller: Controller,
        strength: impl Fn(f64) -> f64,
        every: u64,
        seed: u64,
    ) -> (f64, f64, Vec<Event>) {
        let rate = controller.course().rate;
        let goal = controller.course().target.goal(START);
        let (mut std, mut falling, mut largest) = (START, 0.0, 0.0f64);
        let (mut events, mut random) = (Vec::new(), seed);
        for step in 0..rate.steps {
            // Training stops after the epoch that reaches the target.
            if std <= goal && step % rate.steps_per_epoch == 0 {
                break;
            }
            let share = rate.at(step) / controller.all;
            falling += 0.4 * (strength(controller.share()) * response(controller.gain().1) - falling);
            std -= START * falling * share;
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let noise = (random >> 33) as f64 / (1u64 << 31) as f64 - 0.5;
            if (step + 1) % every == 0 {
                events.extend(controller.observe(step + 1, std + noise * 4e-5));
            }
            largest = largest.max(controller.gain().1);
            // A resumed run is the same run.
            let state = serde_json::to_string(&controller).unwrap();
            controller = serde_json::from_str(&state).unwrap();
        }
        (std / START - 1.0, largest, events)
    }

    #[test]
    fn it_reaches_its_target_in_time_and_not_much_more() {
        // As strong all the way; fading as with thousands of examples; and as with eighty.
        type Strength = fn(f64) -> f64;
        let models: [(&str, Strength); 3] =
            [("even", |_| 1.0), ("fading", |x| 1.3 - 0.8 * x), ("short", |x| 2.0 * (-3.0 * x).exp())];
        for seed in 0..8 {
            for (steps, every) in [(60, 1), (60, 3), (600, 5), (2000, 100)] {
                for ((name, strength), times) in models
                    .iter()
                    .zip([[0.8, 2.0], [0.8, 2.0], [1.2, 2.0]])
                    .flat_map(|(m, t)| t.map(|t| (m, t)))
                {
                    let controller = Controller::new(course(Target::DropPercent(10.0), steps));
                    let (change, largest, events) =
                        simulate(controller, |x| times * strength(x), every, seed);
                    let what =
                        format!("{name} × {times}, {steps} steps, every {every}: {change}, s ≤ {largest}");
                    assert!((-0.16..=-0.0995).contains(&change), "{what}");
                    assert!(largest <= 8.0 && !events.is_empty(), "{what}");
                }
            }
        }
    }

    #[test]
    fn close_is_where_a_small_error_would_decide() {
        let close = |target, std| course(target, 60).is_close(std);
        let drop = Target::DropPercent(10.0);
        assert_eq!(
            [0.05, 0.0466, 0.0464, 0.0437, 0.0434].map(|std| close(drop, std)),
            [false, false, true, true, false]
        );
        // A target that the start already reaches is close to nothing.
        assert!(!close(Target::Below(0.06), START));
    }

    #[test]
    fn it_starts_at_the_papers_gain_and_rises_quickly() {
        let controller = Controller::new(course(Target::Below(0.045), 60));
        assert_eq!(controller.gain().1, 1.25);
        let (_, _, events) = simulate(controller, |_| 1.0, 1, 1);
        assert_eq!((events[0].from, events[0].reason), (1.25, Reason::Behind));
        let at_five = events.iter().find(|e| e.to > 5.0).unwrap().step;
        assert!(at_five <= 10, "{at_five}");
        let sentence = events[0].sentence();
        assert!(sentence.contains("s 1.250 → 2.640"), "{sentence}");
    }

    #[test]
    fn what_does_not_respond_gets_the_cap_and_no_more() {
        let (change, largest, events) =
            simulate(Controller::new(course(Target::DropPercent(10.0), 60)), |_| 0.0, 1, 3);
        assert_eq!((change, largest), (0.0, 8.0));
        assert!(events.len() < 30);
    }

    #[test]
    fn it_backs_off_when_the_metric_falls() {
        let mut controller = Controller::new(course(Target::DropPercent(10.0), 100));
        let _ = (0..40).filter_map(|step| controller.observe(step, START)).count();
        assert_eq!(controller.gain().1, 8.0);
        assert_eq!(controller.evaluated(40, 0.9), None);
        assert_eq!(controller.evaluated(41, f64::NAN).unwrap().to, 4.0);
        let event = controller.evaluated(50, 0.87).unwrap();
        assert_eq!((event.from, event.to, event.reason), (4.0, 2.0, Reason::MetricFell));
        // It is not raised before an evaluation is good again.
        assert_eq!(controller.observe(60, START), None);
        assert_eq!(controller.evaluated(61, 0.885), None);
        assert_eq!(controller.observe(70, START).unwrap().reason, Reason::Behind);
        // The paper's gain is the least.
        let _ = (0..5).filter_map(|_| controller.evaluated(80, 0.1)).count();
        assert_eq!(controller.gain().1, 1.25);
    }

    #[test]
    fn targets() {
        assert!(Target::DropPercent(10.0).reached(0.05, 0.045));
        assert!(!Target::DropPercent(10.0).reached(0.05, 0.0451));
        assert!(Target::Below(0.04).reached(0.05, 0.04));
        // A target that is met already only ever asks for the paper's gain.
        let mut controller = Controller::new(course(Target::Below(0.06), 60));
        assert_eq!(controller.observe(10, START), None);
        assert_eq!(controller.gain().1, 1.25);
        assert_eq!(controller.observe(20, f64::NAN), None);
    }
}
