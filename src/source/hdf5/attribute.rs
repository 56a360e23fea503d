//! Attributes that are texts: fixed ones, and those of any length, which lie in a global heap.

use super::header::{Message, kind};
use super::image::{Fields, Image};
use crate::source::problem::Checked;

/// The longest text that is read, in bytes: the configuration of a large model.
const LONGEST: u64 = 16_000_000;

/// The text of a header's attribute with this name; `None` where there is none, or it is no single
/// text.
pub(super) fn text(image: &Image, messages: &[Message], name: &str) -> Checked<Option<String>> {
    for message in messages.iter().filter(|message| message.kind == kind::ATTRIBUTE && !message.shared) {
        let attribute = Attribute::parse(&message.bytes)?;
        if attribute.name == name.as_bytes() {
            return attribute.text(image);
        }
    }
    Ok(None)
}

struct Attribute<'a> {
    name: &'a [u8],
    datatype: &'a [u8],
    dataspace: &'a [u8],
    data: &'a [u8],
    /// Its type or dataspace stand elsewhere.
    shared: bool,
}

impl<'a> Attribute<'a> {
    fn parse(bytes: &'a [u8]) -> Checked<Attribute<'a>> {
        let mut fields = Fields::new(bytes, "an attribute");
        let version = fields.version(&[1, 2, 3])?;
        let flags = fields.u8()?;
        let sizes = [fields.u16()?, fields.u16()?, fields.u16()?].map(usize::from);
        if version == 3 {
            fields.u8()?; // the encoding of its name
        }
        let mut parts: [&[u8]; 3] = [&[]; 3];
        for (part, size) in parts.iter_mut().zip(sizes) {
            *part = fields.take(size)?;
            if version == 1 {
                fields.take(size.next_multiple_of(8) - size)?;
            }
        }
        let [name, datatype, dataspace] = parts;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Attribute { name, datatype, dataspace, data: fields.rest(), shared: version > 1 && flags != 0 })
    }

    /// Its value, where it is one text.
    fn text(&self, image: &Image) -> Checked<Option<String>> {
        const STRING: u8 = 3;
        const ANY_LENGTH: u8 = 9;
        let single = super::dataspace::parse(self.dataspace).is_ok_and(|space| space.is_scalar());
        if self.shared || !single {
            return Ok(None);
        }
        let mut fields = Fields::new(self.datatype, "an attribute's type");
        let (class, bits) = (fields.u8()? & 15, fields.u8()?);
        fields.take(2)?;
        let size = fields.u32()? as usize;
        let bytes = match class {
            STRING => {
                let bytes = Fields::new(self.data, "an attribute").take(size)?;
                Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
            }
            ANY_LENGTH if bits & 15 == 1 => {
                let mut fields = Fields::new(self.data, "an attribute");
                let (length, address, index) = (fields.u32()?, fields.u64()?, fields.u32()?);
                object(image, address, index, u64::from(length))?
            }
            _ => None,
        };
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }
}

/// The first bytes of an object of a global heap; `None` where there is none, or it is too long.
fn object(image: &Image, address: u64, index: u32, length: u64) -> Checked<Option<Vec<u8>>> {
    const HEAD: u64 = 16;
    if length > LONGEST || index == 0 {
        return Ok(None);
    }
    let head = image.read(address, HEAD, "a global heap")?;
    let mut fields = Fields::new(&head, "a global heap");
    fields.signature(b"GCOL")?;
    fields.version(&[1])?;
    fields.take(3)?;
    let end = address.saturating_add(fields.u64()?);
    let mut at = address.saturating_add(HEAD);
    // Only the heads of the objects are read, one after the other.
    while at.saturating_add(HEAD) <= end {
        let head = image.read(at, HEAD, "an object of a global heap")?;
        let mut fields = Fields::new(&head, "an object of a global heap");
        let found = u32::from(fields.u16()?);
        fields.take(6)?;
        let size = fields.u64()?;
        if found == index && length <= size {
            let text = image.read(at + HEAD, length, "an object of a global heap")?;
            return Ok(Some(text));
        }
        if found == 0 {
            break; // the free space behind the last object
        }
        let Some(next) = size.checked_next_multiple_of(8) else { break };
        at = at.saturating_add(HEAD).saturating_add(next);
    }
    Ok(None)
}
