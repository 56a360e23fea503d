//! Why a reader stopped, before the file and the format are named.

use std::path::Path;

use crate::error::Error;

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Problem {
    /// The system refused.
    Read(Error),
    /// A rule of the format is broken; a sentence without its end.
    Rule(String),
    /// The file is what it should be, but nothing that can be read; a sentence without its end.
    Unusable(String),
}

/// The result of a reader's steps.
pub(super) type Checked<T> = std::result::Result<T, Problem>;

/// A broken rule.
pub(super) fn rule<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Problem::Rule(reason.into()))
}

/// A file that cannot be used.
pub(super) fn unusable<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Problem::Unusable(reason.into()))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Read(error)
    }
}

impl Problem {
    /// The error, now that the file is known.
    pub fn of(self, path: &Path, format: &'static str) -> Error {
        let path = path.to_path_buf();
        match self {
            Problem::Read(error) => error,
            Problem::Rule(reason) => Error::Malformed { path, format, reason },
            Problem::Unusable(reason) => Error::NoCheckpoint { path, reason: format!("{reason}.") },
        }
    }
}
