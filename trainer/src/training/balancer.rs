//! The learning rate of every parameter: spectra of the weights as they change, and what follows.

use std::collections::HashMap;
use std::time::Instant;

use evenkeel::analysis::Frozen;
use evenkeel::balance::{
    BaseRate, CLOSELY, Controller, Course, Drift, Gain, InUse, Measure, Plan, Spectra, TOLERANCE, Target,
    UnitOptions, spread,
};
use evenkeel::rebalance::options::{Balance, Interval};
use evenkeel::{Report, Silent, analyze};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::anchors::{Anchors, Member};
use super::problem::Problem;
use super::worker::{Found, Order, Worker, measure};
use crate::error::Result;

/// What changes during a run and is no tensor, for its state on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    plan: Plan,
    spectra: Spectra,
    drift: Drift,
    controller: Option<Controller>,
    start_std: Option<f64>,
    /// Optimizer steps done when the newest spectra were taken.
    measured_at: u64,
    /// How many spectra of a unit were computed, those of the start left out.
    computed: u64,
}

/// What the balancer is made for.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The options of the run.
    pub options: &'a Balance,
    /// The base rate over the run.
    pub rate: BaseRate,
    /// The alpha STD to reach.
    pub target: Option<Target>,
    /// How far the metric may fall.
    pub max_metric_drop: Option<f64>,
    /// Training waits for spectra.
    pub wait: bool,
}

/// Gives every parameter its learning rate.
#[derive(Debug)]
pub struct Balancer {
    options: Balance,
    frozen: Frozen,
    worker: Option<Worker>,
    numbers: Numbers,
    /// Where each unit's weights were when the spectrum in use was taken.
    anchors: Anchors,
    /// Where they were when the spectrum that is being computed was taken.
    pending: Option<Anchors>,
    /// Optimizer steps between two computations of everything; `None` where the drift decides.
    interval: Option<u64>,
    /// For every unit its measured weights that change.
    members: Vec<Vec<Member>>,
    in_use: Vec<InUse>,
    seconds: f64,
}

/// How far an alpha in use may be off: where a controller steers by their STD, not so far that it would see
/// a good part of its way where there is none.
fn tolerance(controller: Option<&Controller>) -> f64 {
    let way = controller.map(|controller| controller.course().way());
    way.filter(|way| *way > 0.0).map_or(TOLERANCE, |way| TOLERANCE.min(Course::DOUBT * way))
}

/// The measured weights of every unit that change: parameters, or what has an update.
fn members(problem: &dyn Problem, plan: &Plan) -> Vec<Vec<Member>> {
    let parameters = problem.parameters().iter().enumerate();
    let mut places: HashMap<&str, Member> =
        parameters.map(|(position, p)| (p.name.as_str(), Member::Parameter(position))).collect();
    let updates = problem.updates().iter().enumerate();
    places.extend(updates.map(|(position, update)| (update.weight.as_str(), Member::Update(position))));
    let of = |name: &String| places.get(name.as_str()).copied();
    plan.units.iter().map(|unit| unit.tensors.iter().filter_map(of).collect()).collect()
}

/// The report on a model's weights as they are.
///
/// # Errors
/// Those of the analysis.
pub fn report(problem: &dyn Problem, options: &Balance) -> Result<Report> {
    Ok(analyze(&problem.weights(None)?, &options.analysis, &Silent)?)
}

impl Balancer {
    /// Starts from the weights as they are, with their report.
    ///
    /// # Errors
    /// Patterns that fit nothing; those of the analysis.
    pub fn start(problem: &dyn Problem, setting: &Setting, report: &Report) -> Result<Balancer> {
        let names: Vec<&str> = problem.parameters().iter().map(|p| p.name.as_str()).collect();
        let Balance { exclude, exclude_last, gain, .. } = setting.options;
        let units = UnitOptions { exclude: exclude.clone(), exclude_last: *exclude_last };
        let plan = Plan::new(report, &names, &units)?;
        let spectra = Spectra::of(report, 0);
        let alphas = plan.values(Measure::Alpha, &spectra);
        let start_std = spread(&alphas);
        let controller = match (*gain, setting.target, start_std) {
            (Gain::Auto { cap, .. }, Some(target), Some(start)) => {
                let Setting { rate, max_metric_drop, .. } = *setting;
                Some(Controller::new(Course { target, start, rate, cap, max_metric_drop }))
            }
            _ => None,
        };
        let drift = Drift::new(&alphas, tolerance(controller.as_ref()));
        let numbers = Numbers { plan, spectra, drift, controller, start_std, measured_at: 0, computed: 0 };
        Balancer::resume(problem, setting, numbers)
    }

