//! Writes an HDF5 file of F32 arrays, each in one piece, whose elements come in any order.
//!
//! After the HDF Group's File Format Specification, version 3.0, in its oldest form, which every reader knows and which
//! has no checksums: superblock 0, one group with a symbol table, headers of version 1. All sizes are
//! known before the first element, so that nothing has to be kept in memory, and threads write where they are.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

/// The address that stands for none.
const UNDEFINED: u64 = u64::MAX;

/// Half of the entries that a node of symbols has room for, and of the children of a node of the tree.
const LEAF: u16 = 16;
const INTERNAL: u16 = 16;

/// Kinds of messages in headers.
const DATASPACE: u16 = 1;
const DATATYPE: u16 = 3;
const FILL_VALUE: u16 = 5;
const LAYOUT: u16 = 8;
const ATTRIBUTE: u16 = 12;
const SYMBOL_TABLE: u16 = 17;

/// IEEE 754, little-endian: size, sign's place, bits, exponent's and mantissa's places and sizes, bias.
const F32: [u8; 20] = [0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0];
const F64: [u8; 20] = [0x11, 0x20, 63, 0, 8, 0, 0, 0, 0, 0, 64, 0, 52, 11, 0, 52, 0xff, 3, 0, 0];
/// Unsigned, little-endian.
const U64: [u8; 12] = [0x10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 64, 0];

/// A value that the file carries beside its arrays.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Real(f64),
    /// A count or a seed.
    Whole(u64),
    /// A text.
    Text(String),
}

/// Name and shape of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A file whose structure stands and whose arrays are being filled.
#[derive(Debug)]
pub struct Writer {
    file: Mutex<File>,
    /// Where each array begins.
    starts: Vec<u64>,
}

impl Writer {
    /// Creates a file with these attributes and arrays (at most 32, of different names); every element is 0 until it
    /// is written.
    ///
    /// # Errors
    /// Those of creating and writing.
    pub fn create(path: &Path, attributes: &[(&str, Value)], arrays: &[Declared]) -> io::Result<Writer> {
        let (head, starts, end) = structure(attributes, arrays)?;
        let mut file = File::create(path)?;
        file.write_all(&head)?;
        file.set_len(end)?;
        Ok(Writer { file: Mutex::new(file), starts })
    }

    /// Writes elements of an array from its element `first` on, which must lie within it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, array: usize, first: usize, numbers: &[f32]) -> io::Result<()> {
        let start = self.starts.get(array).ok_or(io::ErrorKind::InvalidInput)?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        // A thread that panicked wrote nothing by halves that another one relies on.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(start + 4 * first as u64))?;
        file.write_all(&bytes)
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// Those of the system.
    pub fn finish(self) -> io::Result<()> {
        self.file.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).sync_all()
    }
}

/// All that stands before the elements; where each array's elements begin, and where the last ones end.
fn structure(attributes: &[(&str, Value)], arrays: &[Declared]) -> io::Result<(Vec<u8>, Vec<u64>, u64)> {
    const SUPERBLOCK: usize = 96;
    const TREE: usize = 24 + 8 * (4 * INTERNAL as usize + 1);
    const NODE: usize = 8 + 40 * 2 * LEAF as usize;
    const HEAP: usize = 32;
    if arrays.len() > 2 * LEAF as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many arrays for one node"));
    }
    // Entries of a node are in the order of their bytes.
    let mut order: Vec<usize> = (0..arrays.len()).collect();
    order.sort_by_key(|place| arrays.get(*place).map(|array| array.name.as_bytes()));
    let mut names = vec![0; 8];
    let mut offsets = vec![0; arrays.len()];
    for (array, offset) in arrays.iter().zip(&mut offsets) {
        *offset = names.len() as u64;
        names.extend_from_slice(array.name.as_bytes());
        names.push(0);
        pad(&mut names);
    }
    let attributes: Vec<Vec<u8>> = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let root_size = header(&[&[symbol_table(0, 0)][..], &attributes].concat()).len();
    let tree = (SUPERBLOCK + root_size) as u64;
    let heap = tree + TREE as u64;
    let node = heap + (HEAP + names.len()) as u64;
    let first_header = node + NODE as u64;
    let header_size = |array: &Declared| dataset(array, 0).len() as u64;
    let mut at = first_header + arrays.iter().map(header_size).sum::<u64>();
    let mut starts = Vec::with_capacity(arrays.len());
    for array in arrays {
        starts.push(at);
        at += (bytes(array)).next_multiple_of(8);
    }

    let mut out = superblock(SUPERBLOCK as u64, tree, heap, at);
    out.extend(header(&[&[symbol_table(tree, heap)][..], &attributes].concat()));
    // A tree of one leaf: no siblings, the empty name before it, and the last name behind.
    out.extend_from_slice(b"TREE\0\0\x01\0");
    let last = order.last().and_then(|place| offsets.get(*place)).copied().unwrap_or_default();
    for word in [UNDEFINED, UNDEFINED, 0, node, last] {
        out.extend(word.to_le_bytes());
    }
    out.resize(heap as usize, 0);
    out.extend_from_slice(b"HEAP\0\0\0\0");
    // 1: there is no free block.
    for word in [names.len() as u64, 1, heap + HEAP as u64] {
        out.extend(word.to_le_bytes());
    }
    out.extend_from_slice(&names);
    out.extend_from_slice(b"SNOD\x01\0");
    out.extend((arrays.len() as u16).to_le_bytes());
    for place in &order {
        let header = first_header + arrays.iter().take(*place).map(header_size).sum::<u64>();
        let offset = offsets.get(*place).copied().unwrap_or_default();
        out.extend([offset, header].map(u64::to_le_bytes).concat());
        out.extend([0; 24]);
    }
    out.resize(first_header as usize, 0);
    for (array, start) in arrays.iter().zip(&starts) {
        out.extend(dataset(array, *start));
    }
    Ok((out, starts, at))
}

