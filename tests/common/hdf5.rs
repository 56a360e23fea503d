//! Writes HDF5 files, right ones and wrong ones: a superblock of version 2, headers with their
//! messages, groups that keep their links in them. Checksums are zero, which is not looked at.
#![allow(dead_code)] // each test program uses a part

pub const UNDEFINED: u64 = u64::MAX;

/// Kinds of messages.
pub const DATASPACE: u8 = 1;
pub const LINK_INFO: u8 = 2;
pub const DATATYPE: u8 = 3;
pub const LINK: u8 = 6;
pub const LAYOUT: u8 = 8;
pub const ATTRIBUTE: u8 = 12;

/// Changes a file in some places, with what such files are hurt by most: where, a value, and how.
pub fn damage(bytes: &mut [u8], changes: Vec<(proptest::sample::Index, u8, usize)>) {
    let length = bytes.len() as u64;
    for (position, value, how) in changes {
        // Most of a file is zeros between its structures: the next byte that is none.
        let at = position.index(bytes.len());
        let at = (at..bytes.len()).find(|at| bytes[*at] != 0).unwrap_or(at);
        let word = [u64::MAX, 1 << 63, 1 << 32, length - 8, u64::from(value) * 8, 0][how.min(5)];
        match how {
            6 => bytes[at] ^= 1 << (value % 8),
            7 => bytes[at] = value,
            _ => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
        }
    }
}

/// A file that grows; what is added is found at the address that comes back.
pub struct File {
    pub bytes: Vec<u8>,
}

impl File {
    pub fn new() -> File {
        File { bytes: vec![0; 48] }
    }

    pub fn add(&mut self, bytes: &[u8]) -> u64 {
        let address = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        address
    }

    /// An object's header out of messages, in one block.
    pub fn header(&mut self, messages: &[Vec<u8>]) -> u64 {
        let messages = messages.concat();
        let size = (messages.len() as u32).to_le_bytes();
        self.add(&[&b"OHDR\x02\x02"[..], &size, &messages, &[0; 4]].concat())
    }

    /// A dataset of F32 or I64 in one piece.
    pub fn dataset(&mut self, dims: &[u64], kind: Vec<u8>, data: &[u8]) -> u64 {
        let address = self.add(data);
        self.header(&[dataspace(dims), kind, contiguous(address, data.len() as u64)])
    }

    pub fn group(&mut self, links: &[(&str, u64)]) -> u64 {
        let links = links.iter().map(|(name, address)| link(name, *address));
        let info = message(LINK_INFO, &[&[0; 2][..], &[0xff; 16]].concat());
        let messages: Vec<Vec<u8>> = std::iter::once(info).chain(links).collect();
        self.header(&messages)
    }

    /// The file, with this group for its root.
    pub fn finish(mut self, root: u64) -> Vec<u8> {
        let words = [0, UNDEFINED, self.bytes.len() as u64, root].map(u64::to_le_bytes).concat();
        let superblock = [&b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00"[..], &words, &[0; 4]].concat();
        self.bytes[..48].copy_from_slice(&superblock);
        self.bytes
    }
}

pub fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind][..], &(content.len() as u16).to_le_bytes(), &[0], content].concat()
}

pub fn link(name: &str, address: u64) -> Vec<u8> {
    let length = (name.len() as u16).to_le_bytes();
    message(LINK, &[&[1, 1][..], &length, name.as_bytes(), &address.to_le_bytes()].concat())
}

pub fn dataspace(dims: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    message(DATASPACE, &[&[2, (dims.len() / 8) as u8, 0, 1][..], &dims].concat())
}

pub fn f32s() -> Vec<u8> {
    message(DATATYPE, &[0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0])
}

pub fn i64s() -> Vec<u8> {
    message(DATATYPE, &[0x10, 8, 0, 0, 8, 0, 0, 0, 0, 0, 64, 0])
}

pub fn contiguous(address: u64, size: u64) -> Vec<u8> {
    message(LAYOUT, &[&[3, 1][..], &address.to_le_bytes(), &size.to_le_bytes()].concat())
}
