//! torch's files of its first months: a tar archive of `storages`, `tensors` and `pickle`.
//!
//! `storages`: a pickled count; for each a pickled (key, location, class), the number of elements
//! (8 bytes) and the bytes; then a pickled list of views (key, root's key, offset, elements).
//! `tensors`: a pickled count; for each a pickled (key, storage's key, class), the number of
//! dimensions (4 bytes, 4 more unused), sizes, strides and the offset (8 bytes each). In `pickle`
//! tensors and storages stand as persistent ids.

use std::collections::HashMap;
use std::ops::Range;

use super::Pickled;
use super::pickle::{Global, Id, Input, Unpickler, Value};
use super::rebuild::{self, Geometry, MAX_DIMENSIONS, Places, Region};
use crate::source::Storage;
use crate::source::problem::{Checked, rule};
use crate::text::printable;

const BLOCK: u64 = 512;
/// The most members that are looked at.
const MAX_MEMBERS: usize = 64;

/// Whether the archive's first member is one of torch's.
pub(super) fn is_of_torch(head: &[u8]) -> bool {
    matches!(name(head), b"sys_info" | b"storages" | b"tensors" | b"pickle")
}

/// Reads the three members.
pub(super) fn read(storage: &Storage, unpickler: &mut Unpickler) -> Checked<Pickled> {
    let members = members(storage)?;
    let member = |name: &str| match members.get(name) {
        Some(range) => Ok(Input::new(storage, range.clone())),
        None => rule(format!("this tar archive has no member `{name}`, which a torch file has")),
    };
    let storages = storages(&mut member("storages")?, unpickler)?;
    let tensors = tensors(&mut member("tensors")?, unpickler, &storages)?;
    let root = unpickler.load(&mut member("pickle")?)?;
    Ok(Pickled { root, places: Places::Tensors { storages, tensors } })
}

/// The regular files of the archive.
fn members(storage: &Storage) -> Checked<HashMap<String, Range<u64>>> {
    let mut members = HashMap::new();
    let mut at = 0;
    while at + BLOCK <= storage.len() {
        let header = storage.copy(at..at + BLOCK)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let name = String::from_utf8_lossy(name(&header)).into_owned();
        let Some(bytes) = octal(header.get(124..136).unwrap_or_default()) else {
            return rule(format!("its member `{}` has no length", printable(&name)));
        };
        let start = at + BLOCK;
        let Some(end) = start.checked_add(bytes).filter(|end| *end <= storage.len()) else {
            return rule(format!(
                "its member `{}` of {bytes} bytes lies beyond the end (is the file cut off?)",
                printable(&name)
            ));
        };
        let regular = matches!(header.get(156), Some(b'0' | 0));
        if regular && members.insert(name.clone(), start..end).is_some() {
            return rule(format!("its member `{}` occurs twice", printable(&name)));
        }
        if members.len() > MAX_MEMBERS {
            return rule(format!("it has more than {MAX_MEMBERS} members"));
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(members)
}

/// The name in a member's header.
fn name(header: &[u8]) -> &[u8] {
    let name = header.get(..100).unwrap_or(header);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    name.strip_prefix(b"./").unwrap_or(name)
}

fn octal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// A pickled count at the beginning of a member.
fn count(input: &mut Input, unpickler: &mut Unpickler) -> Checked<u64> {
    let id = unpickler.load(input)?;
    match unpickler.values.count(id) {
        Some(count) => Ok(count),
        None => rule(format!("a count should stand before byte {}", input.position())),
    }
}

fn storages(input: &mut Input, unpickler: &mut Unpickler) -> Checked<HashMap<String, Region>> {
    let mut storages = HashMap::new();
    for _ in 0..count(input, unpickler)? {
        let described = unpickler.load(input)?;
        let values = &unpickler.values;
        let parts = match values.sequence(described) {
            Some(&[key, _, class]) => rebuild::key(values, key).zip(match values.get(class) {
                Value::Global(Global::Storage(element)) => *element,
                _ => None,
            }),
            _ => None,
        };
        let Some((key, element)) = parts else {
            return rule(format!("a storage's description before byte {} is none", input.position()));
        };
        let bytes = input.u64()?.saturating_mul(element.bytes);
        let start = input.position();
        input.skip(bytes)?;
        let region = Region { bytes: start..start + bytes, element: Some(element) };
        if storages.insert(key.clone(), region).is_some() {
            return rule(format!("it holds the storage `{}` twice", printable(&key)));
        }
    }
    let views = unpickler.load(input)?;
    for view in unpickler.values.sequence(views).unwrap_or_default() {
        let (key, region) = self::view(unpickler, *view, &storages)?;
        storages.insert(key, region);
    }
    Ok(storages)
}

/// A storage that is a part of another one.
fn view(unpickler: &Unpickler, view: Id, storages: &HashMap<String, Region>) -> Checked<(String, Region)> {
    let values = &unpickler.values;
    let parts = || {
        let &[key, root, offset, elements] = values.sequence(view)? else { return None };
        let root = storages.get(&rebuild::key(values, root)?)?;
        let part = root.part(values.count(offset)?, values.count(elements)?)?;
        rebuild::key(values, key).filter(|key| !storages.contains_key(key)).zip(Some(part))
    };
    parts().map_or_else(|| rule("a view of a storage lies outside of it, or is not described"), Ok)
}

fn tensors(
    input: &mut Input,
    unpickler: &mut Unpickler,
    storages: &HashMap<String, Region>,
) -> Checked<HashMap<String, Geometry>> {
    let mut tensors = HashMap::new();
    for _ in 0..count(input, unpickler)? {
        let described = unpickler.load(input)?;
        let values = &unpickler.values;
        let parts = match values.sequence(described) {
            Some(&[key, storage, _]) => rebuild::key(values, key).zip(rebuild::key(values, storage)),
            _ => None,
        };
        let Some((key, region)) = parts.and_then(|(key, s)| Some((key, storages.get(&s)?.clone()))) else {
            return rule(format!("a tensor's description before byte {} is none", input.position()));
        };
        let dimensions = u32::from_le_bytes(input.array()?);
        input.skip(4)?;
        if dimensions > MAX_DIMENSIONS {
            return rule(format!("the tensor `{}` has {dimensions} dimensions", printable(&key)));
        }
        let mut numbers = || (0..dimensions).map(|_| input.u64()).collect::<Checked<Vec<u64>>>();
        let (shape, strides) = (numbers()?, numbers()?);
        let offset = input.u64()?;
        let geometry = Geometry { region, offset, shape, strides };
        if tensors.insert(key.clone(), geometry).is_some() {
            return rule(format!("it holds the tensor `{}` twice", printable(&key)));
        }
    }
    Ok(tensors)
}
