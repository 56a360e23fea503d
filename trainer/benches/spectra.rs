//! What spectra cost during training with `--spectra-interval auto`, and how right the alphas in use are.
//!
//! Fine-tunes on a small part of the examples, twice: once as a user would, for the time that training waited for
//! spectra; and once with a shadow that computes every block's alpha at every step, and changes nothing, for the
//! largest difference from what was in use. `speed.py` beside it prints this together with the time of a step.
//!
//! Arguments: the request of a run (what `evenkeel rebalance` hands to the trainer), an empty directory.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use evenkeel::Checkpoint;
use evenkeel::balance::{Better, Measure, Plan, Spectra, UnitOptions};
use evenkeel::rebalance::options::{Options, Request};
use evenkeel::source::ModelConfig;
use evenkeel_trainer::memory::Need;
use evenkeel_trainer::rebalance::{base_rate, open, optimizer};
use evenkeel_trainer::torch::load_cuda;
use evenkeel_trainer::training::{self, Balancer, Finished, Parameter, Problem, Run, Score, Setting, Update};
use tch::{Device, Tensor};

/// A problem that is looked at before every step.
struct Shadow<'a> {
    problem: &'a dyn Problem,
    options: &'a Options,
    plan: Plan,
    /// The alphas of every step so far.
    alphas: RefCell<Vec<Vec<Option<f64>>>>,
    seconds: Cell<f64>,
}

impl Problem for Shadow<'_> {
    fn parameters(&self) -> &[Parameter] {
        self.problem.parameters()
    }

    fn config(&self) -> Option<ModelConfig> {
        self.problem.config()
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        self.problem.buffers()
    }

    fn updates(&self) -> &[Update] {
        self.problem.updates()
    }

    fn weights(&self, only: Option<&[&str]>) -> evenkeel_trainer::Result<Checkpoint> {
        self.problem.weights(only)
    }

    fn examples(&self) -> usize {
        self.problem.examples()
    }

    fn evaluation_examples(&self) -> usize {
        self.problem.evaluation_examples()
    }

    fn memory(&self, options: &Options) -> Need {
        self.problem.memory(options)
    }

    /// One batch a step: the weights are those that the step starts from.
    fn loss(&self, examples: &[usize]) -> evenkeel_trainer::Result<Tensor> {
        let started = Instant::now();
        let report = training::report(self.problem, &self.options.balance)?;
        self.alphas.borrow_mut().push(self.plan.values(Measure::Alpha, &Spectra::of(&report, 0)));
        self.seconds.set(self.seconds.get() + started.elapsed().as_secs_f64());
        self.problem.loss(examples)
    }

    /// No evaluation is needed here, and the loop wants one number.
    fn evaluate(&self, _: &mut dyn FnMut(usize, usize)) -> evenkeel_trainer::Result<Vec<Score>> {
        Ok(vec![Score { name: "none".to_owned(), value: 0.0, better: Better::More }])
    }

    fn write(&self, directory: &Path) -> evenkeel_trainer::Result<()> {
        self.problem.write(directory)
    }
}

/// Trains `problem` with the options, whose model was just opened.
fn train(options: &Options, problem: &dyn Problem, directory: &Path) -> Result<Finished> {
    let rate = base_rate(options, problem.examples());
    let before = training::report(problem, &options.balance)?;
    let setting =
        Setting { options: &options.balance, rate, target: None, max_metric_drop: None, wait: true };
    let balancer = Balancer::start(problem, &setting, &before)?;
    std::fs::create_dir_all(directory)?;
    let settings = training::Settings {
        training: &options.training,
        stop: &options.stop,
        keep: options.result,
        rate,
        directory,
        quiet: true,
        title: "benchmark",
        asked: &serde_json::Value::Null,
    };
    Ok(Run::start(settings, problem, optimizer(options), balancer)?.finish()?)
}

/// The alphas in use at every step, from the log.
fn in_use(directory: &Path) -> Result<Vec<Vec<Option<f64>>>> {
    #[derive(serde::Deserialize)]
    struct Line {
        alphas: Vec<Option<f64>>,
    }
    let log = std::fs::read_to_string(directory.join("log.jsonl"))?;
    log.lines().map(|line| Ok(serde_json::from_str::<Line>(line)?.alphas)).collect()
}

/// The largest difference between the two, and the largest way that an alpha goes from its start.
fn compare(used: &[Vec<Option<f64>>], real: &[Vec<Option<f64>>]) -> (f64, f64) {
    let (mut off, mut moved) = (0.0f64, 0.0f64);
    for (used, now) in used.iter().zip(real) {
        let start = real.first().into_iter().flatten();
        for ((used, now), start) in used.iter().zip(now).zip(start) {
            if let (Some(used), Some(now), Some(start)) = (used, now, start) {
                off = off.max((used - now).abs());
                moved = moved.max((now - start).abs());
            }
        }
    }
    (off, moved)
}

fn main() -> Result<()> {
    evenkeel_trainer::memory::settle();
    load_cuda();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(request), Some(directory)) = (arguments.next(), arguments.next()) else {
        println!("the request of a run, as JSON, and an empty directory are missing; nothing is measured");
        return Ok(());
    };
    let Request { mut options, .. } = serde_json::from_str(&request).context("the request")?;
    options.balance.analysis.threads = options.training.threads;
    tch::set_num_threads(i32::try_from(options.training.threads.max(1))?);
    let directory = Path::new(&directory);

    let (problem, _) = open(&options, Device::Cpu)?;
    let problem = problem.as_ref();
    let finished = train(&options, problem, &directory.join("plain"))?;
    let (all, spectra) = finished.seconds;
    println!(
        "spectra: {:.2} % of the training time ({spectra:.2} of {all:.2} s, {} steps)",
        100.0 * spectra / all,
        finished.steps
    );

    let (problem, _) = open(&options, Device::Cpu)?;
    let problem = problem.as_ref();
    let names: Vec<&str> = problem.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    let report = training::report(problem, &options.balance)?;
    let plan = Plan::new(&report, &names, &UnitOptions::default())?;
    let (alphas, seconds) = (RefCell::default(), Cell::default());
    let shadow = Shadow { problem, options: &options, plan, alphas, seconds };
    let finished = train(&options, &shadow, &directory.join("shadowed"))?;
    let (off, moved) = compare(&in_use(&directory.join("shadowed"))?, &shadow.alphas.borrow());
    println!(
        "alphas in use: off by {off:.4} at most while they moved by up to {moved:.4} ({} steps; all spectra at every step: \
         {:.1} s)",
        finished.steps,
        shadow.seconds.get()
    );
    Ok(())
}
