//! What can go wrong. Every message is a whole sentence that names the file and the place, and,
//! where there is something to do about it, says what.

use std::path::PathBuf;

use crate::text::printable;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be read or analysed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open or read a file.
    #[error("cannot {action} {}: {cause}.", shown(.path))]
    Io {
        /// What was being done: `open`, `read`, `map`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason; part of the message, and so not its source.
        cause: std::io::Error,
    },
    /// PATH names nothing that could be a checkpoint.
    #[error("{0}")]
    NotFound(String),
    /// PATH exists, but holds no checkpoint, or more than one.
    #[error("{}: {reason}", shown(.path))]
    NoCheckpoint {
        /// The file or directory.
        path: PathBuf,
        /// What is there instead, and what to do.
        reason: String,
    },
    /// A file breaks the rules of its format.
    #[error("{} is not a valid {format} file: {reason}.", shown(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format that it claims to be.
        format: &'static str,
        /// The rule that is broken, and where.
        reason: String,
    },
    /// The index and the shards of a checkpoint contradict each other.
    #[error("{} does not agree with its shards: {reason}.", shown(.path))]
    Index {
        /// The index file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// An adapter is not one of the base checkpoint that it was given with.
    #[error("the adapter {} does not fit the base checkpoint: {reason}.", shown(.path))]
    Adapter {
        /// The adapter's weights.
        path: PathBuf,
        /// What the base does not hold, or holds in another shape.
        reason: String,
    },
    /// A file's size or modification time changed while it was being read.
    #[error("{} changed while it was being read; run again when nothing writes to it.", shown(.path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A setting has no meaning, for instance a tail fraction above 1.
    #[error("{0}")]
    Setting(String),
    /// The eigenvalue iteration of a matrix did not converge.
    #[error("the eigenvalues of {} did not converge ({engine} engine); try the other --engine, and please report this.", printable(.matrix))]
    NoConvergence {
        /// The matrix.
        matrix: String,
        /// The engine that failed.
        engine: &'static str,
    },
    /// A threshold was given, but what it asks about does not exist in this checkpoint.
    #[error("{0}")]
    Gate(String),
    /// A report could not be written in the chosen format.
    #[error("cannot write the report: {0}.")]
    Report(String),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |cause| Error::Io { action, path, cause }
    }
}

/// A path for an error message: printable, whatever bytes the file system allows in it.
pub(crate) fn shown(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}
