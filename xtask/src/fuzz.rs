//! `cargo xtask fuzz`: runs the targets of `fuzz/` for a while each, with the stable toolchain alone.
//!
//! The package has the layout of cargo-fuzz, and `cargo +nightly fuzz run TARGET` runs it with the
//! address sanitizer, too. Stable has no sanitizers, but it has the coverage that libFuzzer is led by
//! (`fuzz/rustc.sh`), and there is no unsafe code of our own for a sanitizer to look into.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, cargo, root, run};

/// Seconds for each target where none are given.
const SECONDS: u32 = 10;

/// Every input is handled within 5 seconds and half a gigabyte, libFuzzer's own memory included.
const LIMITS: &[&str] = &["-timeout=5", "-rss_limit_mb=512", "-max_len=65536"];

/// The longest seed, in bytes: inputs are no longer, either.
const MAX_SEED: usize = 65536;

/// Makes a seed out of a fixture.
type Seed = fn(&Path, Vec<u8>) -> Option<Vec<u8>>;

/// The seeds of each target: fixtures whose paths end so, and what the target takes of them. Others
/// stand in `fuzz/seeds/TARGET`.
const SEEDS: &[(&str, &str, Seed)] = &[
    ("adapter", "/adapter_model.safetensors", header),
    ("adapter_config", "/adapter_config.json", whole),
    ("arrays", ".h5", whole),
    ("config", "/config.json", whole),
    ("gguf", ".gguf", whole),
    ("hdf5", ".h5", whole),
    ("index", ".index.json", whole),
    ("keras", ".keras", whole),
    ("npy", ".npy", whole),
    ("npz", ".npz", whole),
    ("onnx", ".onnx", whole),
    ("pickle", ".pt", pickle),
    ("quantised", "/model.safetensors", configured),
    ("safetensors", ".safetensors", whole),
    ("safetensors_header", "/model.safetensors", header),
    ("torch", ".ckpt", whole),
    ("torch", ".pt", whole),
];

/// Runs one target or all of them; arguments: `[TARGET] [SECONDS]`.
pub fn fuzz(rest: &[String]) -> Result {
    let (mut chosen, mut seconds) = (targets()?, SECONDS);
    for argument in rest {
        if let Ok(number) = argument.parse() {
            seconds = number;
        } else if chosen.contains(argument) {
            chosen = vec![argument.clone()];
        } else {
            return Err(format!("there is no target `{argument}`; the targets are {}", chosen.join(", ")));
        }
    }
    let binaries = build()?;
    let memory = scratch()?;
    let done = chosen.iter().try_for_each(|target| seeds(target)).and_then(|()| {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        chosen.chunks(at_once).try_for_each(|targets| together(targets, &binaries, &memory, seconds))
    });
    let _ = std::fs::remove_dir_all(&memory);
    done
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let mut names: Vec<String> = files(&root().join("fuzz/fuzz_targets"))?
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds every target, and gives the directory of the programs.
///
/// In the profile of the tests: with its checks of arithmetic, and with the dependencies that are
/// built for them anyway. Only the workspace's own crates are instrumented, by a wrapper of rustc.
fn build() -> Result<PathBuf> {
    run(cargo()
        .args(["build", "--package", "evenkeel-fuzz", "--bins"])
        .env("CARGO_TARGET_DIR", root().join("target"))
        .env("RUSTC_WORKSPACE_WRAPPER", root().join("fuzz/rustc.sh")))?;
    Ok(root().join("target/debug"))
}

/// Runs some targets at the same time, and reports each.
fn together(targets: &[String], binaries: &Path, memory: &Path, seconds: u32) -> Result {
    let mut running = Vec::new();
    for target in targets {
        let artifacts = root().join("fuzz/artifacts").join(target);
        std::fs::create_dir_all(&artifacts).map_err(|e| format!("{}: {e}", artifacts.display()))?;
        let log = memory.join(format!("{target}.log"));
        let file = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let mut command = Command::new(binaries.join(target));
        command
            .arg(root().join("fuzz/corpus").join(target))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .args(LIMITS)
            .env("TMPDIR", memory)
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn().map_err(|e| format!("cannot run {target}: {e}"))?;
        running.push((target, child, log));
    }
    let mut findings = Vec::new();
    for (target, mut child, log) in running {
        let status = child.wait().map_err(|e| format!("{target}: {e}"))?;
        let log = std::fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let statistic = |name: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.map_or("?", |rest| rest.trim_start_matches(':').trim()).to_owned()
        };
        println!(
            "{target}: {} inputs, {} of them new, {} MB at most",
            statistic("number_of_executed_units"),
            statistic("new_units_added"),
            statistic("peak_rss_mb")
        );
        if !status.success() {
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            println!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            findings.push(target.as_str());
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(format!("findings in {}: the inputs are in fuzz/artifacts/", findings.join(", ")))
}

/// A directory in memory where the system has one: targets write every input to a file.
fn scratch() -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
    let path = parent.join(format!("evenkeel-fuzzing-{}", std::process::id()));
    std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// Puts a target's seeds into its corpus.
fn seeds(target: &str) -> Result {
    let corpus = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
    let put = |path: &Path, make: Seed| -> Result {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let Some(seed) = make(path, bytes).filter(|seed| seed.len() <= MAX_SEED) else { return Ok(()) };
        let relative = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace(['/', '\\'], "_");
        let file = corpus.join(relative);
        std::fs::write(&file, seed).map_err(|e| format!("{}: {e}", file.display()))
    };
    for path in files(&root().join("fuzz/seeds").join(target))? {
        put(&path, whole)?;
    }
    let fixtures = files(&root().join("fixtures"))?;
    for (_, ending, make) in SEEDS.iter().filter(|(name, ..)| *name == target) {
        for path in fixtures.iter().filter(|path| path.to_string_lossy().ends_with(ending)) {
            put(path, *make)?;
        }
    }
    Ok(())
}

/// All files under a directory, but those that were fetched; none where there is no directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(found) };
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", directory.display()))?.path();
        if path.is_file() {
            found.push(path);
        } else if !path.ends_with("fixtures/cache") {
            found.extend(files(&path)?);
        }
    }
    Ok(found)
}

fn whole(_: &Path, bytes: Vec<u8>) -> Option<Vec<u8>> {
    Some(bytes)
}

/// The header of a safetensors file.
fn header(_: &Path, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some(rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?.to_vec())
}

/// The configuration of a quantised checkpoint, a NUL byte, and the header of its weights.
fn configured(path: &Path, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let config = std::fs::read(path.with_file_name("config.json")).ok()?;
    let quantised = String::from_utf8_lossy(&config).contains("quant");
    quantised.then(|| Some([&config, &[0][..], &header(path, bytes)?].concat()))?
}

/// The pickle in a torch file: of a zip archive what lies between its name and the next header.
fn pickle(_: &Path, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let position = |from: usize, what: &[u8]| {
        Some(from + bytes.get(from..)?.windows(what.len()).position(|window| window == what)?)
    };
    let start = position(position(0, b"/data.pkl")?, b"\x80")?;
    Some(bytes.get(start..position(start, b"PK")?)?.to_vec())
}
