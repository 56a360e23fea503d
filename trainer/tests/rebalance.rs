//! Whole runs on MiniLM with a handful of sentences: what is written, and that nothing is lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use evenkeel::balance::{BaseRate, Decay, Gain, Mapping, Measure, Target, warmup_steps};
use evenkeel::rebalance::options::*;
use evenkeel::rebalance::presets::MetricName;
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent, analyze};
use evenkeel_trainer::Error;
use evenkeel_trainer::rebalance::rebalance;
use evenkeel_trainer::training::INTERRUPTED;
use serde_json::Value;

/// The flag of Ctrl-C is one for the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn minilm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/cache/minilm")
}

/// Sentences whose first word says the label.
fn sentences(directory: &Path) -> PathBuf {
    let path = directory.join("train.jsonl");
    let line = |i: u32| {
        let (word, label) =
            if i.is_multiple_of(2) { ("wonderful", "positive") } else { ("dreadful", "negative") };
        format!("{{\"text\": \"{word} film number {i}\", \"label\": \"{label}\"}}\n")
    };
    std::fs::write(&path, (0..24).map(line).collect::<String>()).unwrap();
    path
}

fn text(options: &mut Options) -> &mut TextData {
    let Data::Text(data) = &mut options.data else { panic!("the data is no text") };
    data
}

fn options(directory: &Path, output: &str) -> Options {
    let train = sentences(directory);
    Options {
        model: Some(minilm()),
        output: directory.join(output),
        data: Data::Text(TextData {
            eval: Some(train.clone()),
            train,
            eval_fraction: 0.1,
            preset: None,
            text: None,
            text_pair: None,
            label: None,
            labels: Vec::new(),
            regression: false,
            new_head: false,
            metrics: vec![MetricName::Accuracy, MetricName::Matthews],
            subsample: Subsample { ratio: 1.0, choice: Choice::First },
            max_length: 12,
            doc_stride: 4,
            eval_split: "val".to_owned(),
        }),
        balance: Balance {
            mapping: Mapping::Sigmoid { tau: 10.0 },
            gain: Gain::Fixed { below: 2.0, above: 1.0 },
            measure: Measure::Alpha,
            exclude: Vec::new(),
            exclude_last: false,
            analysis: Settings::default(),
            interval: Interval::Steps(2),
            wait: Some(true),
        },
        rate: Rate { peak: 1e-3, decay: Decay::Linear, warmup: 0.25 },
        optimizer: Optimizer {
            kind: OptimizerKind::AdamW,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            sam: None,
        },
        lora: None,
        training: Training {
            epochs: 2,
            batch: 4,
            accumulation: 2,
            clip: 1.0,
            checkpointing: false,
            bf16: false,
            seed: 13,
            device: "cpu".to_owned(),
            threads: 0,
            save_steps: None,
        },
        stop: Stop { target: None, patience: None, max_metric_drop: None },
        result: Keep::Last,
        resume: false,
        dry_run: false,
        quiet: true,
    }
}

fn log(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output.join("training/log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// η(step)·10^(s·(σ(τ(m − mean)) − 1/2)), from the alphas of the log itself.
fn expected_rates(alphas: &[f64], rate: f64) -> Vec<f64> {
    let mean = alphas.iter().sum::<f64>() / alphas.len() as f64;
    let of = |alpha: &f64| {
        let gain = if *alpha > mean { 1.0 } else { 2.0 };
        rate * 10f64.powf(gain * (1.0 / (1.0 + (-10.0 * (alpha - mean)).exp()) - 0.5))
    };
    alphas.iter().map(of).collect()
}

#[test]
fn rates_follow_the_formulas_and_the_report_is_that_of_analyze() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), "out");
    assert!(rebalance(&options).unwrap());
    let log = log(&options.output);
    // 24 examples in steps of 8, twice.
    assert_eq!(log.len(), 6);
    let base = BaseRate {
        peak: 1e-3,
        decay: Decay::Linear,
        warmup_steps: warmup_steps(0.25, 6),
        steps: 6,
        steps_per_epoch: 3,
    };
    for (step, record) in log.iter().enumerate() {
        assert_eq!(record["step"], step as u64 + 1);
        let rate = base.at(step as u64);
        assert_eq!(record["rate"].as_f64().unwrap(), rate);
        // An evaluation computes the alphas anew, after the step.
        if (step + 1) % 3 != 0 {
            let (alphas, rates) = (numbers(&record["alphas"]), numbers(&record["rates"]));
            for (found, expected) in rates.iter().zip(expected_rates(&alphas, rate)) {
                assert!((found - expected).abs() <= 1e-12 * expected, "step {step}: {found} {expected}");
            }
        }
        assert_eq!(record["lag"].as_u64().unwrap(), step as u64 % 2);
    }
    assert_eq!(log[2]["scores"][0][0], "accuracy");
    // It learns what a first word can tell.
    assert!(log[5]["scores"][0][1].as_f64().unwrap() > 0.7, "{}", log[5]["scores"]);

    let report: Value =
        serde_json::from_slice(&std::fs::read(options.output.join("report.json")).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&options.output, &OpenOptions::default()).unwrap();
    let again = serde_json::to_value(analyze(&checkpoint, &Settings::default(), &Silent).unwrap()).unwrap();
    assert_eq!(report["spectra_after"]["blocks"], again["blocks"]);
    assert_eq!(report["spectra_after"]["matrices"], again["matrices"]);
    let before = report["alpha_std_before"].as_f64().unwrap();
    assert!((before - 0.050663).abs() < 5e-7, "{before}");
    assert!(report["alpha_std_after"].as_f64().unwrap() != before);
    assert_eq!(report["target_reached"], Value::Null);
    for file in ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"] {
        assert!(options.output.join(file).is_file(), "{file}");
    }
    let csv = std::fs::read_to_string(options.output.join("training/log.csv")).unwrap();
    assert_eq!(csv.lines().count(), 7);
    assert!(csv.contains(",accuracy,matthews,alpha/encoder.layer.0,"));
}

