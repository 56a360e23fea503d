//! Object headers, in both versions: the messages that say what an object is.

use super::image::{Fields, Image};
use crate::source::problem::{Checked, rule};

/// Kinds of messages.
pub(super) mod kind {
    pub const DATASPACE: u16 = 1;
    pub const LINK_INFO: u16 = 2;
    pub const DATATYPE: u16 = 3;
    pub const LINK: u16 = 6;
    pub const EXTERNAL_FILES: u16 = 7;
    pub const LAYOUT: u16 = 8;
    pub const GROUP_INFO: u16 = 10;
    pub const FILTERS: u16 = 11;
    pub const ATTRIBUTE: u16 = 12;
    pub const CONTINUATION: u16 = 16;
    pub const SYMBOL_TABLE: u16 = 17;
}

/// A message of an object's header.
#[derive(Debug)]
pub(super) struct Message {
    /// One of [`kind`], or another one that says nothing of the elements.
    pub kind: u16,
    /// It stands elsewhere, and here is only where.
    pub shared: bool,
    /// The address of its bytes.
    pub address: u64,
    pub bytes: Vec<u8>,
}

/// A part of a header: address and length.
type Block = (u64, u64);

/// The longest header, in bytes: h5py keeps each message below 64 kB.
const LONGEST: usize = 1 << 24;

/// The messages of the header at an address, those in its continuations included.
pub(super) fn messages(image: &Image, address: u64) -> Checked<Vec<Message>> {
    let signature = image.read(address, 4, "an object header")?;
    if *signature == *b"OHDR" { second(image, address) } else { first(image, address) }
}

fn first(image: &Image, address: u64) -> Checked<Vec<Message>> {
    let prefix = image.read(address, 16, "an object header")?;
    let mut fields = Fields::new(&prefix, "an object header");
    fields.version(&[1])?;
    fields.u8()?;
    let wanted = usize::from(fields.u16()?);
    fields.u32()?; // how many links lead here
    let size = u64::from(fields.u32()?);
    let mut messages = Vec::new();
    let mut blocks: Vec<Block> = vec![(address.saturating_add(16), size)];
    while let Some((start, size)) = blocks.pop() {
        let bytes = image.read(start, size, "a block of an object header")?;
        let mut fields = Fields::new(&bytes, "a block of an object header");
        while !fields.rest().is_empty() {
            let (kind, length, flags) = (fields.u16()?, fields.u16()?, fields.u8()?);
            fields.take(3)?;
            let address = start + (bytes.len() - fields.rest().len()) as u64;
            let content = fields.take(usize::from(length))?;
            add(&mut messages, &mut blocks, kind, flags, address, content)?;
        }
    }
    if messages.len() != wanted {
        return rule(format!("its header has {} messages, but should have {wanted}", messages.len()));
    }
    Ok(messages)
}

fn second(image: &Image, address: u64) -> Checked<Vec<Message>> {
    /// Flags: the width of the first block's size, order of creation, limits of attributes, times.
    const WIDTH: u8 = 3;
    const ORDERED: u8 = 1 << 2;
    const LIMITS: u8 = 1 << 4;
    const TIMES: u8 = 1 << 5;
    const CHECKSUM: u64 = 4;
    let flags = image.read(address, 6, "an object header")?;
    let mut fields = Fields::new(&flags, "an object header");
    fields.signature(b"OHDR")?;
    fields.version(&[2])?;
    let flags = fields.u8()?;
    let width = 1u64 << (flags & WIDTH);
    let skipped = if flags & TIMES != 0 { 16 } else { 0 } + if flags & LIMITS != 0 { 4 } else { 0 };
    let at = address.saturating_add(6).saturating_add(skipped);
    let size = image.read(at, width, "an object header")?;
    let size = Fields::new(&size, "an object header").number(width as usize)?;
    let mut messages = Vec::new();
    let mut blocks: Vec<Block> = vec![(at + width, size)];
    let mut is_first = true;
    while let Some((start, size)) = blocks.pop() {
        let (start, size) = if is_first {
            (start, size)
        } else {
            let mark = image.read(start, 4, "a block of an object header")?;
            Fields::new(&mark, "a block of an object header").signature(b"OCHK")?;
            (start + 4, size.saturating_sub(4 + CHECKSUM))
        };
        is_first = false;
        let bytes = image.read(start, size, "a block of an object header")?;
        let mut fields = Fields::new(&bytes, "a block of an object header");
        let head = if flags & ORDERED != 0 { 6 } else { 4 };
        // A gap too short for a message may be left at the end.
        while fields.rest().len() >= head {
            let (kind, length, own) = (u16::from(fields.u8()?), fields.u16()?, fields.u8()?);
            fields.take(head - 4)?;
            let address = start + (bytes.len() - fields.rest().len()) as u64;
            let content = fields.take(usize::from(length))?;
            add(&mut messages, &mut blocks, kind, own, address, content)?;
        }
    }
    Ok(messages)
}

fn add(
    messages: &mut Vec<Message>,
    blocks: &mut Vec<Block>,
    kind: u16,
    flags: u8,
    address: u64,
    content: &[u8],
) -> Checked<()> {
    const SHARED: u8 = 1 << 1;
    if kind == kind::CONTINUATION {
        let mut fields = Fields::new(content, "a continuation of an object header");
        blocks.push((fields.u64()?, fields.u64()?));
    }
    if messages.iter().map(|message| message.bytes.len()).sum::<usize>() > LONGEST {
        return rule(format!("its header is longer than {LONGEST} bytes"));
    }
    messages.push(Message { kind, shared: flags & SHARED != 0, address, bytes: content.to_vec() });
    Ok(())
}

/// The only message of a kind; a shared one is refused.
pub(super) fn only<'a>(messages: &'a [Message], kind: u16, what: &str) -> Checked<Option<&'a Message>> {
    let mut of_kind = messages.iter().filter(|message| message.kind == kind);
    match (of_kind.next(), of_kind.next()) {
        (_, Some(_)) => rule(format!("it has {what} twice")),
        (Some(message), None) if message.shared => {
            rule(format!("it shares {what} with other objects, which this version does not read"))
        }
        (found, None) => Ok(found),
    }
}
