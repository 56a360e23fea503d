//! The loop: examples → gradients → rates → weights, with what is written on the way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use evenkeel::balance::{BaseRate, Better, StopRule, Stopped, Verdict};
use evenkeel::rebalance::options::{Keep, Stop, Training};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use super::asked::difference;
use super::balancer::{self, Balancer};
use super::log::{Logs, Record};
use super::models::Models;
use super::problem::{Problem, Score};
use super::progress::Bar;
use super::state::{self, States};
use crate::error::{Error, Result};
use crate::memory::give_back;
use crate::optimizer::{self, Optimizer};
use crate::picture::{self, Heading};
use crate::random::{order, reseed};

/// Set by Ctrl-C: the loop saves its state after the step, and ends.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What the loop is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The loop's numbers.
    pub training: &'a Training,
    /// When it ends.
    pub stop: &'a Stop,
    /// Which state is the result.
    pub keep: Keep,
    /// The base rate.
    pub rate: BaseRate,
    /// Where logs, states and models go.
    pub directory: &'a Path,
    /// No progress bar.
    pub quiet: bool,
    /// What is trained on what, above the picture.
    pub title: &'a str,
    /// All that decides over the steps: a run is resumed with the same only.
    pub asked: &'a Value,
}

/// A run that has come to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Why.
    pub stopped: Stopped,
    /// Optimizer steps done.
    pub steps: u64,
    /// The scores before the first step.
    pub before: Vec<Score>,
    /// The scores of the state that is the result.
    pub result: Vec<Score>,
    /// The directory with the model that is the result.
    pub model: PathBuf,
    /// Seconds in training steps, and of these waiting for spectra.
    pub seconds: (f64, f64),
}

/// All that a run goes on from, but for tensors.
#[derive(Serialize, Deserialize)]
struct State {
    /// What was asked for at the start.
    asked: Value,
    /// Optimizer steps done.
    step: u64,
    rule: StopRule,
    balancer: balancer::Numbers,
    before: Vec<Score>,
    best: Option<Vec<Score>>,
    latest: Vec<Score>,
    /// The name of the model that is the result so far.
    model: Option<String>,
    /// Why it ended, once it has: what is left then is to put the result in its place.
    stopped: Option<Stopped>,
    seconds: (f64, f64),
}

/// The number of optimizer steps of an epoch: the last one may have fewer examples.
pub fn steps_per_epoch(examples: usize, training: &Training) -> u64 {
    examples.div_ceil(training.batch).div_ceil(training.accumulation) as u64
}

/// The tensors of a model's state by name: what is trained, and what is not.
fn of_model(problem: &dyn Problem) -> Vec<(&str, &Tensor)> {
    let parameters = problem.parameters().iter().map(|p| (p.name.as_str(), &p.tensor));
    parameters.chain(problem.buffers().iter().map(|(name, tensor)| (name.as_str(), tensor))).collect()
}

/// A run in progress.
pub struct Run<'a> {
    settings: Settings<'a>,
    problem: &'a dyn Problem,
    optimizer: Box<dyn Optimizer>,
    balancer: Balancer,
    state: State,
    states: States,
    models: Models,
    bar: Bar,
}

