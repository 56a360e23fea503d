//! How a hostile file has to be refused: by the program itself, at once, in one sentence, in little
//! memory.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used)] // outside of #[test] functions, too

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The memory that `evenkeel` may take before it refuses a file, in KiB: all that it can write to,
/// the program's own data included; a mapped file is none of it.
const MEMORY: u32 = 100_000;

/// How long it may take. The promise is one second; this is for a build that is hardly optimised,
/// on a machine that runs other tests at the same time.
const TIME: Duration = Duration::from_secs(5);

/// Processor time after which the system ends it.
const CPU_SECONDS: u32 = 20;

/// Runs `evenkeel analyze`, mapped and not, and asserts exit code 2, nothing on stdout, and on stderr
/// one sentence that names the file (or the directory) and says `part`.
#[track_caller]
pub fn refused(path: &Path, part: &str) {
    let name = path.file_name().unwrap().to_string_lossy();
    refused_with(&[], path, &name, part);
}

/// The same, with further arguments, and the name of the file that the message has to be about.
#[track_caller]
pub fn refused_with(arguments: &[&str], path: &Path, name: &str, part: &str) {
    for more in [&[][..], &["--no-mmap"]] {
        let start = Instant::now();
        let done = limited(&[arguments, more].concat(), path);
        let taken = start.elapsed();
        let message = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{part}: {} {message}", done.status);
        assert!(done.stdout.is_empty(), "{part}: something is on stdout");
        assert!(message.contains(part), "{message:?} does not say {part:?}");
        assert!(message.contains(name), "{message:?} does not name {name}");
        assert_eq!(message.matches('\n').count(), 1, "{message:?} is more than one line");
        assert!(message.starts_with("error: ") && message.ends_with(".\n"), "{message:?}");
        assert!(!message.contains('\u{1b}') && message.len() < 2000, "{message:?}");
        assert!(taken < TIME, "{part}: refused after {taken:?}");
    }
}

/// Runs `evenkeel analyze` with no more memory than it may take. Where it asks for more, the
/// allocation fails and the program aborts: that is no exit code.
fn limited(arguments: &[&str], path: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_evenkeel");
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        // The limit of processor time ends what would never end by itself.
        let limits = format!("ulimit -d {MEMORY} && ulimit -t {CPU_SECONDS} && exec \"$@\"");
        shell.args(["-c", &limits, "sh", program]);
        // One thread: the stacks of many count as memory, however little of them is used. OpenBLAS, where
        // it is linked, would start its own when it is loaded, and ask for their buffers again and again.
        shell.env("OPENBLAS_NUM_THREADS", "1");
        shell
    } else {
        Command::new(program)
    };
    command.args(["analyze", "--format", "json", "--threads", "1"]).args(arguments).arg(path);
    command.output().unwrap()
}

/// Writes a file of these bytes and asserts that it is refused; see [`refused`].
#[track_caller]
pub fn refused_bytes(name: &str, bytes: &[u8], part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    refused(&path, part);
}
