//! Dataspaces: the shapes of datasets and attributes.

use super::image::Fields;
use crate::source::problem::{Checked, rule};

/// The most dimensions that HDF5 knows.
const MAX_RANK: usize = 32;

/// A shape, or none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dataspace {
    /// No elements at all.
    Null,
    /// A scalar is of no dimensions.
    Simple(Vec<u64>),
}

impl Dataspace {
    pub fn is_scalar(&self) -> bool {
        *self == Dataspace::Simple(Vec::new())
    }
}

pub(super) fn parse(bytes: &[u8]) -> Checked<Dataspace> {
    let mut fields = Fields::new(bytes, "a dataspace");
    let version = fields.version(&[1, 2])?;
    let rank = usize::from(fields.u8()?);
    fields.u8()?; // whether largest sizes follow the sizes
    let of = fields.u8()?;
    if version == 1 {
        fields.take(4)?;
    }
    if version == 2 && of == 2 {
        return Ok(Dataspace::Null);
    }
    if rank > MAX_RANK {
        return rule(format!("it has {rank} dimensions"));
    }
    Ok(Dataspace::Simple((0..rank).map(|_| fields.u64()).collect::<Checked<_>>()?))
}