impl<'a> Run<'a> {
    /// A run at its start: evaluates once, to compare with.
    ///
    /// # Errors
    /// What libtorch says, and those of writing.
    pub fn start(
        settings: Settings<'a>,
        problem: &'a dyn Problem,
        optimizer: Box<dyn Optimizer>,
        balancer: Balancer,
    ) -> Result<Run<'a>> {
        let bar = Bar::new(0, settings.rate.steps, settings.quiet);
        let before = problem.evaluate(&mut |done, of| bar.evaluating(done, of))?;
        give_back();
        let Stop { target, patience, max_metric_drop } = *settings.stop;
        // A controller gets one chance to back off.
        let grace = u64::from(balancer.is_controlled());
        let target = target.zip(balancer.start_std());
        let keeps_best = settings.keep == Keep::Best;
        let better = before.first().map_or_else(Better::default, |score| score.better);
        let epochs = settings.training.epochs;
        let rule = StopRule::new(target, patience, max_metric_drop, better, grace, epochs, keeps_best);
        let state = State {
            asked: settings.asked.clone(),
            step: 0,
            rule,
            balancer: balancer.numbers().clone(),
            latest: before.clone(),
            before,
            best: None,
            model: None,
            stopped: None,
            seconds: (0.0, 0.0),
        };
        let (states, models) =
            (States::in_directory(settings.directory), Models::in_directory(settings.directory));
        Ok(Run { settings, problem, optimizer, balancer, state, states, models, bar })
    }

    /// Continues a run from its directory; `None` where it was stopped before its first state.
    ///
    /// # Errors
    /// Those of reading; a state of another model, or of a run that was asked for something else.
    pub fn resume(
        settings: Settings<'a>,
        problem: &'a dyn Problem,
        mut optimizer: Box<dyn Optimizer>,
        setting: &balancer::Setting,
    ) -> Result<Option<Run<'a>>> {
        let states = States::in_directory(settings.directory);
        let Some(saved) = states.load::<State>()? else { return Ok(None) };
        if let Some(difference) = difference(&saved.state.asked, settings.asked) {
            return Err(Error::Option(format!(
                "--resume goes on with what the run began with, and nothing else: {difference}."
            )));
        }
        let models = Models::in_directory(settings.directory);
        models.keep_only(saved.state.model.as_deref())?;
        let parameters = problem.parameters();
        state::restore(saved.parameters, &of_model(problem))?;
        let (anchors, moments): (Vec<_>, Vec<_>) =
            saved.optimizer.into_iter().partition(|(name, _)| name.starts_with("anchor."));
        optimizer.restore(parameters, &moments)?;
        let mut balancer = Balancer::resume(problem, setting, saved.state.balancer.clone())?;
        balancer.restore(&anchors, problem)?;
        let bar = Bar::new(saved.state.step, settings.rate.steps, settings.quiet);
        Ok(Some(Run { settings, problem, optimizer, balancer, state: saved.state, states, models, bar }))
    }

    /// Trains until a rule ends it.
    ///
    /// # Errors
    /// [`Error::Diverged`], [`Error::Broken`], [`Error::Interrupted`], what libtorch says, and those of writing. The
    /// last saved state stays.
    pub fn finish(mut self) -> Result<Finished> {
        let units: Vec<String> = self.balancer.plan().units.iter().map(|unit| unit.name.clone()).collect();
        let scores: Vec<String> = self.state.before.iter().map(|score| score.name.clone()).collect();
        let mut logs = Logs::open(self.settings.directory, self.state.step, &units, &scores)?;
        while self.state.stopped.is_none() {
            let started = Instant::now();
            let mut record = self.step()?;
            record.seconds = started.elapsed().as_secs_f64();
            record.seconds_spectra = self.balancer.take_seconds();
            self.state.seconds.0 += record.seconds;
            self.state.seconds.1 += record.seconds_spectra;
            let epoch_ends = self.state.step.is_multiple_of(self.settings.rate.steps_per_epoch);
            let model = self.state.model.clone();
            if epoch_ends {
                self.state.stopped = self.evaluate(&mut record)?;
            }
            for note in &record.notes {
                if !note.starts_with("Spectra") {
                    self.bar.say(note);
                }
            }
            self.bar.step(&record, self.state.latest.first().map(|s| (s.name.as_str(), s.value)));
            logs.write(&record)?;
            let interrupted = INTERRUPTED.load(Ordering::Relaxed);
            let due =
                self.settings.training.save_steps.map_or(epoch_ends, |n| self.state.step.is_multiple_of(n));
            if due || interrupted || self.state.model != model || self.state.stopped.is_some() {
                logs.flush()?;
                self.save()?;
            }
            if epoch_ends || interrupted {
                logs.flush()?;
                self.draw(&units);
            }
            if interrupted && self.state.stopped.is_none() {
                self.bar.clear();
                return Err(Error::Interrupted { step: self.state.step });
            }
        }
        self.bar.clear();
        self.result()
    }

    /// Draws the run so far. That this fails is no reason to end it.
    fn draw(&self, units: &[String]) {
        let before: Vec<(String, f64)> =
            self.state.before.iter().map(|score| (score.name.clone(), score.value)).collect();
        let heading = Heading {
            title: self.settings.title,
            units,
            before: &before,
            start_std: self.balancer.start_std(),
            target_std: self.goal(),
            steps_per_epoch: self.settings.rate.steps_per_epoch,
        };
        if let Err(error) = picture::draw(self.settings.directory, &heading) {
            self.bar.say(&format!("The picture of the run was not drawn: {error}"));
        }
    }

    /// The alpha STD to reach.
    fn goal(&self) -> Option<f64> {
        self.settings.stop.target.zip(self.balancer.start_std()).map(|(target, start)| target.goal(start))
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<Record> {
        let step = self.state.step;
        let BaseRate { steps_per_epoch, .. } = self.settings.rate;
        let parameters = self.problem.parameters();
        let notes = self.balancer.before_step(self.problem, step)?;
        let examples = self.examples(step);
        let mut loss = self.gradients(&examples, step, 0)?;
        let mut norm = optimizer::clip(parameters, self.settings.training.clip)?;
        if self.optimizer.perturbs() && loss.is_finite() && norm.is_finite() {
            self.optimizer.perturb(parameters)?;
            optimizer::zero_grad(parameters)?;
            loss = self.gradients(&examples, step, 1)?;
            self.optimizer.unperturb(parameters)?;
            norm = optimizer::clip(parameters, self.settings.training.clip)?;
        }
        if !loss.is_finite() || !norm.is_finite() {
            self.bar.clear();
            return Err(Error::Diverged { loss, step: step + 1 });
        }
        let factors = self.balancer.factors()?;
        let rate = self.settings.rate.at(step);
        let of = |position| rate * self.balancer.plan().factor_of(position, &factors);
        let rates: Vec<f64> = (0..parameters.len()).map(of).collect();
        self.optimizer.step(parameters, &rates)?;
        optimizer::zero_grad(parameters)?;
        self.state.step += 1;
        Ok(Record {
            step: self.state.step,
            epoch: self.state.step as f64 / steps_per_epoch as f64,
            loss,
            gradient_norm: norm,
            rate,
            gain: self.balancer.gain(),
            alpha_std: self.balancer.alpha_std(),
            alphas: self.balancer.alphas(),
            rates: factors.iter().map(|factor| rate * factor).collect(),
            lag: self.balancer.lag(step),
            notes,
            ..Record::default()
        })
    }

    /// The examples of an optimizer step.
    fn examples(&self, step: u64) -> Vec<usize> {
        let Training { batch, accumulation, seed, .. } = *self.settings.training;
        let per_epoch = self.settings.rate.steps_per_epoch;
        let order = order(self.problem.examples(), seed, step / per_epoch);
        let size = batch * accumulation;
        let within = usize::try_from(step % per_epoch).unwrap_or(0);
        order.into_iter().skip(within * size).take(size).collect()
    }

    /// Adds up the gradients of the mean loss over the examples, and returns that loss. Everything random in
    /// it follows from the seed, the step and the pass.
    fn gradients(&self, examples: &[usize], step: u64, pass: u64) -> Result<f64> {
        let mut total = 0.0;
        for (number, batch) in examples.chunks(self.settings.training.batch).enumerate() {
            reseed(self.settings.training.seed, step, 2 * number as u64 + pass);
            let share = self.problem.weight(batch) / self.problem.weight(examples);
            let loss = self.problem.loss(batch)?.f_mul_scalar(share)?;
            loss.f_backward()?;
            total += loss.f_double_value(&[])?;
        }
        Ok(total)
    }

    /// After an epoch: the scores, whether they are the best, and whether that is the end.
    fn evaluate(&mut self, record: &mut Record) -> Result<Option<Stopped>> {
        let step = self.state.step;
        // What decides over the end, or is shown as the end, is computed.
        let goal = self.goal();
        let last = step >= self.settings.rate.steps;
        let near =
            goal.zip(record.alpha_std).is_some_and(|(goal, std)| std <= goal + evenkeel::balance::TOLERANCE);
        if near || last {
            record.notes.extend(self.balancer.refresh(self.problem, step)?);
            self.balancer.take_seconds();
        }
        let std = self.balancer.alpha_std();
        record.alpha_std = std;
        record.alphas = self.balancer.alphas();
        give_back();
        let scores = match self.problem.evaluate(&mut |done, of| self.bar.evaluating(done, of)) {
            Err(Error::NotANumber) => return Err(self.broken()),
            scores => scores?,
        };
        give_back();
        record.scores = scores.iter().map(|score| (score.name.clone(), score.value)).collect();
        let metric = scores.first().map(|score| score.value);
        let Verdict { keep, stopped } = self.state.rule.observe(record.epoch, std, metric);
        let merit = metric.map(|metric| self.state.rule.better.merit(metric));
        record.notes.extend(merit.and_then(|merit| self.balancer.evaluated(step, merit)));
        if self.settings.keep == Keep::Best && keep {
            self.state.model = Some(self.models.write(self.problem, step)?);
            self.state.best = Some(scores.clone());
        }
        self.state.latest = scores;
        if stopped.is_some() && self.settings.keep == Keep::Last {
            self.state.model = Some(self.models.write(self.problem, step)?);
        }
        Ok(stopped)
    }

    fn broken(&self) -> Error {
        self.bar.clear();
        Error::Broken { step: self.state.step }
    }

    /// Saves the state, in place of the one before, if it is one to go on from.
    fn save(&mut self) -> Result<()> {
        for (_, tensor) in of_model(self.problem) {
            if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(self.broken());
            }
        }
        self.state.balancer = self.balancer.numbers().clone();
        let parameters = self.problem.parameters();
        let mut more = self.optimizer.state(parameters)?;
        more.extend(self.balancer.tensors());
        let more: Vec<(&str, &Tensor)> = more.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        self.states.save(&self.state, &of_model(self.problem), &more)?;
        self.models.keep_only(self.state.model.as_deref())
    }

    fn result(self) -> Result<Finished> {
        let State { step, before, best, latest, model, stopped, seconds, .. } = self.state;
        let planned = Stopped::Epochs { epochs: self.settings.training.epochs, missed: None };
        let result = match (self.settings.keep, best) {
            (Keep::Best, Some(best)) => best,
            _ => latest,
        };
        let model = model.ok_or_else(|| Error::Option("the run has written no model.".to_owned()))?;
        Ok(Finished {
            stopped: stopped.unwrap_or(planned),
            steps: step,
            before,
            result,
            model: self.models.path(&model),
            seconds,
        })
    }
}
