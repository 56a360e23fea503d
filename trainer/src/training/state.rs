//! The state of a run on disk: what a killed run goes on from.
//!
//! A state is a directory of `state.json`, the parameters and the optimizer's tensors. It is written
//! beside its predecessor, forced to the disk, and renamed into its place; the predecessor goes last.
//! So at every moment there is one that is whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::files::{self, Stored, read_tensors};

/// Where the states of a run lie.
#[derive(Clone, Debug)]
pub struct States {
    directory: PathBuf,
}

/// A state as it was read.
#[derive(Debug)]
pub struct Saved<S> {
    /// What is no tensor.
    pub state: S,
    /// The parameters, and what else belongs to the model, by name.
    pub parameters: Vec<(String, Tensor)>,
    /// The optimizer's tensors by name.
    pub optimizer: Vec<(String, Tensor)>,
}

const STATE: &str = "state.json";
const PARAMETERS: &str = "parameters.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

impl States {
    /// States in a directory that exists.
    pub fn in_directory(directory: &Path) -> States {
        States { directory: directory.to_path_buf() }
    }

    /// Writes a state, and then takes the one before it away.
    ///
    /// # Errors
    /// Those of writing: the one before is then still there.
    pub fn save<S: Serialize>(
        &self,
        state: &S,
        parameters: &[(&str, &Tensor)],
        optimizer: &[(&str, &Tensor)],
    ) -> Result<()> {
        let [new, current, old] = ["state.new", "state", "state.old"].map(|name| self.directory.join(name));
        remove(&new)?;
        std::fs::create_dir(&new).map_err(Error::io("create", &new))?;
        let json = serde_json::to_vec_pretty(state).map_err(|e| Error::io("write", &new)(e.into()))?;
        files::write(&new.join(STATE), &json)?;
        write_tensors(&new.join(PARAMETERS), parameters)?;
        write_tensors(&new.join(OPTIMIZER), optimizer)?;
        // Where only the predecessor is left, it stays until the new one is in place.
        if current.exists() {
            remove(&old)?;
            std::fs::rename(&current, &old).map_err(Error::io("rename", &current))?;
        }
        std::fs::rename(&new, &current).map_err(Error::io("rename", &new))?;
        remove(&old)
    }

    /// The newest whole state; `None` where the run was stopped before its first.
    ///
    /// # Errors
    /// Those of reading.
    pub fn load<S: DeserializeOwned>(&self) -> Result<Option<Saved<S>>> {
        let places = ["state", "state.old"].map(|name| self.directory.join(name));
        let Some(place) = places.into_iter().find(|place| place.join(STATE).is_file()) else {
            return Ok(None);
        };
        let path = place.join(STATE);
        let json = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let state = serde_json::from_slice(&json).map_err(|e| Error::io("read", &path)(e.into()))?;
        Ok(Some(Saved {
            state,
            parameters: read_tensors(&place.join(PARAMETERS))?,
            optimizer: read_tensors(&place.join(OPTIMIZER))?,
        }))
    }
}

fn write_tensors(path: &Path, tensors: &[(&str, &Tensor)]) -> Result<()> {
    let stored = tensors.iter().map(|(name, tensor)| Stored::tensor(name, tensor));
    files::write_tensors(path, &stored.collect::<Result<Vec<_>>>()?)
}

/// Removes a directory, if it is there.
pub(super) fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Copies saved tensors into those of the same names.
///
/// # Errors
/// [`Error::Option`] where a name is missing or a shape differs: the state is of another model.
pub fn restore(saved: Vec<(String, Tensor)>, into: &[(&str, &Tensor)]) -> Result<()> {
    let saved: HashMap<String, Tensor> = saved.into_iter().collect();
    for (name, tensor) in into {
        let from = saved.get(*name).filter(|from| from.size() == tensor.size());
        let from = from.ok_or_else(|| {
            Error::Option(format!(
                "the state to resume from has no {name} of this shape: it is of another model."
            ))
        })?;
        tch::no_grad(|| tensor.shallow_clone().f_copy_(from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_bytes;

    #[test]
    fn what_is_saved_comes_back_to_the_bit() {
        let directory = tempfile::tempdir().unwrap();
        let states = States::in_directory(directory.path());
        assert!(states.load::<u64>().unwrap().is_none());
        let weights = Tensor::f_from_slice(&[1.0f32, f32::MIN_POSITIVE, -0.1]).unwrap();
        let steps = Tensor::f_from_slice(&[7i64]).unwrap();
        for step in [1u64, 2] {
            states.save(&step, &[("a.weight", &weights)], &[("step", &steps)]).unwrap();
        }
        let saved = states.load::<u64>().unwrap().unwrap();
        assert_eq!(saved.state, 2);
        assert_eq!(to_bytes(&saved.parameters[0].1).unwrap(), to_bytes(&weights).unwrap());
        assert_eq!(saved.optimizer[0].1.int64_value(&[0]), 7);
        let target = Tensor::f_from_slice(&[0.0f32; 3]).unwrap();
        restore(saved.parameters, &[("a.weight", &target)]).unwrap();
        assert_eq!(to_bytes(&target).unwrap(), to_bytes(&weights).unwrap());
    }

    /// Killed between the two renames: the predecessor is what there is.
    #[test]
    fn the_predecessor_is_found_when_the_state_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let states = States::in_directory(directory.path());
        states.save(&1u64, &[], &[]).unwrap();
        std::fs::rename(directory.path().join("state"), directory.path().join("state.old")).unwrap();
        assert_eq!(states.load::<u64>().unwrap().unwrap().state, 1);
        states.save(&2u64, &[], &[]).unwrap();
        assert_eq!(states.load::<u64>().unwrap().unwrap().state, 2);
    }

    /// Where only the predecessor is left, it stays until its successor is in place.
    #[cfg(unix)]
    #[test]
    fn the_only_state_outlives_a_save_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let states = States::in_directory(directory.path());
        let (state, old) = (directory.path().join("state"), directory.path().join("state.old"));
        states.save(&1u64, &[], &[]).unwrap();
        std::fs::rename(&state, &old).unwrap();
        // Nothing can be renamed to this.
        std::os::unix::fs::symlink("nowhere", &state).unwrap();
        assert!(states.save(&2u64, &[], &[]).is_err());
        assert_eq!(states.load::<u64>().unwrap().unwrap().state, 1);
    }
}
