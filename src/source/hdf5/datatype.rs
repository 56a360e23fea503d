//! Datatypes: which of them are numbers of a known type.

use super::image::Fields;
use crate::source::problem::Checked;
use crate::tensors::Dtype;

/// What the elements of a dataset are.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) enum Kind {
    /// Little-endian numbers of a known type.
    Numbers(Dtype),
    /// Bytes that say nothing of themselves: how h5py writes the types that HDF5 does not know.
    Opaque(u32),
    /// Anything else, with its description.
    Other(&'static str),
}

pub(super) fn parse(bytes: &[u8]) -> Checked<Kind> {
    let mut fields = Fields::new(bytes, "a datatype");
    let class = fields.u8()? & 15;
    let bits = [fields.u8()?, fields.u8()?, fields.u8()?];
    let size = fields.u32()?;
    let big_endian = bits[0] & 1 != 0;
    Ok(match class {
        0 if big_endian && size > 1 => Kind::Other("big-endian integers"),
        0 => integers(&mut fields, bits[0], size)?,
        1 if bits[0] & 0b100_0001 != 0 => Kind::Other("big-endian floats"),
        1 => floats(&mut fields, bits, size)?,
        3 | 9 => Kind::Other("texts, or lists of any length"),
        5 => Kind::Opaque(size),
        6 => Kind::Other("records"),
        7 => Kind::Other("references"),
        // h5py's booleans are an enumeration of two bytes.
        8 if size == 1 => Kind::Numbers(Dtype::Bool),
        8 => Kind::Other("an enumeration"),
        _ => Kind::Other("elements of a type that is not known"),
    })
}

fn integers(fields: &mut Fields, bits: u8, size: u32) -> Checked<Kind> {
    let (offset, precision) = (fields.u16()?, fields.u16()?);
    if offset != 0 || u32::from(precision) != size.saturating_mul(8) {
        return Ok(Kind::Other("integers of an unusual width"));
    }
    let signed = bits & 1 << 3 != 0;
    Ok(match (size, signed) {
        (1, true) => Kind::Numbers(Dtype::I8),
        (1, false) => Kind::Numbers(Dtype::U8),
        (2, true) => Kind::Numbers(Dtype::I16),
        (2, false) => Kind::Numbers(Dtype::U16),
        (4, true) => Kind::Numbers(Dtype::I32),
        (4, false) => Kind::Numbers(Dtype::U32),
        (8, true) => Kind::Numbers(Dtype::I64),
        (8, false) => Kind::Numbers(Dtype::U64),
        _ => Kind::Other("integers of an unusual width"),
    })
}

/// A float is what its parts say: where its sign, exponent and mantissa lie, and the exponent's bias.
fn floats(fields: &mut Fields, bits: [u8; 3], size: u32) -> Checked<Kind> {
    const IMPLIED_ONE: u8 = 2;
    let (offset, precision) = (fields.u16()?, fields.u16()?);
    let parts = [fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?];
    let bias = fields.u32()?;
    let whole = offset == 0 && u32::from(precision) == size.saturating_mul(8);
    let normal = bits[0] >> 4 & 3 == IMPLIED_ONE && u32::from(bits[1]) + 1 == size.saturating_mul(8);
    Ok(match (size, parts, bias) {
        _ if !whole || !normal => Kind::Other("floats of an unusual layout"),
        (2, [10, 5, 0, 10], 15) => Kind::Numbers(Dtype::F16),
        (2, [7, 8, 0, 7], 127) => Kind::Numbers(Dtype::BF16),
        (4, [23, 8, 0, 23], 127) => Kind::Numbers(Dtype::F32),
        (8, [52, 11, 0, 52], 1023) => Kind::Numbers(Dtype::F64),
        _ => Kind::Other("floats of an unusual layout"),
    })
}
