//! Protocol Buffers' wire format, as far as ONNX uses it: fields of a message, one after another.
//!
//! A field with a length is given as its place in the file, and its content is only looked at by
//! who asks for it; so gigabytes of weights are stepped over. Nothing nests here: who goes into a
//! message's message bounds the depth.

use std::cell::RefCell;
use std::ops::Range;

use crate::source::Storage;
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub number: u64,
    pub value: Value,
}

/// What a field holds, by its wire type.
#[derive(Debug)]
pub(super) enum Value {
    Varint(u64),
    /// Four or eight bytes: ONNX's single floats, which are never needed.
    Fixed,
    /// A text, a message, or packed numbers.
    Bytes(Range<u64>),
}

impl Field {
    /// The place of a text or message.
    pub fn bytes(&self) -> Checked<Range<u64>> {
        match &self.value {
            Value::Bytes(range) => Ok(range.clone()),
            _ => rule(format!("the field {} is a number, but should have a length", self.number)),
        }
    }

    /// A whole number.
    pub fn integer(&self) -> Checked<u64> {
        match &self.value {
            Value::Varint(value) => Ok(*value),
            _ => rule(format!("the field {} should be a whole number", self.number)),
        }
    }
}

/// A file of messages.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    storage: &'a Storage,
    window: RefCell<Window>,
}

/// The bytes that were last looked at; all of a small file, a piece of a large one.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// Bytes of a window.
const WINDOW: u64 = 1 << 16;

impl Window {
    fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.start)?).ok();
        self.bytes.get(place(range.start)?..place(range.end)?)
    }

    fn move_to(&mut self, storage: &Storage, at: u64) -> Checked<()> {
        let end = storage.len().min(at.saturating_add(WINDOW));
        *self = Window { start: at, bytes: storage.copy(at..end)? };
        Ok(())
    }
}

impl<'a> Wire<'a> {
    pub fn new(storage: &'a Storage) -> Wire<'a> {
        Wire { storage, window: RefCell::default() }
    }

    /// The whole file as a message.
    pub fn all(&self) -> Range<u64> {
        0..self.storage.len()
    }

    /// The field that begins at the start of `rest`, which becomes what follows it; `None` at the
    /// end.
    pub fn next(&self, rest: &mut Range<u64>) -> Checked<Option<Field>> {
        if rest.start >= rest.end {
            return Ok(None);
        }
        let at = rest.start;
        let tag = self.varint(rest)?;
        let number = tag >> 3;
        if number == 0 {
            return rule(format!("there is no field at byte {at}"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(rest)?),
            1 => self.skip(rest, 8, at).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint(rest)?;
                Value::Bytes(self.skip(rest, length, at)?)
            }
            5 => self.skip(rest, 4, at).map(|_| Value::Fixed)?,
            kind => {
                return rule(format!(
                    "the field at byte {at} has the wire type {kind}, which ONNX has no use for"
                ));
            }
        };
        Ok(Some(Field { number, value }))
    }

    /// Takes `count` bytes off the front of `rest`.
    fn skip(&self, rest: &mut Range<u64>, count: u64, at: u64) -> Checked<Range<u64>> {
        let start = rest.start;
        match start.checked_add(count).filter(|end| *end <= rest.end) {
            Some(end) => {
                rest.start = end;
                Ok(start..end)
            }
            None => rule(format!(
                "the field at byte {at} should be {count} bytes long, but only {} are left in its message (is the file cut off?)",
                rest.end - start
            )),
        }
    }

    /// A whole number in groups of seven bits, the lowest first.
    pub fn varint(&self, rest: &mut Range<u64>) -> Checked<u64> {
        let start = rest.start;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            if rest.start >= rest.end {
                return rule(format!("the number at byte {start} is cut off"));
            }
            let byte = self.byte(rest.start)?;
            rest.start += 1;
            // The tenth byte holds the last bit of 64.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        rule(format!("the number at byte {start} is longer than 64 bits"))
    }

    fn byte(&self, at: u64) -> Checked<u8> {
        let mut window = self.window.borrow_mut();
        if window.get(at..at + 1).is_none() {
            window.move_to(self.storage, at)?;
        }
        match window.get(at..at + 1) {
            Some(&[byte]) => Ok(byte),
            _ => rule(format!("there is no byte {at}")),
        }
    }

    /// A text.
    pub fn text(&self, range: Range<u64>) -> Checked<String> {
        let start = range.start;
        let mut window = self.window.borrow_mut();
        let bytes = if range.end - start > WINDOW {
            self.storage.copy(range)?
        } else {
            if window.get(range.clone()).is_none() {
                window.move_to(self.storage, start)?;
            }
            window.get(range).unwrap_or_default().to_vec()
        };
        String::from_utf8(bytes).or_else(|error| {
            let shown = String::from_utf8_lossy(error.as_bytes());
            rule(format!("the text at byte {start} is not UTF-8: `{}`", printable(&shown)))
        })
    }
}
