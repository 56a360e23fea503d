//! Where a rendered report goes: stdout, or a file that appears whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use evenkeel::Checkpoint;

/// Writes to stdout, or to `target`. Styles are kept only on a terminal that wants them.
pub fn write(bytes: &[u8], target: Option<&Path>) -> Result<()> {
    match target.filter(|path| *path != Path::new("-")) {
        None => {
            let mut stdout = anstream::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()?;
            Ok(())
        }
        Some(path) => replace(path, &anstream::adapter::strip_bytes(bytes).into_vec())
            .with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Refuses a target that the checkpoint was read from: inputs are never written.
pub fn refuse_input(target: Option<&Path>, checkpoint: &Checkpoint) -> Result<()> {
    let Some(target) = target else { return Ok(()) };
    // Said before the work, not after it.
    if target.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        bail!("--output {} lies in a directory that does not exist.", target.display());
    }
    let resolved = target.canonicalize();
    let same = |path: &Path| match (&resolved, path.canonicalize()) {
        (Ok(a), Ok(b)) => *a == b,
        _ => false,
    };
    if checkpoint.inputs().any(same) {
        bail!("--output {} is part of the checkpoint itself; choose another file.", target.display());
    }
    Ok(())
}

/// Writes beside the target and renames, so that no reader ever sees half a report. A link is
/// followed, and what is no regular file (a pipe, `/dev/stderr`) is written to, not replaced.
fn replace(target: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let path = target.canonicalize().unwrap_or_else(|_| target.to_path_buf());
    if path.exists() && !path.is_file() {
        return std::fs::OpenOptions::new().write(true).open(&path)?.write_all(bytes);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial: PathBuf = path.with_file_name(name);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, &path));
    if written.is_err() {
        // The report is lost either way; what must not stay is the half of it.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Whether the reader of stdout has gone away, as `head` does: that is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