    /// Goes on from saved numbers; [`Balancer::restore`] brings the tensors back.
    ///
    /// # Errors
    /// Those of the analysis.
    pub fn resume(problem: &dyn Problem, setting: &Setting, numbers: Numbers) -> Result<Balancer> {
        let members = members(problem, &numbers.plan);
        let frozen = Frozen::new(&problem.weights(None)?, &setting.options.analysis)?;
        let interval = match setting.options.interval {
            Interval::Auto => None,
            Interval::Steps(steps) => Some(steps.max(1)),
            Interval::Epoch => Some(setting.rate.steps_per_epoch.max(1)),
            Interval::Paper => Some((setting.rate.steps_per_epoch / 10).clamp(1, 100)),
        };
        let mut balancer = Balancer {
            options: setting.options.clone(),
            worker: if setting.wait { None } else { Some(Worker::start(frozen.clone())?) },
            frozen,
            anchors: Anchors::new(&members, problem)?,
            pending: None,
            members,
            numbers,
            interval,
            in_use: Vec::new(),
            seconds: 0.0,
        };
        balancer.predict(problem)?;
        Ok(balancer)
    }

    /// The plan: who shares a rate.
    pub fn plan(&self) -> &Plan {
        &self.numbers.plan
    }

    /// What to save of it, with [`Balancer::tensors`].
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The tensors that belong to its state.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.anchors.tensors()
    }

    /// Takes saved tensors back.
    ///
    /// # Errors
    /// [`crate::Error::Option`] where one is missing.
    pub fn restore(&mut self, saved: &[(String, Tensor)], problem: &dyn Problem) -> Result<()> {
        self.anchors.restore(saved)?;
        self.predict(problem)
    }

    /// The alpha STD before the first step.
    pub fn start_std(&self) -> Option<f64> {
        self.numbers.start_std
    }

    /// Whether a controller looks for the gain.
    pub fn is_controlled(&self) -> bool {
        self.numbers.controller.is_some()
    }

    /// Seconds that training has waited for spectra since this was last asked.
    pub fn take_seconds(&mut self) -> f64 {
        std::mem::take(&mut self.seconds)
    }

    /// How many spectra of a unit were computed, those of the start left out.
    pub fn computed(&self) -> u64 {
        self.numbers.computed
    }

    /// Optimizer steps since the weights that the numbers in use were taken from.
    pub fn lag(&self, step: u64) -> u64 {
        step.saturating_sub(self.numbers.measured_at)
    }

    /// Each unit's alpha in use.
    pub fn alphas(&self) -> Vec<Option<f64>> {
        match self.interval {
            None => self.in_use.iter().map(|unit| unit.predicted).collect(),
            Some(_) => self.numbers.plan.values(Measure::Alpha, &self.numbers.spectra),
        }
    }

    /// Their standard deviation.
    pub fn alpha_std(&self) -> Option<f64> {
        spread(&self.alphas())
    }

    /// The gain for metrics below and above the mean.
    pub fn gain(&self) -> (f64, f64) {
        match (&self.numbers.controller, self.options.gain) {
            (Some(controller), _) => controller.gain(),
            (None, Gain::Fixed { below, above }) => (below, above),
            (None, Gain::Auto { .. }) => (1.25, 1.25),
        }
    }

    /// The factor of every unit.
    ///
    /// # Errors
    /// [`evenkeel::Error::Setting`] where the mapping has none for a unit's metric.
    pub fn factors(&self) -> Result<Vec<f64>> {
        let values = match self.options.measure {
            Measure::Alpha => self.alphas(),
            measure => self.numbers.plan.values(measure, &self.numbers.spectra),
        };
        let most = match self.options.gain {
            Gain::Auto { max_factor, .. } => Some(max_factor),
            Gain::Fixed { .. } => None,
        };
        Ok(self.numbers.plan.factors(&self.options.mapping, &values, self.gain(), most)?)
    }

    /// Before optimizer step `step` (from 0): computes, orders or collects the spectra that are due. Returns
    /// what is worth a line in the log.
    ///
    /// # Errors
    /// Those of the analysis.
    pub fn before_step(&mut self, problem: &dyn Problem, step: u64) -> Result<Vec<String>> {
        let started = Instant::now();
        let mut notes = self.collect(false, step)?;
        // At fixed intervals nobody asks meanwhile how far the weights have moved.
        if self.interval.is_none_or(|interval| step.is_multiple_of(interval)) {
            self.predict(problem)?;
        }
        let all = 0..self.members.len();
        let due: Vec<usize> = match self.interval {
            Some(interval) if step.is_multiple_of(interval) => all.collect(),
            Some(_) => Vec::new(),
            None => all.filter(|unit| self.in_use.get(*unit).is_some_and(|unit| unit.due)).collect(),
        };
        let due = if due.is_empty() { self.doubtful() } else { due };
        let busy = self.worker.as_ref().is_some_and(Worker::is_busy);
        // The start has been measured.
        if step > 0 && !due.is_empty() && !busy {
            let order = self.order(problem, step, due)?;
            match &mut self.worker {
                Some(worker) => {
                    self.pending = Some(Anchors::new(&self.members, problem)?);
                    worker.order(order)?;
                }
                None => {
                    self.anchors.renew(&order.units, problem)?;
                    notes.push(self.take(measure(&self.frozen, order)?, step));
                    self.predict(problem)?;
                }
            }
        }
        // Where alphas are predicted, their STD is known at every step.
        if !notes.is_empty() || self.interval.is_none() {
            notes.extend(self.steer(step));
        }
        self.seconds += started.elapsed().as_secs_f64();
        Ok(notes)
    }

    /// What has to be computed before a controller may take its target for reached: all that was only
    /// predicted to have moved, where the predictions alone bring the STD to the goal.
    fn doubtful(&self) -> Vec<usize> {
        let Numbers { controller: Some(controller), plan, spectra, .. } = &self.numbers else {
            return Vec::new();
        };
        let Course { target, start, .. } = *controller.course();
        let reaches = |std: Option<f64>| std.is_some_and(|std| target.reached(start, std));
        let computed = plan.values(Measure::Alpha, spectra);
        if !reaches(self.alpha_std()) || reaches(spread(&computed)) {
            return Vec::new();
        }
        let moved = |now: Option<f64>, then: Option<f64>| {
            now.zip(then).is_some_and(|(now, then)| (now - then).abs() > 0.03 * TOLERANCE)
        };
        let units = self.alphas().into_iter().zip(computed).enumerate();
        units.filter(|(_, (now, then))| moved(*now, *then)).map(|(unit, _)| unit).collect()
    }

    /// Computes everything now, so that a decision can rest on it.
    ///
    /// # Errors
    /// Those of the analysis.
    pub fn refresh(&mut self, problem: &dyn Problem, step: u64) -> Result<Vec<String>> {
        let started = Instant::now();
        let mut notes = self.collect(true, step)?;
        self.predict(problem)?;
        let order = self.order(problem, step, (0..self.members.len()).collect())?;
        self.anchors.renew(&order.units, problem)?;
        notes.push(self.take(measure(&self.frozen, order)?, step));
        self.predict(problem)?;
        notes.extend(self.steer(step));
        self.seconds += started.elapsed().as_secs_f64();
        Ok(notes)
    }

    /// Takes in what the worker has found.
    fn collect(&mut self, wait: bool, step: u64) -> Result<Vec<String>> {
        let Some(worker) = &mut self.worker else { return Ok(Vec::new()) };
        let Some(found) = worker.result(wait)? else { return Ok(Vec::new()) };
        if let Some(pending) = self.pending.take() {
            self.anchors.adopt(&found.units, pending);
        }
        Ok(vec![self.take(found, step)])
    }

    /// Lets the controller look at the alpha STD in use.
    fn steer(&mut self, step: u64) -> Option<String> {
        let std = self.alpha_std()?;
        let event = self.numbers.controller.as_mut()?.observe(step, std)?;
        Some(event.sentence())
    }

    /// Hands an evaluation's metric to the controller, as one of which more is better.
    pub fn evaluated(&mut self, step: u64, merit: f64) -> Option<String> {
        let controller = self.numbers.controller.as_mut()?;
        controller.evaluated(step, merit).map(|event| event.sentence())
    }

    fn order(&self, problem: &dyn Problem, step: u64, units: Vec<usize>) -> Result<Order> {
        let members = units.iter().filter_map(|unit| self.members.get(*unit)).flatten();
        let names: Vec<&str> = members.filter_map(|member| member.name(problem)).collect();
        let weights = problem.weights(Some(&names))?;
        let displacement = |unit: &usize| self.in_use.get(*unit).map_or(0.0, |in_use| in_use.displacement);
        let displacements = units.iter().map(displacement).collect();
        Ok(Order { step, units, displacements, weights })
    }

    /// Takes numbers in, and says in a sentence how far predictions were off.
    fn take(&mut self, found: Found, step: u64) -> String {
        let Numbers { plan, spectra, drift, measured_at, computed, .. } = &mut self.numbers;
        spectra.update(found.step, &found.matrices);
        *measured_at = found.step;
        *computed += found.units.len() as u64;
        let alphas = plan.values(Measure::Alpha, spectra);
        let mut worst: f64 = 0.0;
        for (unit, displacement) in found.units.iter().zip(&found.displacements) {
            let alpha = alphas.get(*unit).copied().flatten();
            worst = worst.max(drift.computed(*unit, *displacement, alpha).map_or(0.0, f64::abs));
        }
        let displacement = found.displacements.iter().copied().fold(0.0, f64::max);
        format!(
            "Spectra of {} of {} units after step {}, in use from step {step}; moved by up to {displacement:.2e}, \
             alpha predicted to {worst:.6}.",
            found.units.len(),
            plan.units.len(),
            found.step
        )
    }

    fn predict(&mut self, problem: &dyn Problem) -> Result<()> {
        let displacements = self.anchors.displacements(problem)?;
        self.in_use = self.numbers.drift.in_use(&displacements, 1.0);
        let std = self.alpha_std().filter(|_| self.interval.is_none());
        let controller = self.numbers.controller.as_ref();
        if std.zip(controller).is_some_and(|(std, controller)| controller.course().is_close(std)) {
            self.in_use = self.numbers.drift.in_use(&displacements, CLOSELY);
        }
        Ok(())
    }
}
