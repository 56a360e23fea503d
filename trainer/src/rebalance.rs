//! A run from its options to its result.

use std::path::Path;

use evenkeel::balance::{BaseRate, warmup_steps};
use evenkeel::rebalance::fields::Fields;
use evenkeel::rebalance::options::{Balance, Data, OptimizerKind, Options};
use evenkeel::{Checkpoint, OpenOptions, Report, Silent, analyze};
use serde_json::{Map, Value};
use tch::{Cuda, Device};

use crate::error::{Error, Result};
use crate::language::Language;
use crate::memory;
use crate::optimizer::{AdafactorSettings, AdamSettings, Optimizer, SamSettings, Settings, SgdSettings};
use crate::output::Output;
use crate::pde::Pde;
use crate::picture;
use crate::summary::{self, Summary};
use crate::text;
use crate::torch;
use crate::training::{self, Balancer, Finished, Parameter, Problem, Run, Setting, steps_per_epoch};

/// Does what the options ask for; whether the target was reached, or none was given.
///
/// # Errors
/// Any of [`Error`].
pub fn rebalance(options: &Options) -> Result<bool> {
    let output = Output::check(&options.output, options.model.as_deref(), options.resume)?;
    let device = device(&options.training.device)?;
    if options.training.threads > 0 {
        tch::set_num_threads(i32::try_from(options.training.threads).unwrap_or(i32::MAX));
    }
    let mut balance = options.balance.clone();
    balance.analysis.threads = options.training.threads;
    let (problem, notes) = open(options, device)?;
    let problem = problem.as_ref();
    for note in &notes {
        eprintln!("{note}");
    }
    if options.training.bf16 && !device.is_cuda() && !torch::has_bf16_kernels() {
        eprintln!(
            "This processor has no AVX-512, which libtorch's BF16 asks for: with --bf16 a step takes less memory here, and may take \
             many times as long as without it."
        );
    }
    let need = problem.memory(options);
    // What the model takes already is there for it.
    let available = memory::left(device).map(|bytes| bytes + need.weights);
    // A dry run shows everything else first.
    let warning = match need.check(available) {
        Err(error) if options.dry_run => Some(error.to_string()),
        checked => checked?,
    };
    if let Some(warning) = warning {
        eprintln!("{warning}");
    }
    if !device.is_cuda() && need.is_tight(available) {
        memory::spare();
    }
    let rate = base_rate(options, problem.examples());
    // Of the weights as they are read: a resumed run compares with the same start.
    let before = training::report(problem, &balance)?;
    let setting = Setting {
        options: &balance,
        rate,
        target: options.stop.target,
        max_metric_drop: options.stop.max_metric_drop,
        wait: balance.wait.unwrap_or(!device.is_cuda()),
    };
    if options.stop.target.is_some() && before.summary.alpha_std.is_none() {
        return Err(Error::Option(
            "the model has no alpha STD to bring down: fewer than two blocks have an alpha.".to_owned(),
        ));
    }
    if options.dry_run {
        return plan(options, problem, &Balancer::start(problem, &setting, &before)?, rate, device)
            .map(|()| true);
    }
    let finished = train(options, problem, &setting, &before, &output)?;
    conclude(options, problem, &balance, &before, &finished, &output)
}

/// Opens model and data as what they are; says in sentences what a user should know of them.
///
/// # Errors
/// Whatever does not fit, before anything is trained.
pub fn open(options: &Options, device: Device) -> Result<(Box<dyn Problem>, Vec<String>)> {
    match &options.data {
        Data::Text(data) => text::open(options, data, device),
        Data::Language(data) => {
            let (language, notes) = Language::open(options, data, device)?;
            Ok((Box::new(language), notes))
        }
        Data::Fields(data) => {
            let (pde, notes) = Pde::open(options, data, device)?;
            Ok((Box::new(pde), notes))
        }
    }
}

/// Trains from the start, or from where the run was stopped.
fn train(
    options: &Options,
    problem: &dyn Problem,
    setting: &Setting,
    before: &Report,
    output: &Output,
) -> Result<Finished> {
    let directory = output.training();
    let (title, asked) = (title(options), asked(options, problem)?);
    let settings = training::Settings {
        training: &options.training,
        stop: &options.stop,
        keep: options.result,
        rate: setting.rate,
        directory: &directory,
        quiet: options.quiet,
        title: &title,
        asked: &asked,
    };
    if options.resume
        && let Some(run) = Run::resume(settings, problem, optimizer(options), setting)?
    {
        return run.finish();
    }
    let balancer = Balancer::start(problem, setting, before)?;
    // Nothing is written before everything has been checked.
    output.create()?;
    Run::start(settings, problem, optimizer(options), balancer)?.finish()
}

/// Puts the result in its place, looks at it as anybody else would, and reports.
fn conclude(
    options: &Options,
    problem: &dyn Problem,
    balance: &Balance,
    before: &Report,
    finished: &Finished,
    output: &Output,
) -> Result<bool> {
    output.install(&finished.model)?;
    let after = analyze(&result(options, output)?, &balance.analysis, &Silent)?;
    let details = problem.examine(output.directory(), &output.samples())?;
    let summary = Summary::new(options, finished, details, before, &after);
    let json =
        serde_json::to_vec_pretty(&summary).map_err(|e| Error::io("write", output.directory())(e.into()))?;
    output.write_report(&json)?;
    println!("{}", summary.table());
    println!("The result is {}.", output.directory().display());
    let picture = output.training().join(picture::PICTURE);
    if picture.is_file() {
        println!("The run is drawn in {}.", picture.display());
    }
    if output.samples().is_dir() {
        println!("Samples are drawn in {}: truth, prediction, difference.", output.samples().display());
    }
    Ok(options.stop.target.is_none() || finished.stopped.reached_target())
}

