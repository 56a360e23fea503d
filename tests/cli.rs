//! The command line as a user types it: every command, format and error in `tests/cmd/`.
//! `TRYCMD=overwrite cargo test --test cli` writes the expected output anew; read the difference.
#![allow(clippy::expect_used)]

mod common;

use std::process::Command;

#[test]
fn commands() {
    let cases = trycmd::TestCases::new();
    cases.case("tests/cmd/*.trycmd");
    // The cache is named outright: the developer's own must not answer.
    cases.env("HF_HUB_CACHE", "tests/cmd/hub").env("NO_COLOR", "1").env("COLUMNS", "100");
}

/// The program with these arguments, its stdout and its exit code.
fn run(arguments: &[&str]) -> (Vec<u8>, Option<i32>) {
    let done = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().expect("it runs");
    (done.stdout, done.status.code())
}

#[test]
fn same_bytes_for_any_number_of_threads_and_any_way_of_reading() {
    common::minilm();
    for format in ["json", "csv", "table"] {
        let base = ["analyze", "fixtures/cache/minilm", "--format", format];
        let (expected, code) = run(&base);
        assert_eq!(code, Some(0));
        for extra in [&["--threads", "1"][..], &["--threads", "2"], &["--threads", "7"], &["--no-mmap"], &[]]
        {
            let (found, _) = run(&[&base[..], extra].concat());
            assert!(found == expected, "{format} {extra:?}");
        }
    }
}

#[test]
fn output_goes_to_a_file_whole_and_without_styles() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("report.txt");
    let target = path.to_str().expect("a name");
    std::fs::write(&path, "old").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["analyze", "fixtures/silero-vad", "--output", target, "--max-alpha", "1.5"]);
    let done = command.env("CLICOLOR_FORCE", "1").output().expect("it runs");
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(stderr.contains("gate: max-alpha: block conv2.weight has 1.68"), "{stderr}");
    let text = std::fs::read_to_string(&path).expect("written");
    assert!(text.contains("gate failed") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1);
}

/// Neither the index nor the configuration is overwritten, and a pipe stays a pipe.
#[cfg(unix)]
#[test]
fn output_never_replaces_an_input_or_a_special_file() {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir("fixtures/layouts/sharded-bert").expect("a layout") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let checkpoint = dir.path().to_str().expect("a name");
    for name in ["model.safetensors.index.json", "config.json", "model-00001-of-00002.safetensors"] {
        let target = dir.path().join(name);
        let before = std::fs::read(&target).expect("it is there");
        let (_, code) = run(&["inspect", checkpoint, "--output", target.to_str().expect("a name")]);
        assert_eq!(code, Some(2), "{name}");
        assert_eq!(std::fs::read(&target).expect("it is there"), before);
    }
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).expect("readable")
    });
    let (_, code) = run(&["inspect", checkpoint, "--output", pipe.to_str().expect("a name")]);
    assert_eq!(code, Some(0));
    assert!(reader.join().expect("read").contains("bert.pooler.dense.weight"));
    let (stdout, _) = run(&["inspect", checkpoint, "--output", "-", "--output", "-"]);
    assert!(!stdout.is_empty());
}

#[test]
fn colour_is_kept_only_where_it_is_wanted() {
    let coloured = |variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let done = command.args(["analyze", "fixtures/silero-vad"]).env(variable, "1").output();
        done.expect("it runs").stdout.contains(&0x1b)
    };
    assert!(coloured("CLICOLOR_FORCE"));
    assert!(!coloured("NO_COLOR"));
    assert!(!coloured("UNUSED"), "stdout is no terminal");
}

/// `evenkeel … | head` must not end in an error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_failure() {
    let script = format!(
        "{} inspect fixtures/cache/minilm --format json | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_evenkeel")
    );
    let done = Command::new("bash").args(["-c", &script]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "0");
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    // But a gate's verdict does not depend on who reads the report.
    let script = format!(
        "{} analyze fixtures/layouts/gpt2 --min-eigenvalues 4 --max-alpha-std 0 --format json | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_evenkeel")
    );
    let done = Command::new("bash").args(["-c", &script]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "1");
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("gate: max-alpha-std"));
}