fn superblock(root: u64, tree: u64, heap: u64, end: u64) -> Vec<u8> {
    let mut out = b"\x89HDF\r\n\x1a\n".to_vec();
    // Versions (of which each is 0), the sizes of addresses and lengths.
    out.extend_from_slice(&[0, 0, 0, 0, 0, 8, 8, 0]);
    out.extend([LEAF, INTERNAL, 0, 0].map(u16::to_le_bytes).concat());
    out.extend([0, UNDEFINED, end, UNDEFINED].map(u64::to_le_bytes).concat());
    // The entry of the root group, which repeats where its tree and heap are.
    out.extend([0, root, 1, tree, heap].map(u64::to_le_bytes).concat());
    out
}

/// An object's header out of whole messages.
fn header(messages: &[Vec<u8>]) -> Vec<u8> {
    let size: usize = messages.iter().map(Vec::len).sum();
    let mut out = vec![1, 0];
    out.extend((messages.len() as u16).to_le_bytes());
    out.extend(1u32.to_le_bytes()); // links to it
    out.extend((size as u32).to_le_bytes());
    pad(&mut out);
    out.extend(messages.concat());
    out
}

fn message(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    pad(&mut content);
    let mut out = [kind, content.len() as u16].map(u16::to_le_bytes).concat();
    out.extend([0; 4]);
    out.extend(content);
    out
}

fn symbol_table(tree: u64, heap: u64) -> Vec<u8> {
    message(SYMBOL_TABLE, &[tree, heap].map(u64::to_le_bytes).concat())
}

fn dataset(array: &Declared, start: u64) -> Vec<u8> {
    let mut layout = vec![3, 1];
    layout.extend([start, bytes(array)].map(u64::to_le_bytes).concat());
    header(&[
        message(DATASPACE, &dataspace(&array.shape)),
        message(DATATYPE, &F32),
        // Room is made when the file is; no value is filled in.
        message(FILL_VALUE, &[2, 1, 1, 0]),
        message(LAYOUT, &layout),
    ])
}

fn bytes(array: &Declared) -> u64 {
    4 * array.shape.iter().map(|length| *length as u64).product::<u64>()
}

fn dataspace(shape: &[usize]) -> Vec<u8> {
    let mut out = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
    out.extend(shape.iter().flat_map(|length| (*length as u64).to_le_bytes()));
    out
}

/// A scalar.
fn attribute(name: &str, value: &Value) -> Vec<u8> {
    let (datatype, data) = match value {
        Value::Real(number) => (F64.to_vec(), number.to_le_bytes().to_vec()),
        Value::Whole(number) => (U64.to_vec(), number.to_le_bytes().to_vec()),
        Value::Text(text) => {
            let data = [text.as_bytes(), &[0]].concat();
            // UTF-8 that ends with a zero.
            (([&[0x13, 0x10, 0, 0][..], &(data.len() as u32).to_le_bytes()]).concat(), data)
        }
    };
    let name = [name.as_bytes(), &[0]].concat();
    let space = dataspace(&[]);
    let mut out = vec![1, 0];
    out.extend([name.len(), datatype.len(), space.len()].map(|n| (n as u16).to_le_bytes()).concat());
    for part in [name, datatype, space] {
        out.extend(part);
        pad(&mut out);
    }
    out.extend(data);
    message(ATTRIBUTE, &out)
}

/// Everything begins at a multiple of 8.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file stands in the fixtures, where h5py reads it (`fixtures/field_files.py` asserts what it finds).
    #[test]
    fn a_file_is_the_one_that_h5py_reads() {
        let array = |name: &str, shape: &[usize]| Declared { name: name.to_owned(), shape: shape.to_vec() };
        let arrays = [array("density", &[2, 3, 4]), array("Vx", &[5]), array("t-coordinate", &[3])];
        let attributes = [
            ("eta", Value::Real(0.25)),
            ("seed", Value::Whole(1 << 40)),
            ("generator", Value::Text("é".to_owned())),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("written.h5");
        let writer = Writer::create(&path, &attributes, &arrays).unwrap();
        let count: Vec<f32> = (0..24u8).map(f32::from).collect();
        // In any order.
        writer.write(2, 0, &[0.0, 0.5, 1.0]).unwrap();
        writer.write(0, 12, &count[12..]).unwrap();
        writer.write(1, 1, &[-1.0, 2.5]).unwrap();
        writer.write(0, 0, &count[..12]).unwrap();
        assert!(writer.write(3, 0, &count).is_err());
        writer.finish().unwrap();
        let written = std::fs::read(&path).unwrap();
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/trainer/fields/written.h5");
        assert!(written == std::fs::read(fixture).unwrap(), "another file than {fixture}");
    }

    #[test]
    fn a_node_holds_so_many_arrays() {
        let arrays: Vec<Declared> =
            (0..33).map(|n| Declared { name: format!("a{n}"), shape: vec![1] }).collect();
        assert!(structure(&[], &arrays).is_err());
        assert!(structure(&[], &arrays[..32]).is_ok());
    }
}
