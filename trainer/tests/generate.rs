//! `evenkeel-trainer generate` as a user types it: what is written, that a seed decides it, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use evenkeel::source::hdf5::{Hdf5, Span};
use evenkeel_trainer::fields::{PdeBench, Selection, Source};
use evenkeel_trainer::generate::{Compressible, DarcyFlow, Frames, GAMMA, Gas, Recipe};
use evenkeel_trainer::random::{Draws, Purpose};

fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-trainer"));
    command.arg("generate").args(arguments.split_whitespace());
    command
}

fn run(arguments: &str, output: &Path) -> Output {
    command(arguments).arg("--output").arg(output).output().unwrap()
}

/// A set that could be written.
fn generated(arguments: &str, output: &Path) -> PdeBench {
    let done = run(arguments, output);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("The data are {}.\n", output.display()));
    PdeBench::open(output).unwrap()
}

/// What a command says that cannot do its work; nothing is left in the directory.
fn refused(arguments: &str, directory: &Path) -> String {
    let done = run(arguments, &directory.join("set.h5"));
    assert_eq!(done.status.code(), Some(2), "{arguments}");
    assert!(done.stdout.is_empty());
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "{arguments}");
    String::from_utf8(done.stderr).unwrap()
}

/// Every number of a set, and a coordinate.
fn all(set: &PdeBench) -> Vec<f32> {
    set.read(&Selection::all(set.shape())).unwrap()
}

fn coordinate(path: &Path, name: &str) -> Vec<f32> {
    let array = Hdf5::open(path).unwrap().array(name).unwrap().unwrap();
    array.read(&[Span::every(1, 0..array.shape()[0])]).unwrap()
}

/// A recipe's sample as a file has it: [T, X(, Y), C] out of one array for each channel.
fn interleaved(recipe: &dyn Recipe, seed: u64, sample: u64) -> Vec<f32> {
    let channels = recipe.sample(Draws::new(seed, Purpose::Field, sample)).unwrap();
    let count = channels[0].len();
    (0..count).flat_map(|point| channels.iter().map(move |channel| channel[point])).collect()
}

#[test]
fn flow_is_written_as_it_was_computed() {
    let dir = tempfile::tempdir().unwrap();
    let gas = Gas { gamma: GAMMA, shear: 0.02, bulk: 0.03 };
    for (name, axes) in [("cfd1d", 1), ("cfd2d", 2)] {
        let path = dir.path().join(name);
        let arguments = "--samples 5 --resolution 12 --frames 4 --end 0.3 --modes 2 --refine 2 --seed 9 --eta 0.02 --zeta \
                         0.03 --mach 0.4";
        let set = generated(&format!("{name} {arguments}"), &path);
        let shape = set.shape();
        assert_eq!((shape.samples, shape.times, shape.grid.len()), (5, 4, axes));
        assert_eq!(shape.channels, &["density", "pressure", "Vx", "Vy"][..2 + axes]);
        let frames = Frames { count: 4, end: 0.3 };
        let recipe = Compressible { axes, gas, mach: 0.4, resolution: 12, refine: 2, modes: 2, frames };
        for sample in 0..5 {
            let selection = Selection { samples: sample..sample + 1, ..Selection::all(shape) };
            assert_eq!(
                set.read(&selection).unwrap(),
                interleaved(&recipe, 9, sample as u64),
                "{name} {sample}"
            );
        }
        assert_eq!(coordinate(&path, "t-coordinate"), [0.0, 0.1, 0.2, 0.3]);
        let x = coordinate(&path, "x-coordinate");
        assert_eq!((x.len(), x[0], x[11]), (12, 0.5 / 12.0, 11.5 / 12.0));
        // Every channel develops.
        let (numbers, channels) = (all(&set), shape.channels.len());
        let frame = shape.elements() / 5 / 4;
        for channel in 0..channels {
            let moved =
                (channel..frame).step_by(channels).map(|n| (numbers[n] - numbers[n + 3 * frame]).abs());
            assert!(moved.fold(0.0, f32::max) > 1e-3, "{name} {channel}");
        }
    }
}

