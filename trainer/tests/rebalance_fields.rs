//! Whole runs of neural operators, as a user types them: Darcy flow from a torch file, compressible flow from HDF5.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use evenkeel::rebalance::fields::{Fields, Init};
use evenkeel::rebalance::options::{Choice, Options, Subsample};
use evenkeel::source::OperatorKind;
use evenkeel_trainer::Error;
use evenkeel_trainer::rebalance::rebalance;
use evenkeel_trainer::training::INTERRUPTED;
use serde_json::Value;

mod place;
mod trajectories;

/// The flag of Ctrl-C is one for the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").canonicalize().unwrap()
}

fn darcy() -> String {
    let path = fixtures().join("cache/neuralop/darcy_train_16.pt");
    assert!(path.is_file(), "{} is missing: run fixtures/fetch.py", path.display());
    path.display().to_string()
}

/// A file of compressible flow, 5 × 9 frames of 16 points or 3 × 7 frames of 8 × 6.
fn flow(axes: usize) -> String {
    fixtures().join(format!("trainer/fields/flow{axes}d.h5")).display().to_string()
}

/// A directory with whatever runs leave.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `evenkeel rebalance`, wants an exit code, and gives what it printed.
    fn run(&self, arguments: &str, code: i32) -> String {
        let mut command = Command::new(&*place::EVENKEEL);
        command.current_dir(self.0.path()).env("EVENKEEL_TRAINER", env!("CARGO_BIN_EXE_evenkeel-trainer"));
        command.args(["rebalance", "--threads", "1", "--quiet"]).args(arguments.split_whitespace());
        place::ended(command.output().unwrap(), code)
    }

    fn report(&self, output: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(output).join("report.json")).unwrap()).unwrap()
    }

    fn log(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("training/log.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn score(scores: &Value, name: &str) -> f64 {
    let found = scores.as_array().unwrap().iter().find(|score| score["name"] == name);
    found.unwrap()["value"].as_f64().unwrap()
}

/// The whole way of a user without data of their own: everything is written, and says the same.
#[test]
fn darcy_flow_is_learned() {
    let place = Place::new();
    let data = darcy();
    let run = format!("--init fno2d --modes 8 --train {data} --subsample 0.1 --epochs 8 --s 1 --output out");
    let said = place.run(&run, 0);
    assert!(said.contains("fno2d, 209377 parameters"), "{said}");
    let report = place.report("out");
    let (before, after) = (score(&report["before"], "nrmse"), score(&report["after"], "nrmse"));
    assert!(after < 0.6 * before && after < 0.5, "{before} {after}");
    // Half of the frames are given.
    assert!((score(&report["after"], "nrmse_pdebench") - after / 2.0).abs() < 1e-12);
    // What was evaluated in training is what the result gives when it is read again.
    let errors = &report["details"]["errors"];
    assert!((errors["channels"][0]["nrmse"].as_f64().unwrap() - after).abs() < 1e-6 * after);
    assert_eq!(
        (errors["frames"][0]["frame"].as_u64(), errors["channels"][0]["channel"].as_str()),
        (Some(1), Some("y"))
    );
    for sample in 0..3 {
        let picture = fs::read(place.path(&format!("out/training/samples/sample-{sample}.png"))).unwrap();
        let size = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
        assert_eq!((&picture[..8], size(16), size(20)), (&b"\x89PNG\r\n\x1a\n"[..], 3 * 256 + 2 * 8, 256));
        let decoder = png::Decoder::new(std::io::Cursor::new(&picture));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let colours: std::collections::BTreeSet<&[u8]> = pixels.chunks(3).collect();
        assert!(colours.len() > 100, "{}", colours.len());
    }
    // Adam, a rate that falls in steps, spectra at the start of every epoch: 80 samples in steps of 20.
    let log = place.log("out");
    assert_eq!((log.len(), &report["options"]["optimizer"]["kind"]), (32, &Value::from("adam")));
    for (step, record) in log.iter().enumerate().filter(|(step, _)| (step + 1) % 4 != 0) {
        assert_eq!(record["lag"].as_u64().unwrap(), step as u64 % 4);
        assert!(record["alpha_std"].as_f64().unwrap() > 0.0);
        // Not the first matrix, which has three eigenvalues here, nor the last one.
        assert_eq!(record["rates"].as_array().unwrap().len(), 5);
    }
    assert!(report["alpha_std_before"].as_f64() != report["alpha_std_after"].as_f64());
    // The best state is the one with the smallest error.
    let best = log.iter().filter_map(|r| r["scores"][0][1].as_f64()).fold(f64::INFINITY, f64::min);
    assert_eq!(best, after);
    // An audit by anybody else shows the same.
    let output = Command::new(&*place::EVENKEEL)
        .arg("analyze")
        .arg(place.path("out"))
        .args(["--format", "json"])
        .output();
    let audit: Value = serde_json::from_str(&place::ended(output.unwrap(), 0)).unwrap();
    assert_eq!(audit["matrices"], report["spectra_after"]["matrices"]);
    assert_eq!(audit["summary"]["alpha_std"], report["alpha_std_after"]);
    // And training goes on from it, with other data of the kind.
    let said = place
        .run(&format!("out --train {data} --subsample 0.05 --epochs 1 --optimizer adamw --output more"), 0);
    assert!(said.contains("The result is more"), "{said}");
    assert!(score(&place.report("more")["before"], "nrmse") < 0.5);
}

#[test]
fn flow_is_predicted_frame_by_frame_by_either_kind() {
    let place = Place::new();
    for (kind, axes, sizes) in [
        ("fno1d", 1, "--modes 4"),
        ("unet1d", 1, "--features 4 --levels 2"),
        ("fno2d", 2, "--modes 3"),
        ("unet2d", 2, "--features 8 --levels 1"),
    ] {
        let data = flow(axes);
        let run = format!(
            "--init {kind} {sizes} --train {data} --initial-steps 3 --test-samples 1 --epochs 3 --batch 2 --output {kind}"
        );
        let said = place.run(&run, 0);
        let predicted = if axes == 1 { 6 } else { 4 };
        assert!(
            said.contains(&format!("3 of {} frames are given, {predicted} are predicted", predicted + 3)),
            "{said}"
        );
        let report = place.report(kind);
        let errors = &report["details"]["errors"];
        assert_eq!(errors["frames"].as_array().unwrap().len(), predicted);
        assert_eq!(errors["channels"].as_array().unwrap().len(), axes + 2);
        assert_eq!(errors["channels"][2]["channel"], "Vx");
        assert!(place.path(kind).join("training/samples/sample-0.png").is_file());
        let ratio = score(&report["after"], "nrmse_pdebench") / score(&report["after"], "nrmse");
        assert!((ratio - predicted as f64 / (predicted as f64 + 3.0)).abs() < 1e-12);
        assert!(place.log(kind).iter().all(|record| record["loss"].as_f64().unwrap().is_finite()));
    }
    // Coarser in space and time, with data of its own to test on, spectral weights, and the last state.
    let data = flow(1);
    let said = place.run(
        &format!("--init fno1d --modes 4 --train {data} --eval {data} --reduce-space 2 --reduce-time 2 --initial-steps 1 \
                  --spectral-weights --subsample 0.5 --subsample-choice random --epochs 2 --keep last --output coarse"),
        0,
    );
    assert!(said.contains("1 of 5 frames are given, 4 are predicted, on a grid of 8 points"), "{said}");
    let matrices = place.report("coarse")["spectra_after"]["matrices"].clone();
    let spectral =
        matrices.as_array().unwrap().iter().filter(|m| m["role"] == "spectral" && m["scheduled"] == true);
    assert_eq!(spectral.count(), 4);
    // A file of PDEBench's, as it is.
    let model = fixtures().join("trainer/operators/unet2d.pt");
    let data = flow(2);
    place.run(&format!("{} --train {data} --test-samples 1 --epochs 1 --output theirs", model.display()), 0);
    assert!(place.path("theirs/config.json").is_file());
}

/// Options of a UNet, whose norms have buffers.
fn options(output: &Path) -> Options {
    let data = Fields {
        train: PathBuf::from(flow(1)),
        eval: None,
        test_samples: Some(1),
        init: Some(Init { kind: OperatorKind::Unet1d, width: 20, modes: 12, features: 8, levels: 2 }),
        initial_steps: Some(4),
        reduce_space: 1,
        reduce_time: 1,
        subsample: Subsample { ratio: 1.0, choice: Choice::Stride },
        pictures: 1,
    };
    trajectories::options(None, output, data)
}

/// Ctrl-C after the first step, then --resume: weights and running means are those of a run that nobody disturbed.
#[test]
fn a_resumed_run_gives_the_same_bits() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let place = Place::new();
    let (whole, mut parts) = (options(&place.path("whole")), options(&place.path("parts")));
    rebalance(&whole).unwrap();
    INTERRUPTED.store(true, Ordering::Relaxed);
    let stopped = rebalance(&parts);
    INTERRUPTED.store(false, Ordering::Relaxed);
    assert!(matches!(stopped, Err(Error::Interrupted { step: 1 })), "{stopped:?}");
    parts.resume = true;
    rebalance(&parts).unwrap();
    let bytes = |options: &Options| fs::read(options.output.join("model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&parts));
    let file = bytes(&whole);
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let batches = tensors.tensor("encoder1.enc1norm1.num_batches_tracked").unwrap();
    // 4 samples in batches of 2, 3 epochs, 5 predicted frames.
    assert_eq!(i64::from_le_bytes(batches.data().try_into().unwrap()), 2 * 3 * 5);
    let mean = tensors.tensor("encoder1.enc1norm1.running_mean").unwrap();
    assert!(mean.data().iter().any(|byte| *byte != 0));
    let without_times = |output: &str| {
        let mut log = place.log(output);
        for record in &mut log {
            let record = record.as_object_mut().unwrap();
            record.remove("seconds");
            record.remove("seconds_spectra");
        }
        log
    };
    assert_eq!(without_times("whole"), without_times("parts"));
}

/// Every sentence names the file, or the option, and the figures.
#[test]
fn what_does_not_fit_is_said_before_any_work() {
    let place = Place::new();
    let (line, plane, darcy) = (flow(1), flow(2), darcy());
    let fields = |name: &str| fixtures().join("trainer/fields").join(name).display().to_string();
    let model = fixtures().join("trainer/operators/fno2d.pt").display().to_string();
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 9"),
            vec!["flow1d.h5", "its 9 frames", "10 are needed"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --reduce-time 4 --initial-steps 3"),
            vec!["every 4. makes 3", "4 are needed"],
        ),
        (
            format!("--init fno1d --train {line} --initial-steps 3"),
            vec!["flow1d.h5", "12 modes", "16 points", "at most 8"],
        ),
        (
            format!("--init fno2d --modes 9 --train {darcy}"),
            vec!["darcy_train_16.pt", "9 modes", "16×16", "at most 8"],
        ),
        (
            format!("--init fno1d --modes 4 --train {plane} --initial-steps 3"),
            vec!["flow2d.h5", "2 axes in space", "fno1d is for 1"],
        ),
        (
            format!("--init unet2d --train {plane} --initial-steps 3"),
            vec!["8×6", "halved 4 times", "multiple of 16"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 3 --reduce-space 16"),
            vec!["flow1d.h5", "fewer than two"],
        ),
        (
            format!("--init fno1d --modes 3 --train {} --initial-steps 2 --test-samples 1", fields("nan.h5")),
            vec!["nan.h5", "NaN or infinity"],
        ),
        (format!("--init fno1d --modes 3 --train {}", fields("other.h5")), vec!["other.h5", "no dataset"]),
        (
            format!("--init fno2d --modes 3 --train {}", fields("no_vy.h5")),
            vec!["no_vy.h5", "no dataset `Vy`", "density"],
        ),
        (
            format!("{model} --train {line}"),
            vec!["fno2d.pt", "12 channels and gives 4", "3 (density, pressure, Vx)"],
        ),
        (
            format!("{model} --train {plane} --initial-steps 2 --test-samples 1"),
            vec!["takes 3 frames of 4 channels", "asks for 2"],
        ),
        (
            format!("--init fno2d --modes 3 --train {plane} --initial-steps 3"),
            vec!["of its 3 samples 0 are to be tested on"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 3 --eval {plane}"),
            vec!["flow2d.h5", "and the training data has"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 3 --subsample 0.3"),
            vec!["1/0.3 is 3.33"],
        ),
        (
            format!("--init fno1d --levels 3 --train {line}"),
            vec!["--levels is a size of a UNet, and fno1d is an FNO"],
        ),
        (
            format!("--init fno1d --label x --train {line}"),
            vec!["--label is for texts", "flow1d.h5 holds fields"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 3 --bf16"),
            vec!["--bf16 is for text models"],
        ),
        (
            format!("--init fno1d --modes 4 --train {line} --initial-steps 3 --lora 4"),
            vec!["--lora is for text models", "flow1d.h5 holds fields"],
        ),
        ("model --train texts.jsonl --reduce-time 2".to_owned(), vec!["--reduce-time is for fields"]),
        (
            format!("--init unet2d --train {darcy} --subsample 0.0125 --batch 3"),
            vec!["last batch of an epoch has one example (10 in batches of 3)"],
        ),
    ];
    for (arguments, parts) in cases {
        let said = place.run(&format!("{arguments} --output out"), 2);
        for part in parts {
            assert!(said.contains(part), "{arguments}\n{said}\nlacks: {part}");
        }
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_plan_tells_sizes_and_memory() {
    let place = Place::new();
    let said = place.run(
        &format!("--init fno1d --modes 4 --train {} --initial-steps 3 --dry-run --output out", flow(1)),
        0,
    );
    for part in
        ["w0.weight", "4 training and 1 evaluation examples", "Memory: about", "500 epochs of 1 steps"]
    {
        assert!(said.contains(part), "{said}\nlacks: {part}");
    }
    assert!(!place.path("out").exists());
}

/// neuraloperator's sets as trajectories: Darcy flow as pairs, Burgers' equation from its first frame on.
#[test]
fn torch_files_are_trajectories() {
    use evenkeel_trainer::fields::{Selection, open};
    let read = |path: &str, samples: std::ops::Range<usize>, time_stride, space_stride| {
        let source = open(Path::new(path)).unwrap();
        let selection = Selection { samples, time_stride, space_stride, ..Selection::all(source.shape()) };
        (source.shape().clone(), source.read(&selection).unwrap())
    };
    let (shape, numbers) = read(&darcy(), 3..5, 1, 1);
    assert_eq!((shape.samples, shape.times, shape.grid), (1000, 2, vec![16, 16]));
    assert_eq!(numbers.len(), 2 * 2 * 256);
    let (coefficient, solution) = numbers[..512].split_at(256);
    assert!(coefficient.iter().all(|x| *x == 0.0 || *x == 1.0) && coefficient.contains(&1.0));
    assert!(solution.iter().any(|x| *x != 0.0 && *x != 1.0));
    let burgers = fixtures().join("cache/neuralop/burgers_lowres.pt").display().to_string();
    let (shape, numbers) = read(&burgers, 0..2, 1, 1);
    assert_eq!((shape.samples, shape.times, shape.grid.as_slice()), (1200, 17, &[16][..]));
    // Every fourth frame, every second point.
    let (_, coarse) = read(&burgers, 1..2, 4, 2);
    assert_eq!(coarse.len(), 5 * 8);
    for (at, number) in coarse.iter().enumerate() {
        assert_eq!(*number, numbers[17 * 16 + at / 8 * 4 * 16 + at % 8 * 2]);
    }
    let model = fixtures().join("trainer/operators/fno1d.pt");
    let message = open(&model).map(|_| ()).unwrap_err().to_string();
    assert!(
        message.contains("fno1d.pt: it has neither `x` and `y`") && message.contains("conv0.weights1 4×4×3"),
        "{message}"
    );
}
