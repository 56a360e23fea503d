//! Tensors as the little-endian bytes that files hold, and back.

use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// The elements, row by row.
///
/// # Errors
/// What libtorch says.
pub fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// The name of a tensor's type in safetensors.
///
/// # Errors
/// [`Error::Option`] for a type that the format does not have.
pub fn dtype(kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        other => return Err(Error::Option(format!("tensors of type {other:?} cannot be stored."))),
    })
}
