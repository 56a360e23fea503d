//! Writes zip archives and NumPy arrays, right ones and wrong ones.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used)] // outside of #[test] functions, too

use std::io::Write;

/// A member, and what the archive says of it.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub method: u16,
    pub data: Vec<u8>,
    pub size: u64,
    pub crc32: u32,
}

impl Member {
    pub fn stored(name: &str, content: &[u8]) -> Member {
        Member {
            name: name.to_owned(),
            method: 0,
            data: content.to_vec(),
            size: content.len() as u64,
            crc32: crc32(content),
        }
    }

    pub fn deflated(name: &str, content: &[u8]) -> Member {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        Member { method: 8, data: encoder.finish().unwrap(), ..Member::stored(name, content) }
    }
}

fn crc32(content: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    crc.sum()
}

/// An archive without zip64 fields.
pub fn archive(members: &[Member]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let at = out.len() as u32;
        let mut common = [20u16, 0, member.method, 0, 0].map(u16::to_le_bytes).concat();
        common.extend(
            [member.crc32, member.data.len() as u32, member.size as u32].map(u32::to_le_bytes).concat(),
        );
        common.extend([member.name.len() as u16, 0].map(u16::to_le_bytes).concat());
        out.extend([&b"PK\x03\x04"[..], &common, member.name.as_bytes(), &member.data].concat());
        let rest = [&[0; 10][..], &at.to_le_bytes()].concat();
        directory.extend([&b"PK\x01\x02\x14\x00"[..], &common, &rest, member.name.as_bytes()].concat());
    }
    let (count, start) = (members.len() as u16, out.len() as u32);
    out.extend(&directory);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &[count, count].map(u16::to_le_bytes).concat()].concat());
    out.extend([directory.len() as u32, start].map(u32::to_le_bytes).concat());
    out.extend([0, 0]);
    out
}

/// An array out of its header's text and its data.
pub fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}
