//! torch's files before 1.6: five pickles after each other, then the storages.
//!
//! A magic number, the format's version, facts on the machine, the object, the storages' keys; then,
//! in the order of the keys, each storage's number of elements (8 bytes) and its bytes.

use std::collections::HashMap;

use super::Pickled;
use super::pickle::{Id, Input, Unpickler, Value};
use super::rebuild::{self, Places, Region, StorageRef};
use crate::source::Storage;
use crate::source::problem::{Checked, rule, unusable};
use crate::text::printable;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Reads the pickles and finds the storages.
pub(super) fn read(storage: &Storage, unpickler: &mut Unpickler) -> Checked<Pickled> {
    let mut input = Input::new(storage, 0..storage.len());
    let magic = unpickler.load(&mut input)?;
    if unpickler.values.int(magic) != Some(MAGIC) {
        return unusable(
            "this is a Python pickle, but none that torch.save wrote; save the model's state_dict() with torch.save, or \
             as safetensors",
        );
    }
    let version = unpickler.load(&mut input)?;
    if unpickler.values.int(version) != Some(VERSION) {
        return rule(format!("its format is not version {VERSION}"));
    }
    let machine = unpickler.load(&mut input)?;
    check_byte_order(unpickler, machine)?;
    let root = unpickler.load(&mut input)?;
    let declared = declared(unpickler)?;
    let keys = unpickler.load(&mut input)?;
    let keys = unpickler.values.sequence(keys).unwrap_or_default();
    let mut storages = HashMap::new();
    for key in keys {
        let key = rebuild::key(&unpickler.values, *key).unwrap_or_default();
        let Some(reference) = declared.get(&key) else {
            return rule(format!("it holds the storage `{}`, which its pickle never names", printable(&key)));
        };
        let elements = input.u64()?;
        let Some(element) = reference.element.filter(|_| elements == reference.elements) else {
            return rule(format!(
                "the storage `{}` has {elements} elements at byte {}, but its pickle says {}",
                printable(&key),
                input.position(),
                reference.elements
            ));
        };
        let start = input.position();
        let bytes = elements.saturating_mul(element.bytes);
        input.skip(bytes)?;
        let region = Region { bytes: start..start + bytes, element: Some(element) };
        if storages.insert(key.clone(), region).is_some() {
            return rule(format!("it holds the storage `{}` twice", printable(&key)));
        }
    }
    match input.left() {
        0 => Ok(Pickled { root, places: Places::Storages(storages) }),
        left => rule(format!("its last {left} bytes belong to no storage")),
    }
}

/// The storages that the pickles name. A key must always stand for the same type and length.
fn declared(unpickler: &Unpickler) -> Checked<HashMap<String, StorageRef>> {
    let mut declared: HashMap<String, StorageRef> = HashMap::new();
    for (_, value) in unpickler.values.iter() {
        let Value::Persistent(id) = value else { continue };
        let Some(reference) = rebuild::storage_ref(&unpickler.values, *id)? else { continue };
        match declared.get(&reference.key) {
            Some(first) if first.element != reference.element || first.elements != reference.elements => {
                return rule(format!(
                    "its pickle gives the storage `{}` two types or lengths",
                    printable(&reference.key)
                ));
            }
            Some(_) => {}
            None => {
                declared.insert(reference.key.clone(), reference);
            }
        }
    }
    Ok(declared)
}

/// `sys_info["little_endian"]`.
fn check_byte_order(unpickler: &Unpickler, machine: Id) -> Checked<()> {
    let values = &unpickler.values;
    let entries = values.mapping(machine).unwrap_or_default();
    let little = entries.iter().find(|(key, _)| values.text(*key) == Some("little_endian"));
    match little {
        Some((_, Id::FALSE)) => rule(
            "its numbers are stored big-endian, and this version reads little-endian ones; save it again on a \
                  little-endian machine",
        ),
        _ => Ok(()),
    }
}
