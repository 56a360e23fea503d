//! TensorBoard's event files: records of a protocol-buffer message each, with checksums.
//!
//! A record is the length (u64), its masked CRC-32C, the message, and its masked CRC-32C, all little
//! endian (the TFRecord format). Of the message `Event` only what a scalar needs is written: wall_time
//! (1, double), step (2, varint), file_version (3, string), summary (5) with values (1) of a tag
//! (1, string) and a simple_value (2, float).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes scalars for TensorBoard.
#[derive(Debug)]
pub struct Events {
    file: BufWriter<File>,
}

impl Events {
    /// Makes a new file in a directory; TensorBoard reads all files of a directory as one run.
    ///
    /// # Errors
    /// Those of creating and writing the file.
    pub fn create(directory: &Path) -> io::Result<Events> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{:09}.evenkeel", now.as_secs(), now.subsec_nanos());
        let mut events = Events { file: BufWriter::new(File::create_new(directory.join(name))?) };
        let mut event = wall_time();
        bytes_field(&mut event, 3, b"brain.Event:2");
        events.record(&event)?;
        Ok(events)
    }

    /// Writes the scalars of a step.
    ///
    /// # Errors
    /// Those of writing.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut field = Vec::new();
            bytes_field(&mut field, 1, tag.as_bytes());
            key(&mut field, 2, FIXED_32);
            field.extend_from_slice(&(*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &field);
        }
        let mut event = wall_time();
        key(&mut event, 2, VARINT);
        varint(&mut event, step);
        bytes_field(&mut event, 5, &summary);
        self.record(&event)
    }

    /// Passes everything to the system.
    ///
    /// # Errors
    /// Those of writing.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn record(&mut self, message: &[u8]) -> io::Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(message)?;
        self.file.write_all(&masked_crc(message).to_le_bytes())
    }
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

fn wall_time() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut event = Vec::new();
    key(&mut event, 1, FIXED_64);
    event.extend_from_slice(&now.as_secs_f64().to_le_bytes());
    event
}

fn key(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, LENGTH);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord does, so that a checksum of data that holds
/// checksums is none of them.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C is published: 0xe3069283 for the digits 1 to 9.
    #[test]
    fn checksum() {
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn varints_take_seven_bits_a_byte() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }
}