/// Ctrl-C after the first step, then --resume: the weights are those of a run that nobody disturbed.
#[test]
fn a_resumed_run_gives_the_same_bits() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let model = |output: &str| {
        let mut options = options(dir.path(), output);
        options.balance.interval = Interval::Auto;
        options.training.accumulation = 1;
        options.training.epochs = 1;
        options
    };
    let whole = model("whole");
    rebalance(&whole).unwrap();
    let mut parts = model("parts");
    INTERRUPTED.store(true, Ordering::Relaxed);
    let stopped = rebalance(&parts);
    INTERRUPTED.store(false, Ordering::Relaxed);
    assert!(matches!(stopped, Err(Error::Interrupted { step: 1 })), "{stopped:?}");
    assert!(!parts.output.join("config.json").exists());
    parts.resume = true;
    rebalance(&parts).unwrap();
    let bytes = |options: &Options| std::fs::read(options.output.join("model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&parts));
    let without_times = |output: &Path| {
        let mut log = log(output);
        for record in &mut log {
            let record = record.as_object_mut().unwrap();
            record.remove("seconds");
            record.remove("seconds_spectra");
        }
        log
    };
    assert_eq!(without_times(&whole.output), without_times(&parts.output));

    // A run that has come to its end has nothing left to do, whether or not its result was in place.
    let training = parts.output.join("training");
    std::fs::create_dir(training.join("model-6")).unwrap();
    std::fs::rename(parts.output.join("config.json"), training.join("model-6/config.json")).unwrap();
    for _ in 0..2 {
        rebalance(&parts).unwrap();
        assert!(bytes(&whole) == bytes(&parts));
        assert_eq!(without_times(&whole.output), without_times(&parts.output));
    }
    // Other options would make other steps of those that are left.
    parts.training.epochs = 3;
    let message = rebalance(&parts).unwrap_err().to_string();
    assert!(message.ends_with("nothing else: training.epochs was 1 and is 3."), "{message}");
    parts.training.epochs = 1;
    text(&mut parts).subsample.ratio = 0.5;
    let message = rebalance(&parts).unwrap_err().to_string();
    assert!(message.contains("data.text.subsample.ratio was 1.0 and is 0.5"), "{message}");
}

#[test]
fn what_cannot_be_done_is_said_before_any_work() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Options)| {
        let mut options = options(dir.path(), "out");
        change(&mut options);
        let message = rebalance(&options).unwrap_err().to_string();
        assert!(!dir.path().join("out").exists(), "{message}");
        message
    };
    let message = refused(&|o| text(o).text = Some("body".to_owned()));
    assert!(message.contains("no column `body`") && message.contains("`text`"), "{message}");
    let message = refused(&|o| text(o).labels = vec!["good".to_owned(), "bad".to_owned()]);
    assert!(message.contains("positive"), "{message}");
    let message = refused(&|o| text(o).max_length = 4096);
    assert!(message.contains("--max-length 512"), "{message}");
    let message = refused(&|o| o.balance.exclude = vec!["decoder.*".to_owned()]);
    assert!(message.contains("--exclude") && message.contains("encoder.layer.0"), "{message}");
    let message = refused(&|o| o.training.device = "tpu".to_owned());
    assert!(message.contains("auto, cpu, cuda"), "{message}");
    let message = refused(&|o| o.resume = true);
    assert!(message.contains("no run to resume"), "{message}");
    let message = refused(&|o| o.output = minilm());
    assert!(message.contains("is the model itself"), "{message}");
    let message = refused(&|o| text(o).metrics = vec![MetricName::Pearson]);
    assert!(message.contains("pearson"), "{message}");
}

/// A step so large that the loss is no number: the run ends, and says what to do.
#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "out");
    options.rate = Rate { peak: 1e30, decay: Decay::Constant, warmup: 0.0 };
    options.stop.target = Some(Target::DropPercent(10.0));
    let message = rebalance(&options).unwrap_err().to_string();
    assert!(message.contains("no longer finite at step") || message.contains("NaN"), "{message}");
}