#[test]
fn darcy_flow_has_its_medium_and_its_solution() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.h5");
    let set = generated("darcy --samples 3 --resolution 16", &path);
    assert_eq!((set.shape().samples, set.shape().times, set.shape().grid.as_slice()), (3, 2, &[16, 16][..]));
    let recipe = DarcyFlow { force: 100.0, resolution: 16, refine: 1 };
    let numbers = all(&set);
    for sample in 0..3 {
        let computed = recipe.sample(Draws::new(13, Purpose::Field, sample)).unwrap().concat();
        assert_eq!(numbers[512 * sample as usize..512 * (sample as usize + 1)], computed);
    }
    // With a of at most 1 the solution is at least that of a = 1 (7.37 in the middle), and at most ten times that.
    for frames in numbers.chunks(512) {
        assert!(frames[..256].iter().all(|a| *a == 0.1 || *a == 1.0));
        let most = frames[256..].iter().fold(0.0f32, |most, u| most.max(*u));
        assert!((7.2..74.0).contains(&most), "{most}");
    }
}

/// Means are kept and energy is lost: so much holds for every solution of Burgers' equation.
#[test]
fn burgers_keeps_its_means() {
    let dir = tempfile::tempdir().unwrap();
    let set = generated("burgers --samples 4 --resolution 64 --frames 3", &dir.path().join("set.h5"));
    assert_eq!(set.shape().channels, ["tensor"]);
    for sample in all(&set).chunks(3 * 64) {
        let sums = |f: &dyn Fn(f32) -> f32| -> Vec<f32> {
            sample.chunks(64).map(|frame| frame.iter().map(|u| f(*u)).sum::<f32>() / 64.0).collect()
        };
        let (means, energies) = (sums(&|u| u), sums(&|u| u * u));
        assert!((means[0] - means[2]).abs() < 1e-5, "{means:?}");
        assert!(energies[0] > energies[1] && energies[1] > energies[2] && energies[0] > 0.01, "{energies:?}");
    }
}

#[test]
fn a_seed_decides_every_byte_whatever_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["darcy", "burgers", "cfd1d", "cfd2d"];
    for set in sets {
        let write = |name: &str, more: &str| {
            let path = dir.path().join(format!("{set}-{name}"));
            generated(&format!("{set} --samples 6 --resolution 16 {more}"), &path);
            fs::read(path).unwrap()
        };
        let one = write("one", "--seed 5 --threads 1");
        assert!(one == write("three", "--seed 5 --threads 3"), "{set}");
        assert!(one != write("other", "--seed 6"), "{set}");
    }
}

#[test]
fn nothing_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.h5");
    fs::write(&path, "mine").unwrap();
    let done = run("darcy --samples 1 --resolution 8", &path);
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("set.h5 exists, and nothing is written over"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    // A folder that is not there.
    let done = run("darcy --samples 1 --resolution 8", &dir.path().join("no/set.h5"));
    assert!(String::from_utf8(done.stderr).unwrap().contains("cannot write"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn wrong_options_are_said() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        ("cfd1d --eta=-1", "--eta is a number of at least 0"),
        ("cfd2d --mach inf", "--mach is a number of at least 0"),
        ("burgers --end 0", "--end is a time above 0"),
        ("burgers --resolution 16 --modes 5", "--modes 5 needs a --resolution of at least 20"),
        ("darcy --resolution 3", "3 is not in 4..=4096"),
        ("cfd1d --frames 1", "1 is not in 2..=10000"),
        ("darcy --frames 5", "unexpected argument '--frames'"),
        ("cfd3d", "unrecognized subcommand"),
    ] {
        let said = refused(arguments, dir.path());
        assert!(said.contains(part), "{arguments}: {said}");
    }
    let help =
        Command::new(env!("CARGO_BIN_EXE_evenkeel-trainer")).args(["generate", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("evenkeel-trainer generate cfd1d --output cfd1d.h5"), "{help}");
    let bare = command("darcy").output().unwrap();
    assert!(String::from_utf8(bare.stderr).unwrap().contains("--output <FILE>"));
}

/// A gas that is torn apart leaves no file, and the message names the sample.
#[test]
fn a_sample_that_cannot_be_computed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused("cfd1d --mach 1e6 --eta 0 --zeta 0 --resolution 16 --samples 4", dir.path());
    assert!(said.contains("error: sample ") && said.contains("no longer positive after t = 0."), "{said}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, partial) = (dir.path().join("set.h5"), dir.path().join("set.h5.partial"));
    let mut command = command("cfd1d --samples 100000");
    let mut child = command.arg("--output").arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !partial.exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("interrupted; nothing was written."), "{said}");
    let left: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
