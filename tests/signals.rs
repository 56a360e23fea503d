//! Files that change while they are read: whatever changes, and however they are read, the run ends
//! with exit code 2 and a sentence that names the file, and leaves nothing half done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};

use common::fixture;
use evenkeel::{Checkpoint, Error, OpenOptions, Settings, Silent};

/// Copies the files of a fixture's directory, or one file, into a directory of its own.
fn copy(from: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    if from.is_file() {
        let path = dir.path().join(from.file_name().unwrap());
        std::fs::copy(from, &path).unwrap();
        return (dir, path);
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().to_path_buf();
    (dir, path)
}

/// Moves a file's time by the smallest step that its file system keeps.
fn touch(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.set_modified(time + std::time::Duration::from_micros(1)).unwrap();
}

/// Asserts that both commands notice what `change` does to an open checkpoint, and name the file.
#[track_caller]
fn noticed(from: &Path, options: &OpenOptions, change: impl Fn(&Path), file: &str) {
    let settings = Settings { min_eigenvalues: Some(4), ..Settings::default() };
    for mmap in [true, false] {
        let (_dir, path) = copy(from);
        let checkpoint = Checkpoint::open(&path, &OpenOptions { mmap, ..options.clone() }).unwrap();
        evenkeel::inventory(&checkpoint, &settings).unwrap();
        change(if path.is_dir() { &path } else { path.parent().unwrap() });
        let analysis = evenkeel::analyze(&checkpoint, &settings, &Silent).map(|_| ());
        let inventory = evenkeel::inventory(&checkpoint, &settings).map(|_| ());
        for result in [analysis, inventory] {
            match result {
                Err(Error::Changed { path }) => assert!(path.ends_with(file), "{}", path.display()),
                other => panic!("{file}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_file_of_a_checkpoint_is_watched() {
    let options = OpenOptions::default();
    let bert = fixture("layouts/bert");
    let weights = "model.safetensors";
    noticed(&bert, &options, |dir| touch(&dir.join(weights)), weights);
    noticed(&bert, &options, |dir| touch(&dir.join("config.json")), "config.json");
    noticed(&bert, &options, |dir| std::fs::remove_file(dir.join(weights)).unwrap(), weights);
    let alone = bert.join(weights);
    noticed(&alone, &options, |dir| std::fs::write(dir.join("config.json"), "{}").unwrap(), "config.json");
    let moved_over = |dir: &Path| {
        std::fs::copy(dir.join(weights), dir.join("new")).unwrap();
        std::fs::rename(dir.join("new"), dir.join(weights)).unwrap();
    };
    noticed(&bert, &options, moved_over, weights);
}

#[test]
fn the_index_and_the_later_shards_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture("layouts/bert").join("model.safetensors");
    let names: Vec<String> = {
        let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
        checkpoint.tensors().iter().map(|t| t.name.clone()).collect()
    };
    std::fs::copy(&source, dir.path().join("a.safetensors")).unwrap();
    let header = br#"{"more":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let more = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    std::fs::write(dir.path().join("b.safetensors"), more).unwrap();
    let mut map: serde_json::Map<_, _> = names.into_iter().map(|n| (n, "a.safetensors".into())).collect();
    map.insert("more".to_owned(), "b.safetensors".into());
    let index = "model.safetensors.index.json";
    std::fs::write(dir.path().join(index), serde_json::json!({"weight_map": map}).to_string()).unwrap();
    let options = OpenOptions::default();
    noticed(dir.path(), &options, |dir| touch(&dir.join(index)), index);
    noticed(dir.path(), &options, |dir| touch(&dir.join("b.safetensors")), "b.safetensors");
}

#[test]
fn the_other_files_of_a_model_are_watched() {
    let options = OpenOptions::default();
    let onnx = fixture("onnx/external");
    for file in ["model.onnx", "model.onnx_data"] {
        noticed(&onnx, &options, |dir| touch(&dir.join(file)), file);
    }
    let data = "model.onnx_data";
    noticed(&onnx, &options, |dir| std::fs::remove_file(dir.join(data)).unwrap(), data);
    // Three parts, named by the first.
    for number in 1..=3 {
        let part = format!("split-0000{number}-of-00003.gguf");
        let change = |dir: &Path| touch(&dir.join(&part));
        let (_dir, path) = copy_of_parts();
        noticed(&path, &options, change, &part);
    }
}

/// The fixture of a split GGUF file in a directory of its own, which holds nothing else.
fn copy_of_parts() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        let part = format!("split-0000{number}-of-00003.gguf");
        std::fs::copy(fixture("gguf").join(&part), dir.path().join(&part)).unwrap();
    }
    let path = dir.path().to_path_buf();
    (dir, path)
}

#[cfg(target_os = "linux")]
mod shortened {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Far more than can be measured before the test has seen the process start: a sparse file, which
    /// takes no room on the disk.
    const MATRICES: usize = 256;
    const SIDE: usize = 1024;

    fn large(path: &Path) {
        let bytes = 4 * SIDE * SIDE;
        let entry = |i: usize| {
            let (from, to) = (i * bytes, (i + 1) * bytes);
            format!(
                r#""model.layers.{i}.mlp.weight":{{"dtype":"F32","shape":[{SIDE},{SIDE}],"data_offsets":[{from},{to}]}}"#
            )
        };
        let header = format!("{{{}}}", (0..MATRICES).map(entry).collect::<Vec<_>>().join(","));
        std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
        let length = 8 + header.len() + MATRICES * bytes;
        File::options().write(true).open(path).unwrap().set_len(length as u64).unwrap();
    }

    fn start(arguments: &[&str], model: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        // OpenBLAS, where it is linked, starts threads of its own at once: a second one must mean a worker.
        command.args(arguments).arg(model).env("NO_COLOR", "1").env("OPENBLAS_NUM_THREADS", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits for a state of a process that is still running.
    #[track_caller]
    fn until(child: &mut Child, what: &str, reached: impl Fn(u32) -> bool) {
        let patience = Instant::now() + Duration::from_secs(60);
        while !reached(child.id()) {
            if let Some(status) = child.try_wait().unwrap() {
                let mut message = String::new();
                child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
                panic!("it ended before it {what}: {status}: {message}");
            }
            assert!(Instant::now() < patience, "it never {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn maps(id: u32, model: &Path) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
        maps.contains(model.to_str().unwrap())
    }

    /// The workers start when all files are open.
    fn measures(id: u32) -> bool {
        std::fs::read_dir(format!("/proc/{id}/task")).is_ok_and(|tasks| tasks.count() > 1)
    }

    fn shorten(model: &Path, length: u64) {
        File::options().write(true).open(model).unwrap().set_len(length).unwrap();
    }

    /// Exit code 2, one sentence with the file and `part`, nothing else anywhere.
    #[track_caller]
    fn refused(done: &Output, model: &Path, part: &str) {
        let message = String::from_utf8(done.stderr.clone()).unwrap();
        assert_eq!(done.status.code(), Some(2), "{:?}: {message}", done.status);
        assert!(done.stdout.is_empty());
        assert!(message.starts_with("error: ") && message.ends_with(".\n"), "{message:?}");
        assert_eq!(message.lines().count(), 1, "{message:?}");
        assert!(message.contains(model.to_str().unwrap()) && message.contains(part), "{message:?}");
        let left: Vec<_> = std::fs::read_dir(model.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_mapped_file_that_shrinks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.safetensors");
        let report = dir.path().join("report.json");
        let analyze = ["analyze", "--format", "json", "--threads", "2", "--output", report.to_str().unwrap()];
        // While it is read; and at once, perhaps in the middle of the header. To nothing, and to a part
        // of a page, the rest of which reads as zeros.
        for (at_once, length) in [(false, 0), (true, 0), (false, 100), (true, 5000)] {
            // Half a header is not what it was; whether its other half was read before is a matter of luck.
            let part =
                if at_once { "while it was being read" } else { "became shorter while it was being read" };
            large(&model);
            let mut child = start(&analyze, &model);
            until(&mut child, "mapped the file", |id| maps(id, &model));
            if !at_once {
                until(&mut child, "measured", measures);
            }
            shorten(&model, length);
            refused(&child.wait_with_output().unwrap(), &model, part);
        }
    }

    #[test]
    fn a_file_that_shrinks_is_named_without_a_map() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.safetensors");
        large(&model);
        let mut child = start(&["analyze", "--no-mmap", "--threads", "2"], &model);
        until(&mut child, "measured", measures);
        shorten(&model, 5000);
        refused(&child.wait_with_output().unwrap(), &model, "changed while it was being read");
    }

    /// A signal that does not come from a file ends the program as it always did.
    #[test]
    fn other_faults_are_not_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.safetensors");
        large(&model);
        let mut child = start(&["analyze", "--threads", "2"], &model);
        until(&mut child, "measured", measures);
        let patience = Instant::now() + Duration::from_secs(60);
        let status = loop {
            // Our handler gives way to that of the standard library, and that one to the default.
            let _ = Command::new("kill").args(["-BUS", &child.id().to_string()]).status().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < patience, "it never ended");
        };
        const SIGBUS: i32 = 7;
        assert_eq!(status.signal(), Some(SIGBUS), "{status:?}");
    }
}
