//! The directory of a run: what stands there before, during and after it.
//!
//! ```text
//! OUT/                 config.json, tokenizer, model.safetensors: the result, once there is one;
//!                      or adapter_config.json, adapter_model.safetensors
//! OUT/report.json      what happened
//! OUT/training/        log.csv, log.jsonl, events…, state/, model-STEP/ until the end, samples/ (of fields)
//! ```

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The report's file name.
pub const REPORT: &str = "report.json";

/// What makes a directory a model, or an adapter.
const CONFIGURATIONS: [&str; 2] = ["config.json", "adapter_config.json"];

/// An output directory.
#[derive(Clone, Debug)]
pub struct Output {
    directory: PathBuf,
}

impl Output {
    /// Checks the directory before any work: a fresh run needs one that does not exist or is empty, and one
    /// that is resumed needs what the run left.
    ///
    /// # Errors
    /// [`Error::Option`] where it is not as needed.
    pub fn check(directory: &Path, model: Option<&Path>, resume: bool) -> Result<Output> {
        let output = Output { directory: directory.to_path_buf() };
        let same =
            |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if model.is_some_and(|model| same(directory, model)) {
            return Err(Error::Option(
                "--output is the model itself, which is never written; name another directory.".to_owned(),
            ));
        }
        if resume && !output.training().is_dir() {
            return Err(Error::Option(format!(
                "{} holds no run to resume; without --resume a new one starts there.",
                directory.display()
            )));
        }
        if !resume && directory.exists() {
            let mut entries = std::fs::read_dir(directory).map_err(Error::io("read", directory))?;
            if entries.next().is_some() {
                return Err(Error::Option(format!(
                    "the output directory {} is not empty; name another one, or go on with --resume.",
                    directory.display()
                )));
            }
        }
        Ok(output)
    }

    /// Makes it.
    ///
    /// # Errors
    /// Those of creating directories.
    pub fn create(&self) -> Result<()> {
        let training = self.training();
        std::fs::create_dir_all(&training).map_err(Error::io("create", &training))
    }

    /// Where logs and states go.
    pub fn training(&self) -> PathBuf {
        self.directory.join("training")
    }

    /// Where pictures of evaluation samples go.
    pub fn samples(&self) -> PathBuf {
        self.training().join("samples")
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves the files of a finished model or adapter up into the directory, the configuration last: a
    /// directory without one is neither yet. Where that was done before, nothing is left to do.
    ///
    /// # Errors
    /// Those of renaming.
    pub fn install(&self, model: &Path) -> Result<()> {
        if !model.exists() && CONFIGURATIONS.iter().any(|name| self.directory.join(name).is_file()) {
            return Ok(());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(model).map_err(Error::io("read", model))? {
            files.push(entry.map_err(Error::io("read", model))?.file_name());
        }
        files.sort_by_key(|name| CONFIGURATIONS.iter().any(|configuration| name == configuration));
        for name in files {
            let from = model.join(&name);
            std::fs::rename(&from, self.directory.join(&name)).map_err(Error::io("move", &from))?;
        }
        std::fs::remove_dir(model).map_err(Error::io("remove", model))
    }

    /// Writes the report beside its place, and then into it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_report(&self, json: &[u8]) -> Result<()> {
        let (place, partial) = (self.directory.join(REPORT), self.directory.join("report.json.partial"));
        std::fs::write(&partial, json).map_err(Error::io("write", &partial))?;
        std::fs::rename(&partial, &place).map_err(Error::io("write", &place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_exists_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (model, out) = (dir.path().join("model"), dir.path().join("out"));
        std::fs::create_dir(&model).unwrap();
        let message = |out: &Path, resume| Output::check(out, Some(&model), resume).unwrap_err().to_string();
        assert!(message(&model, false).contains("is the model itself"));
        assert!(message(&out, true).contains("holds no run to resume"));
        let output = Output::check(&out, None, false).unwrap();
        output.create().unwrap();
        assert!(message(&out, false).contains("is not empty"));
        assert!(Output::check(&out, Some(&model), true).is_ok());
    }

    #[test]
    fn a_result_is_moved_with_its_configuration_last() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::check(&dir.path().join("out"), None, false).unwrap();
        output.create().unwrap();
        let best = output.training().join("model-3");
        std::fs::create_dir(&best).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::write(best.join(name), name).unwrap();
        }
        output.install(&best).unwrap();
        assert!(!best.exists() && output.directory().join("model.safetensors").is_file());
        assert!(output.directory().join("config.json").is_file());
    }
}
