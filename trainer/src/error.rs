//! What can go wrong while training, in whole sentences.

use std::path::{Path, PathBuf};

use tch::TchError;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused a computation.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] TchError),
    /// The checkpoint, or its spectra.
    #[error(transparent)]
    Audit(#[from] evenkeel::Error),
    /// A file could not be read or written.
    #[error("cannot {verb} {path}: {source}", path = .path.display())]
    Io {
        /// `read`, `write`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row, column or label of the data.
    #[error("{path}: {reason}", path = .path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// A sentence with the place in the file.
        reason: String,
    },
    /// A column that the data does not have.
    #[error("{path}: {reason}", path = .path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// A sentence that lists the columns there are.
        reason: String,
    },
    /// The model directory holds something that cannot be trained here.
    #[error("{path}: {reason}", path = .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// A sentence that says what is supported.
        reason: String,
    },
    /// Options that do not go together, or with the model or data.
    #[error("{0}")]
    Option(String),
    /// A sample of a set that is generated.
    #[error("sample {sample}: {reason}.")]
    Sample {
        /// Its number, from 0.
        sample: usize,
        /// A sentence without its end.
        reason: String,
    },
    /// Ctrl-C while a set was generated.
    #[error("interrupted; nothing was written.")]
    Stopped,
    /// Ctrl-C; the state is saved.
    #[error("interrupted after step {step}; the same command with --resume goes on from there.")]
    Interrupted {
        /// Optimizer steps done.
        step: u64,
    },
    /// All that the model says of an example is NaN.
    #[error("what the model gives in an evaluation is NaN: its weights cannot be trained.")]
    NotANumber,
    /// The same, or weights that are not finite, after steps that had a finite loss.
    #[error(
        "the model is no longer one after step {step}: its weights, or what it gives, are NaN or infinite. The last \
             good state is kept; a lower --learning-rate or --s may help."
    )]
    Broken {
        /// Optimizer steps done.
        step: u64,
    },
    /// The loss is no longer a number.
    #[error(
        "the loss or its gradient is no longer finite at step {step} (loss {loss}): the last good state is kept; \
             a lower --learning-rate or --s may help."
    )]
    Diverged {
        /// `NaN` or `inf`.
        loss: f64,
        /// The optimizer step, from 1.
        step: u64,
    },
}

impl Error {
    /// For `map_err` on input and output.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { verb, path, source }
    }
}

/// libtorch appends its C++ stack to some messages.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
