//! What chunks pass through on their way to the file, undone: bytes that are sorted by their place in an
//! element (shuffle), and DEFLATE (gzip).

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::image::Fields;
use crate::source::problem::{Checked, rule};

/// One step of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Filter {
    /// In a zlib stream.
    Deflate,
    /// All first bytes of the elements, then all second ones, …; with the bytes of an element.
    Shuffle(usize),
}

/// The filters of a dataset, in the order in which they were applied.
pub(super) fn parse(bytes: &[u8]) -> Checked<Vec<Filter>> {
    /// Below this number filters are the library's own, and version 2 leaves out their names.
    const FIRST_FOREIGN: u16 = 256;
    const WHAT: &str = "a list of filters";
    let mut fields = Fields::new(bytes, WHAT);
    let version = fields.version(&[1, 2])?;
    let count = fields.u8()?;
    if version == 1 {
        fields.take(6)?;
    }
    let mut filters = Vec::new();
    for _ in 0..count {
        let id = fields.u16()?;
        let name = if version == 1 || id >= FIRST_FOREIGN { fields.u16()? } else { 0 };
        fields.u16()?; // whether it may be left out
        let values = fields.u16()?;
        let name = usize::from(name);
        fields.take(if version == 1 { name.next_multiple_of(8) } else { name })?;
        let values = (0..values).map(|_| fields.u32()).collect::<Checked<Vec<u32>>>()?;
        if version == 1 && values.len() % 2 == 1 {
            fields.u32()?;
        }
        filters.push(match (id, values.as_slice()) {
            (1, _) => Filter::Deflate,
            (2, [width, ..]) if *width > 0 => Filter::Shuffle(*width as usize),
            _ => {
                let name = match id {
                    2 => "shuffle, of unknown width",
                    3 => "fletcher32",
                    4 => "szip",
                    5 => "nbit",
                    6 => "scaleoffset",
                    32000 => "lzf",
                    _ => "unknown here",
                };
                return rule(format!(
                    "its chunks passed the filter {id} ({name}), which this version does not undo; `h5repack -f \
                     SHUF -f GZIP=4` writes them with those that it does"
                ));
            }
        });
    }
    Ok(filters)
}

/// Whether a chunk with this mask was compressed.
pub(super) fn may_deflate(filters: &[Filter], mask: u32) -> bool {
    applied(filters, mask).any(|filter| filter == Filter::Deflate)
}

fn applied(filters: &[Filter], mask: u32) -> impl DoubleEndedIterator<Item = Filter> {
    let kept = move |place: usize| mask.checked_shr(place as u32).unwrap_or(0) & 1 == 0;
    filters.iter().enumerate().filter(move |(place, _)| kept(*place)).map(|(_, filter)| *filter)
}

/// A chunk of `size` bytes out of what is stored of it.
pub(super) fn undo(filters: &[Filter], mask: u32, mut bytes: Vec<u8>, size: usize) -> Checked<Vec<u8>> {
    for filter in applied(filters, mask).rev() {
        bytes = match filter {
            Filter::Deflate => inflate(&bytes, size)?,
            Filter::Shuffle(width) => unshuffle(&bytes, width),
        };
    }
    if bytes.len() != size {
        return rule(format!("a chunk has {} bytes, not {size}", bytes.len()));
    }
    Ok(bytes)
}

/// At most one byte more than `size`: memory grows with what is there, not with what is promised.
fn inflate(bytes: &[u8], size: usize) -> Checked<Vec<u8>> {
    let mut out = Vec::new();
    match ZlibDecoder::new(bytes).take(size as u64 + 1).read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(error) => rule(format!("a chunk cannot be decompressed: {error}")),
    }
}

/// Bytes behind the last whole element stay where they are.
fn unshuffle(bytes: &[u8], width: usize) -> Vec<u8> {
    let elements = bytes.len() / width;
    let (sorted, rest) = bytes.split_at(elements * width);
    let mut out = vec![0; sorted.len()];
    if elements > 0 {
        for (place, plane) in sorted.chunks_exact(elements).enumerate() {
            for (byte, out) in plane.iter().zip(out.iter_mut().skip(place).step_by(width)) {
                *out = *byte;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_undone_from_the_last() {
        // By Python's zlib: 1, 2, 3 as i16, shuffled to the bytes 1 2 3 0 0 0.
        assert_eq!(unshuffle(&[1, 2, 3, 0, 0, 0, 9], 2), [1, 0, 2, 0, 3, 0, 9]);
        let stored = [0x78, 0x01, 0x63, 0x64, 0x62, 0x66, 0x60, 0x60, 0x00, 0x00, 0x00, 0x22, 0x00, 0x07];
        let filters = [Filter::Shuffle(2), Filter::Deflate];
        assert_eq!(undo(&filters, 0, stored.to_vec(), 6).unwrap(), [1, 0, 2, 0, 3, 0]);
        assert_eq!(undo(&filters, 1, stored.to_vec(), 6).unwrap(), [1, 2, 3, 0, 0, 0]);
        assert_eq!(undo(&filters, 3, vec![7, 8], 2).unwrap(), [7, 8]);
        assert!(undo(&filters, 0, stored.to_vec(), 5).is_err());
        assert!(undo(&filters, 0, stored.to_vec(), 7).is_err());
        assert!(undo(&filters, 0, stored[..9].to_vec(), 6).is_err());
    }
}
