//! Files that somebody will rely on: written, and on the disk before anybody is told of them. Tensors are in the
//! format of safetensors.

use std::fs::File;
use std::path::Path;

use evenkeel::tensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::torch::{dtype, to_bytes};
use crate::training::Parameter;

/// A tensor as it stands in a file.
#[derive(Debug)]
pub(crate) struct Stored {
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// A tensor in its own type.
    pub fn tensor(name: &str, tensor: &Tensor) -> Result<Stored> {
        let shape = tensor.size().iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect();
        let (dtype, bytes) = (dtype(tensor.f_kind()?)?, to_bytes(tensor)?);
        Ok(Stored { name: name.to_owned(), dtype, shape, bytes })
    }

    /// A parameter as checkpoints hold it.
    pub fn parameter(parameter: &Parameter) -> Result<Stored> {
        let (dtype, shape) = parameter.stored();
        let dtype = if dtype == Dtype::C64 { safetensors::Dtype::C64 } else { safetensors::Dtype::F32 };
        Ok(Stored { name: parameter.name.clone(), dtype, shape, bytes: to_bytes(&parameter.tensor)? })
    }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).and_then(|()| File::open(path)?.sync_all()).map_err(Error::io("write", path))
}

/// Writes tensors to a file and waits until it is on the disk.
pub(crate) fn write_tensors(path: &Path, tensors: &[Stored]) -> Result<()> {
    let failed = |e: safetensors::SafeTensorError| Error::io("write", path)(std::io::Error::other(e));
    let mut views: Vec<(&str, TensorView)> = Vec::with_capacity(tensors.len());
    for Stored { name, dtype, shape, bytes } in tensors {
        views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?));
    }
    // The library makes a file that only its owner may read; this one is as any other.
    let usual = File::create(path).and_then(|file| file.metadata()).map_err(Error::io("write", path))?;
    // Not by way of a second copy of all of it in memory.
    safetensors::serialize_to_file(views, None, path).map_err(failed)?;
    std::fs::set_permissions(path, usual.permissions()).map_err(Error::io("write", path))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}

/// Reads all tensors of a file that [`write_tensors`] wrote.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let failed = |e: safetensors::SafeTensorError| Error::io("read", path)(std::io::Error::other(e));
    let mut tensors = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).map_err(failed)?.iter() {
        let shape: Vec<i64> = view.shape().iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
        let kind = kind(view.dtype()).ok_or_else(|| {
            Error::io("read", path)(std::io::Error::other(format!("{name} has a type that no state has")))
        })?;
        tensors.push((name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?));
    }
    Ok(tensors)
}

/// The types that a state holds.
fn kind(dtype: safetensors::Dtype) -> Option<Kind> {
    let kinds = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Bool];
    kinds.into_iter().find(|kind| crate::torch::dtype(*kind).is_ok_and(|d| d == dtype))
}
