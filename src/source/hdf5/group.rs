//! Groups: the names in them and the addresses of the objects with these names.
//!
//! h5py writes symbol tables: a B-tree of nodes whose entries have their names in a local heap. Newer
//! files keep few links in the group's header, and many in a fractal heap, which is not read.

use super::header::{Message, kind, only};
use super::image::{Fields, Image, UNDEFINED};
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// The longest name of a link, in bytes.
const MAX_NAME: usize = 4096;

/// A name and the address of its object's header.
pub(super) type Link = (String, u64);

/// Whether a header with these messages is that of a group.
pub(super) fn is_group(messages: &[Message]) -> bool {
    const OF_GROUPS: [u16; 4] = [kind::SYMBOL_TABLE, kind::LINK_INFO, kind::LINK, kind::GROUP_INFO];
    messages.iter().any(|message| OF_GROUPS.contains(&message.kind))
}

/// The links of a group.
pub(super) fn links(image: &Image, messages: &[Message]) -> Checked<Vec<Link>> {
    let mut links = Vec::new();
    if let Some(table) = only(messages, kind::SYMBOL_TABLE, "a symbol table")? {
        let mut fields = Fields::new(&table.bytes, "a symbol table");
        let (tree, heap) = (fields.u64()?, fields.u64()?);
        symbols(image, tree, &local_heap(image, heap)?, &mut links)?;
    }
    if let Some(info) = only(messages, kind::LINK_INFO, "a summary of its links")? {
        refuse_heap(&info.bytes)?;
    }
    for message in messages.iter().filter(|message| message.kind == kind::LINK) {
        links.push(link(&message.bytes)?);
    }
    Ok(links)
}

/// The names of a group's symbols, one behind the other.
fn local_heap(image: &Image, address: u64) -> Checked<Vec<u8>> {
    let header = image.read(address, 32, "a heap of names")?;
    let mut fields = Fields::new(&header, "a heap of names");
    fields.signature(b"HEAP")?;
    fields.version(&[0])?;
    fields.take(3)?;
    let size = fields.u64()?;
    fields.u64()?; // its free list
    image.read(fields.u64()?, size, "a heap of names")
}

/// Walks the B-tree of a group.
fn symbols(image: &Image, root: u64, heap: &[u8], links: &mut Vec<Link>) -> Checked<()> {
    let mut nodes = vec![(root, None)];
    while let Some((address, wanted)) = nodes.pop() {
        let head = image.read(address, 24, "a node of a group's tree")?;
        let mut fields = Fields::new(&head, "a node of a group's tree");
        fields.signature(b"TREE")?;
        let (of, level, count) = (fields.u8()?, fields.u8()?, fields.u16()?);
        if of != 0 || wanted.is_some_and(|wanted| wanted != level) {
            return rule(format!("the node of a group's tree at address {address} belongs elsewhere"));
        }
        let size = u64::from(count) * 16;
        let bytes = image.read(address.saturating_add(24), size, "a node of a group's tree")?;
        let mut fields = Fields::new(&bytes, "a node of a group's tree");
        for _ in 0..count {
            fields.u64()?; // the first name, which the entries repeat
            let child = fields.u64()?;
            match level.checked_sub(1) {
                Some(below) => nodes.push((child, Some(below))),
                None => leaf(image, child, heap, links)?,
            }
        }
    }
    Ok(())
}

/// The entries of a symbol table node.
fn leaf(image: &Image, address: u64, heap: &[u8], links: &mut Vec<Link>) -> Checked<()> {
    const ENTRY: u64 = 40;
    const SYMBOLIC: u32 = 2;
    let head = image.read(address, 8, "a symbol table node")?;
    let mut fields = Fields::new(&head, "a symbol table node");
    fields.signature(b"SNOD")?;
    fields.version(&[1])?;
    fields.u8()?;
    let count = fields.u16()?;
    let bytes = image.read(address.saturating_add(8), u64::from(count) * ENTRY, "a symbol table node")?;
    let mut fields = Fields::new(&bytes, "a symbol table node");
    for _ in 0..count {
        let (name, header, cached) = (fields.u64()?, fields.u64()?, fields.u32()?);
        fields.take(20)?;
        let bytes = usize::try_from(name).ok().and_then(|start| heap.get(start..)).unwrap_or_default();
        let Some(end) = bytes.iter().take(MAX_NAME + 1).position(|byte| *byte == 0) else {
            return rule(format!("the name at byte {name} of a group's heap has no end, or is too long"));
        };
        image.keep(end)?;
        let name = text(bytes.get(..end).unwrap_or_default())?;
        if cached == SYMBOLIC {
            return rule(format!("`{}` is a soft link, which is not followed", printable(&name)));
        }
        links.push((name, header));
    }
    Ok(())
}

/// Links beyond a handful lie in a fractal heap.
fn refuse_heap(bytes: &[u8]) -> Checked<()> {
    let mut fields = Fields::new(bytes, "a summary of links");
    fields.version(&[0])?;
    if fields.u8()? & 1 != 0 {
        fields.u64()?; // the highest order of creation
    }
    if fields.u64()? != UNDEFINED {
        return rule(
            "a group keeps its links in a fractal heap, which this version does not read; save it with \
             h5py's libver='earliest', as Keras does",
        );
    }
    Ok(())
}

/// A link that stands in the group's header.
fn link(bytes: &[u8]) -> Checked<Link> {
    const WIDTH: u8 = 3;
    const ORDERED: u8 = 1 << 2;
    const KIND: u8 = 1 << 3;
    const CHARSET: u8 = 1 << 4;
    let mut fields = Fields::new(bytes, "a link");
    fields.version(&[1])?;
    let flags = fields.u8()?;
    let of = if flags & KIND != 0 { fields.u8()? } else { 0 };
    if flags & ORDERED != 0 {
        fields.u64()?;
    }
    if flags & CHARSET != 0 {
        fields.u8()?;
    }
    let length = fields.number(1 << (flags & WIDTH))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let name = text(fields.take(length)?)?;
    match of {
        0 if length > MAX_NAME => rule(format!("a link has a name of {length} bytes")),
        0 => Ok((name, fields.u64()?)),
        _ => rule(format!("`{}` is a soft or external link, which is not followed", printable(&name))),
    }
}

/// A link's name.
fn text(bytes: &[u8]) -> Checked<String> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && name != "." && !name.contains(['/', '\0']) => Ok(name.to_owned()),
        _ => rule(format!("`{}` is no name of a link", printable(&String::from_utf8_lossy(bytes)))),
    }
}
