//! The models that a run writes on its way, of which one is the result in the end.
//!
//! Each has a directory of its own, named by its step. It stays until a saved state names another: so a run that was
//! killed goes on with the model that its state tells of, and never with one of steps that were lost.

use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::state::remove;
use crate::error::{Error, Result};

const PREFIX: &str = "model-";

/// Where the models of a run lie.
#[derive(Clone, Debug)]
pub struct Models {
    directory: PathBuf,
}

impl Models {
    /// Models in a directory that exists.
    pub fn in_directory(directory: &Path) -> Models {
        Models { directory: directory.to_path_buf() }
    }

    /// Writes the model as it is after so many steps; returns its name. One that was not finished is named by no state.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, problem: &dyn Problem, step: u64) -> Result<String> {
        let name = format!("{PREFIX}{step}");
        let place = self.path(&name);
        remove(&place)?;
        std::fs::create_dir(&place).map_err(Error::io("create", &place))?;
        problem.write(&place)?;
        Ok(name)
    }

    /// Removes all of them but the one of this name.
    ///
    /// # Errors
    /// Those of reading and removing directories.
    pub fn keep_only(&self, name: Option<&str>) -> Result<()> {
        for entry in std::fs::read_dir(&self.directory).map_err(Error::io("read", &self.directory))? {
            let entry = entry.map_err(Error::io("read", &self.directory))?.file_name();
            if let Some(other) = entry.to_str().filter(|entry| is_ours(entry) && Some(*entry) != name) {
                remove(&self.path(other))?;
            }
        }
        Ok(())
    }

    /// Where the model of a name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Whether a directory is of a model, or of one that was not finished: those begin with a dot while they are written.
fn is_ours(entry: &str) -> bool {
    let name = entry.strip_prefix('.').and_then(|name| name.strip_suffix(".partial")).unwrap_or(entry);
    let step = name.strip_prefix(PREFIX).unwrap_or_default();
    !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Killed after a model was written and before a state named it, or while it was written.
    #[test]
    fn what_no_state_names_goes_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let models = Models::in_directory(directory.path());
        let ours = ["model-3", "model-30", "model-6", ".model-6.partial"];
        let others = ["state", "model-3-copy", "model-", "model-x"];
        for name in ours.into_iter().chain(others) {
            std::fs::create_dir(models.path(name)).unwrap();
        }
        models.keep_only(Some("model-3")).unwrap();
        assert_eq!(ours.map(|name| models.path(name).is_dir()), [true, false, false, false]);
        models.keep_only(None).unwrap();
        assert!(!models.path("model-3").exists());
        assert!(others.iter().all(|name| models.path(name).is_dir()));
    }
}