/// The result as anybody else would open it: a model, or an adapter on its base.
fn result(options: &Options, output: &Output) -> Result<Checkpoint> {
    let adapter = options.lora.as_ref().filter(|lora| !lora.merge);
    let (Some(base), Some(lora)) = (&options.model, adapter) else {
        return Ok(Checkpoint::open(output.directory(), &OpenOptions::default())?);
    };
    let options_of_base = OpenOptions {
        adapters: vec![output.directory().to_path_buf()],
        adapter_scale: Some(lora.spectral_scale()),
        ..OpenOptions::default()
    };
    Ok(Checkpoint::open(base, &options_of_base)?)
}

/// What decides over a run's steps. Not where files lie, what is shown, how often states are saved, what computes, or
/// what is kept in memory.
fn asked(options: &Options, problem: &dyn Problem) -> Result<Value> {
    let failed = |e: serde_json::Error| Error::io("write", &options.output)(e.into());
    let mut asked = serde_json::to_value(options).map_err(failed)?;
    let aside = |value: &mut Value, names: &[&str]| {
        if let Value::Object(entries) = value {
            entries.retain(|name, _| !names.contains(&name.as_str()));
        }
    };
    aside(&mut asked, &["model", "output", "resume", "dry_run", "quiet"]);
    if let Some(training) = asked.get_mut("training") {
        aside(training, &["device", "threads", "save_steps", "checkpointing"]);
    }
    for kind in asked.get_mut("data").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        aside(kind, &["train", "eval", "pictures"]);
    }
    if let Value::Object(entries) = &mut asked {
        entries.insert("training examples".to_owned(), problem.examples().into());
        entries.insert("evaluation examples".to_owned(), problem.evaluation_examples().into());
    }
    Ok(asked)
}

/// What is trained on what, in a line.
fn title(options: &Options) -> String {
    let name = |path: &Path| {
        // `.` and `..` have no name of their own.
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        whole.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let start = match (&options.model, &options.data) {
        (Some(model), _) => name(model),
        (None, Data::Fields(Fields { init: Some(init), .. })) => init.kind.name().to_owned(),
        (None, _) => "nothing".to_owned(),
    };
    format!("{start} on {}", name(options.data.train()))
}

/// `--dry-run`: what would happen.
fn plan(
    options: &Options,
    problem: &dyn Problem,
    balancer: &Balancer,
    rate: BaseRate,
    device: Device,
) -> Result<()> {
    let table = summary::rates(balancer.plan(), &balancer.alphas(), &balancer.factors()?, rate.peak);
    println!("{table}");
    if let Some(std) = balancer.alpha_std() {
        println!("Alpha STD {std:.6}.");
    }
    println!(
        "{} training and {} evaluation examples; {} epochs of {} steps of {} examples: {} steps, {} of them warm-up.",
        problem.examples(),
        problem.evaluation_examples(),
        options.training.epochs,
        rate.steps_per_epoch,
        options.training.batch * options.training.accumulation,
        rate.steps,
        rate.warmup_steps
    );
    let parameters: usize = problem.parameters().iter().map(Parameter::numbers).sum();
    let parameters = match parameters {
        1_000_000.. => format!("{:.1} million", parameters as f64 / 1e6),
        _ => parameters.to_string(),
    };
    println!("{parameters} parameters, on {device:?}.\n{}", problem.memory(options).sentence());
    Ok(())
}

/// The base rate over a run on so many training examples.
pub fn base_rate(options: &Options, examples: usize) -> BaseRate {
    let steps_per_epoch = steps_per_epoch(examples, &options.training);
    let steps = steps_per_epoch * options.training.epochs;
    BaseRate {
        peak: options.rate.peak,
        decay: options.rate.decay,
        warmup_steps: warmup_steps(options.rate.warmup, steps),
        steps,
        steps_per_epoch,
    }
}

/// The optimizer that the options ask for.
pub fn optimizer(options: &Options) -> Box<dyn Optimizer> {
    let numbers = options.optimizer;
    let (weight_decay, epsilon) = (numbers.weight_decay, numbers.epsilon);
    let adam = AdamSettings { beta1: numbers.beta1, beta2: numbers.beta2, epsilon, weight_decay };
    let settings = match numbers.kind {
        OptimizerKind::AdamW => Settings::AdamW(adam),
        OptimizerKind::Adam => Settings::Adam(adam),
        OptimizerKind::Adafactor => {
            Settings::Adafactor(AdafactorSettings { weight_decay, ..AdafactorSettings::default() })
        }
        OptimizerKind::Sgd => Settings::Sgd(SgdSettings { momentum: numbers.beta1, weight_decay }),
    };
    settings.build(numbers.sam.map(|sam| SamSettings { rho: sam.rho, adaptive: sam.adaptive }))
}

/// The device of a name: `auto`, `cpu`, `cuda`, `cuda:N`.
fn device(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number = number.parse::<usize>().ok();
    match (kind, number) {
        ("auto", _) => Ok(Device::cuda_if_available()),
        ("cpu", _) => Ok(Device::Cpu),
        ("cuda", Some(number)) => {
            let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
            if number < count {
                return Ok(Device::Cuda(number));
            }
            Err(Error::Option(format!(
                "--device {name}: libtorch sees {count} GPUs here (a build with `cargo xtask trainer --cuda`, or a \
                 PyTorch with CUDA in LD_LIBRARY_PATH, is needed to see any)."
            )))
        }
        _ => Err(Error::Option(format!("--device {name}: auto, cpu, cuda or cuda:N."))),
    }
}
