//! A checkpoint that was never a file, wholly or in part: the weights of a model in training.

use std::collections::{HashMap, HashSet};

use super::{Checkpoint, Files, ModelConfig, OpenOptions, names, refuse_duplicates};
use crate::adapters::{Adapter, Merge};
use crate::error::{Error, Result};
use crate::tensors::{Content, Dtype, Tensor};
use crate::text::{natural_cmp, printable, shape as dimensions};

/// What reports and messages call the format.
const FORMAT: &str = "in-memory checkpoint";

/// A tensor in memory: name, type, shape and the row-major elements in little-endian bytes.
pub type Held = (String, Dtype, Vec<usize>, Vec<u8>);

impl Checkpoint {
    /// A checkpoint of tensors in memory: name, type, shape and the row-major elements in little-endian
    /// bytes, which are kept as they are. An analysis of it gives the numbers that a file with the same
    /// tensors, and `config` beside it, would give.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a tensor has another number of bytes than its type and shape ask for, or
    /// two have the same name.
    ///
    /// # Examples
    /// ```
    /// use evenkeel::Checkpoint;
    /// use evenkeel::tensors::Dtype;
    ///
    /// let tensor = ("fc.weight".to_owned(), Dtype::F32, vec![2, 3], vec![0; 24]);
    /// assert_eq!(Checkpoint::in_memory(None, vec![tensor])?.tensors().len(), 1);
    /// # Ok::<(), evenkeel::Error>(())
    /// ```
    pub fn in_memory(config: Option<ModelConfig>, tensors: Vec<Held>) -> Result<Checkpoint> {
        let mut files = Files::new(&OpenOptions::default());
        let mut found = hold(&mut files, tensors)?;
        refuse_duplicates(&found, &files)?;
        found.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        Ok(Checkpoint {
            path: String::new(),
            format: FORMAT,
            revision: None,
            config,
            files,
            companions: Vec::new(),
            tensors: found,
            left_out: Vec::new(),
            adapters: Vec::new(),
            set_aside: HashMap::new(),
        })
    }

    /// This checkpoint with a LoRA adapter in memory added to it, as [`OpenOptions::adapters`] adds one from a
    /// file: `config` is the text of its `adapter_config.json`, and `adapter` has the tensors of its file. The
    /// base's files are shared, and nothing is merged before a matrix is measured. `scale` is as
    /// [`OpenOptions::adapter_scale`]. With `only`, tensors of other names are left out.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::NoCheckpoint`] where it is no adapter, [`Error::Adapter`] where it does
    /// not fit.
    pub fn adapted(
        &self,
        config: &[u8],
        adapter: Vec<Held>,
        scale: Option<f64>,
        only: Option<&[&str]>,
    ) -> Result<Checkpoint> {
        let mut files = self.files.clone();
        let adapter = Adapter::in_memory(config, hold(&mut files, adapter)?, scale)?;
        let mut merge = Merge::new(self.tensors.clone(), self.config.as_ref());
        merge.add(adapter)?;
        let (mut tensors, left_out) = merge.finish();
        if let Some(only) = only {
            let only: HashSet<&str> = only.iter().copied().collect();
            tensors.retain(|tensor| names(tensor).any(|name| only.contains(name)));
        }
        tensors.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        Ok(Checkpoint {
            path: self.path.clone(),
            format: self.format,
            revision: self.revision.clone(),
            config: self.config.clone(),
            files,
            companions: self.companions.clone(),
            tensors,
            left_out: self.left_out.iter().cloned().chain(left_out).collect(),
            adapters: self.adapters.clone(),
            set_aside: self.set_aside.clone(),
        })
    }
}

/// Takes tensors among the files of a checkpoint.
fn hold(files: &mut Files, tensors: Vec<Held>) -> Result<Vec<Tensor>> {
    let mut found = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in tensors {
        let elements = shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
        let bits = elements.and_then(|count| count.checked_mul(dtype.bits()));
        let (Some(elements), true) = (elements, bits == bytes.len().checked_mul(8)) else {
            return Err(Error::Malformed {
                path: (&name).into(),
                format: FORMAT,
                reason: format!(
                    "the tensor `{}` of type {} and shape {} does not take {} bytes",
                    printable(&name),
                    dtype.name(),
                    dimensions(&shape),
                    bytes.len()
                ),
            });
        };
        let range = 0..bytes.len() as u64;
        let content = Content::Stored { file: files.hold(&name, bytes), bytes: range };
        found.push(Tensor { name, dtype, shape, elements, content, aliases: Vec::new() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_to_fit_the_shape() {
        let open = |shape: &[usize], bytes: usize| {
            Checkpoint::in_memory(None, vec![("w".to_owned(), Dtype::F32, shape.to_vec(), vec![0; bytes])])
        };
        assert!(open(&[2, 3], 24).is_ok());
        assert!(open(&[], 4).is_ok());
        assert!(open(&[0, 3], 0).is_ok());
        for (shape, bytes) in [(&[2, 3][..], 23), (&[2, 3], 0), (&[usize::MAX, 2], 0), (&[usize::MAX], 8)] {
            let error = open(shape, bytes).unwrap_err().to_string();
            assert!(error.contains("the tensor `w` of type F32"), "{error}");
        }
    }

    #[test]
    fn a_name_occurs_once() {
        let tensor = || ("w".to_owned(), Dtype::U8, vec![1], vec![0]);
        assert!(matches!(
            Checkpoint::in_memory(None, vec![tensor(), tensor()]),
            Err(Error::Malformed { .. })
        ));
    }

    #[test]
    fn it_never_changes() {
        let tensor = ("w".to_owned(), Dtype::F32, vec![1], vec![0, 0, 128, 63]);
        let checkpoint = Checkpoint::in_memory(None, vec![tensor]).unwrap();
        checkpoint.verify_unchanged().unwrap();
        assert_eq!(&*checkpoint.read(&checkpoint.tensors()[0], 0..1).unwrap(), &1f32.to_le_bytes());
        assert!(checkpoint.read(&checkpoint.tensors()[0], 0..2).is_err());
    }
}
