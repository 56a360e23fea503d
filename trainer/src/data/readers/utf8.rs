//! A file that must be UTF-8: where it is not, reading fails and says at which byte.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::data::table::malformed;
use crate::error::{Error, Result};

/// Passes on what it reads, and checks it.
pub struct Utf8<R> {
    inner: R,
    /// The beginning of a character whose rest has not been read yet.
    pending: Vec<u8>,
    /// Bytes and line breaks before `pending`.
    offset: u64,
    lines: u64,
}

/// Opens a file.
///
/// # Errors
/// Those of opening.
pub fn open(path: &Path) -> Result<BufReader<Utf8<File>>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    Ok(BufReader::with_capacity(1 << 16, Utf8::new(file)))
}

/// What a failed read says of a file.
pub fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::InvalidData => malformed(path, error.to_string()),
        _ => Error::io("read", path)(error),
    }
}

impl<R: Read> Utf8<R> {
    fn new(inner: R) -> Utf8<R> {
        Utf8 { inner, pending: Vec::new(), offset: 0, lines: 0 }
    }

    /// Checks what stands in `pending`, and keeps there what is no whole character yet.
    fn check(&mut self, ended: bool) -> io::Result<()> {
        let (good, bad) = match std::str::from_utf8(&self.pending) {
            Ok(_) => (self.pending.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some() || ended),
        };
        let rest = self.pending.split_off(good);
        let passed = std::mem::replace(&mut self.pending, rest);
        self.offset += passed.len() as u64;
        self.lines += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        if bad { Err(self.error()) } else { Ok(()) }
    }

    fn error(&self) -> io::Error {
        let byte = self.pending.first().copied().unwrap_or_default();
        let utf16 = self.offset == 0 && (byte == 0xff || byte == 0xfe);
        let hint = if utf16 { "It begins like UTF-16: save" } else { "Save" };
        let (line, offset) = (self.lines + 1, self.offset);
        let message = format!(
            "the file is not UTF-8: byte 0x{byte:02x} at offset {offset}, in line {line}. {hint} it as UTF-8."
        );
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
        self.check(count == 0 && !buffer.is_empty())?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time: every character is split.
    struct Bytewise<'a>(&'a [u8]);

    impl Read for Bytewise<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (first, rest) = self.0.split_at(1.min(self.0.len()));
            buffer[..first.len()].copy_from_slice(first);
            self.0 = rest;
            Ok(first.len())
        }
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        Utf8::new(Bytewise(bytes)).read_to_string(&mut text)?;
        let mut whole = String::new();
        Utf8::new(bytes).read_to_string(&mut whole)?;
        assert_eq!(text, whole);
        Ok(text)
    }

    #[test]
    fn split_characters_pass_and_wrong_bytes_are_found() {
        let text = "a\u{e9}\n\u{1f600}\u{4e2d}";
        assert_eq!(read(text.as_bytes()).unwrap(), text);
        let error = read(b"ab\nc\xe9d").unwrap_err().to_string();
        assert_eq!(error, "the file is not UTF-8: byte 0xe9 at offset 4, in line 2. Save it as UTF-8.");
        assert!(read(b"\xff\xfea\0").unwrap_err().to_string().contains("UTF-16"));
        // The file ends within a character.
        assert!(
            read("caf\u{e9}".as_bytes().split_last().unwrap().1)
                .unwrap_err()
                .to_string()
                .contains("offset 3")
        );
    }
}
