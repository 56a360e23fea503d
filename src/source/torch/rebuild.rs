//! From the records of a pickle to tensors: every size, stride and offset is held against the storage
//! that it points into, before anything is read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Pickled;
use super::element::ElementRef;
use super::pickle::{Global, Id, Rebuild, Value, Values};
use crate::source::problem::{Checked, rule};
use crate::tensors::{Content, Strided, Tensor};
use crate::text::{printable, shape as shape_text};

/// The most dimensions of a tensor, as in torch.
pub(super) const MAX_DIMENSIONS: u32 = 64;
/// A tensor within a parameter within a parameter: none is nested deeper.
const MAX_WRAPPERS: usize = 4;

/// Where the bytes of a storage lie.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// In the file.
    pub bytes: Range<u64>,
    /// The elements' type, where the storage itself has one.
    pub element: Option<ElementRef>,
}

impl Region {
    /// A part of it, in elements of its type.
    pub fn part(&self, offset: u64, elements: u64) -> Option<Region> {
        let width = self.element?.bytes;
        let start = self.bytes.start.checked_add(offset.checked_mul(width)?)?;
        let end = start.checked_add(elements.checked_mul(width)?)?;
        (end <= self.bytes.end).then_some(Region { bytes: start..end, element: self.element })
    }
}

/// What stands for the persistent ids of a pickle.
pub(super) enum Places {
    /// Storages by their keys, described where they are used.
    Storages(HashMap<String, Region>),
    /// The oldest files: storages and tensors by their keys.
    Tensors { storages: HashMap<String, Region>, tensors: HashMap<String, Geometry> },
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub region: Region,
    /// In elements, as the strides.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// How a pickle names a storage: `("storage", class, key, location, elements[, view])`.
pub(super) struct StorageRef {
    pub key: String,
    /// `None` where the class says nothing of its elements.
    pub element: Option<ElementRef>,
    /// Its length in elements; in bytes where the type is not known.
    pub elements: u64,
    /// A part of it: offset and length.
    view: Option<(u64, u64)>,
}

/// A storage's key: a short text, or a number in the oldest files.
pub(super) fn key(values: &Values, id: Id) -> Option<String> {
    /// Keys are digits. Many references to a very long one would make long work.
    const LONGEST: usize = 256;
    let text = values.text(id).filter(|text| text.len() <= LONGEST);
    text.map(str::to_owned).or_else(|| values.int(id).map(|n| n.to_string()))
}

/// Reads a persistent id. `None` for the source code of a class, which is of no use.
pub(super) fn storage_ref(values: &Values, id: Id) -> Checked<Option<StorageRef>> {
    let parts = values.sequence(id).unwrap_or_default();
    match parts.first().and_then(|kind| values.text(*kind)) {
        Some("module") => return Ok(None),
        Some("storage") => {}
        _ => return rule("its pickle refers to something outside of it that is no storage"),
    }
    let described = || {
        let (class, key, elements) = match parts {
            [_, class, key, _, elements, ..] => (values.get(*class), self::key(values, *key)?, *elements),
            _ => return None,
        };
        let Value::Global(Global::Storage(element)) = class else { return None };
        let view = match parts.get(5) {
            None | Some(&Id::NONE) => None,
            Some(view) => match *values.sequence(*view)? {
                [_, offset, length] => Some((values.count(offset)?, values.count(length)?)),
                _ => return None,
            },
        };
        Some(StorageRef { key, element: *element, elements: values.count(elements)?, view })
    };
    match described() {
        Some(reference) => Ok(Some(reference)),
        None => rule("its pickle describes a storage by something other than class, key and length"),
    }
}

/// What a value turns out to be.
pub(super) enum Item {
    /// A tensor, without its name, and what tells two views of the same elements from others.
    Tensor(Box<Tensor>, ViewKey),
    /// A tensor that is not read, and why.
    Unread(String),
}

/// Two views with the same key are the same tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ViewKey {
    start: u64,
    element: &'static str,
    shape: Vec<usize>,
    strides: Vec<u64>,
}

/// The tensors of a pickle.
pub(super) struct Tensors<'a> {
    pub values: &'a Values,
    places: &'a Places,
    file: usize,
    /// The file's length.
    pub file_bytes: u64,
}

impl<'a> Tensors<'a> {
    pub fn new(values: &'a Values, pickled: &'a Pickled, file: usize, file_bytes: u64) -> Tensors<'a> {
        Tensors { values, places: &pickled.places, file, file_bytes }
    }

    /// Whether a value is a tensor, readable or not.
    pub fn is_tensor(&self, id: Id) -> bool {
        match (self.values.get(id), self.places) {
            (Value::Object(object), _) => {
                matches!(object.class, Global::Rebuild(how) if how != Rebuild::Array)
            }
            (Value::Persistent(key), Places::Tensors { tensors, .. }) => {
                self::key(self.values, *key).is_some_and(|key| tensors.contains_key(&key))
            }
            _ => false,
        }
    }

    /// Whether a value is a NumPy array.
    pub fn is_array(&self, id: Id) -> bool {
        matches!(self.values.get(id), Value::Object(o) if o.class == Global::Rebuild(Rebuild::Array))
    }

    /// Reads what a tensor is, and checks it.
    pub fn read(&self, id: Id) -> Checked<Item> {
        match self.geometry(id)? {
            Ok(geometry) => self.place(&geometry),
            Err(reason) => Ok(Item::Unread(reason.to_owned())),
        }
    }

    /// The view that a tensor is; or why it is none.
    fn geometry(&self, mut id: Id) -> Checked<Result<Geometry, &'static str>> {
        for _ in 0..MAX_WRAPPERS {
            let object = match (self.values.get(id), self.places) {
                (Value::Object(object), _) => object,
                (Value::Persistent(key), Places::Tensors { tensors, .. }) => {
                    let found = self::key(self.values, *key).and_then(|key| tensors.get(&key));
                    return found.map_or_else(
                        || rule("its pickle names a tensor that is missing"),
                        |g| Ok(Ok(g.clone())),
                    );
                }
                _ => break,
            };
            let arguments = self.values.sequence(object.arguments).unwrap_or_default();
            match object.class {
                Global::Rebuild(Rebuild::Parameter) => id = arguments.first().copied().unwrap_or(Id::NONE),
                Global::Rebuild(Rebuild::FromType) => {
                    let &[function, _, arguments, ..] = arguments else { break };
                    let arguments = self.values.sequence(arguments).unwrap_or_default();
                    return match self.values.get(function) {
                        Value::Global(Global::Rebuild(how)) => self.rebuild(*how, arguments),
                        _ => Ok(Err("a tensor of a class of its own")),
                    };
                }
                Global::Rebuild(how) => return self.rebuild(how, arguments),
                _ => break,
            }
        }
        Ok(Err("a tensor whose data are not read"))
    }

    fn rebuild(&self, how: Rebuild, arguments: &[Id]) -> Checked<Result<Geometry, &'static str>> {
        let typed = match how {
            Rebuild::Plain => false,
            Rebuild::Typed => true,
            Rebuild::Unread(reason) => return Ok(Err(reason)),
            Rebuild::Array => return Ok(Err("a NumPy array, no tensor")),
            Rebuild::Parameter | Rebuild::FromType => return Ok(Err("a tensor of a class of its own")),
        };
        let &[storage, offset, shape, strides, ref more @ ..] = arguments else {
            return rule("its pickle makes a tensor of too few arguments");
        };
        let element = typed.then(|| more.get(2).map(|id| self.values.get(*id))).flatten();
        let element = match element {
            Some(Value::Global(Global::Dtype(element))) => Some(*element),
            _ if typed => return Ok(Err("a tensor of an element type that is not known")),
            _ => None,
        };
        // A view that conjugates or negates its storage says so behind all else.
        let metadata = more.get(if typed { 3 } else { 2 }).and_then(|id| self.values.mapping(*id));
        let says =
            |entries: &[(Id, Id)]| entries.len() > 4 || entries.iter().any(|(_, set)| *set != Id::FALSE);
        if metadata.is_some_and(says) {
            return Ok(Err("a conjugated or negated view, which this version does not read"));
        }
        let Value::Persistent(storage) = self.values.get(storage) else {
            return rule("its pickle makes a tensor of something that is no storage");
        };
        let region = self.region(*storage, element)?;
        let (offset, shape, strides) = (self.values.count(offset), self.counts(shape), self.counts(strides));
        match (offset, shape, strides) {
            (Some(offset), Some(shape), Some(strides)) => Ok(Ok(Geometry { region, offset, shape, strides })),
            _ => rule("its pickle makes a tensor with an offset, sizes or strides that are not counts"),
        }
    }

    /// A tuple of at most [`MAX_DIMENSIONS`] counts.
    fn counts(&self, id: Id) -> Option<Vec<u64>> {
        let items = self.values.sequence(id).filter(|items| items.len() <= MAX_DIMENSIONS as usize)?;
        items.iter().map(|id| self.values.count(*id)).collect()
    }

    /// Where a storage lies, with the type of its elements. `element` is the tensor's own type, for
    /// storages without one.
    fn region(&self, id: Id, element: Option<ElementRef>) -> Checked<Region> {
        let storages = match self.places {
            Places::Storages(storages) | Places::Tensors { storages, .. } => storages,
        };
        if let (Places::Tensors { .. }, Some(key)) = (self.places, key(self.values, id)) {
            return match storages.get(&key) {
                Some(region) => Ok(region.clone()),
                None => rule(format!("its pickle names the storage `{}`, which is missing", printable(&key))),
            };
        }
        let Some(reference) = storage_ref(self.values, id)? else {
            return rule("its pickle makes a tensor of something that is no storage");
        };
        let named = printable(&reference.key);
        let Some(found) = storages.get(&reference.key) else {
            return rule(format!("its pickle names the storage `{named}`, which is missing"));
        };
        let bytes = found.bytes.end - found.bytes.start;
        let width = reference.element.map_or(1, |element| element.bytes);
        if reference.elements.checked_mul(width) != Some(bytes) {
            return rule(format!(
                "the storage `{named}` has {bytes} bytes, but its pickle says {} elements of {width}",
                reference.elements
            ));
        }
        let Some(element) = element.or(reference.element) else {
            return rule(format!("its pickle gives the elements of the storage `{named}` no type"));
        };
        let whole = Region { bytes: found.bytes.clone(), element: Some(element) };
        match reference.view {
            None => Ok(whole),
            Some((offset, length)) => whole
                .part(offset, length)
                .map_or_else(|| rule(format!("a view of the storage `{named}` lies outside of it")), Ok),
        }
    }

    /// Checks a view against its storage, and says how its elements are read.
    fn place(&self, geometry: &Geometry) -> Checked<Item> {
        let Some(element) = geometry.region.element else {
            return rule("a storage has no element type");
        };
        let Some((shape, elements)) = checked_shape(&geometry.shape) else {
            return rule("its shape has a size that overflows");
        };
        let text = shape_text(&shape);
        if geometry.strides.len() != shape.len() {
            return rule(format!("its shape {text} and its {} strides do not agree", geometry.strides.len()));
        }
        let stored = (geometry.region.bytes.end - geometry.region.bytes.start) / element.bytes;
        let last = if elements == 0 { Some(0) } else { last_element(geometry) };
        let fits = last.is_some_and(|last| elements == 0 || last < stored);
        if !fits {
            return rule(format!(
                "its shape {text} with offset {} reaches beyond the {stored} elements of its storage",
                geometry.offset
            ));
        }
        let Some(dtype) = element.dtype else {
            return Ok(Item::Unread(format!("{} elements, which this version does not read", element.name)));
        };
        // An expanded view repeats its elements by strides of zero: it could be of any size.
        if elements as u64 > stored {
            return Ok(Item::Unread(format!(
                "a view that repeats {stored} stored elements {elements} times over"
            )));
        }
        let start = match elements {
            0 => geometry.region.bytes.start,
            _ => geometry.region.bytes.start + geometry.offset * element.bytes,
        };
        // A dimension of one element has a stride in name only.
        let used =
            geometry.strides.iter().zip(&shape).map(|(stride, size)| if *size > 1 { *stride } else { 0 });
        let strides: Vec<u64> = used.collect();
        let content = if elements == 0 || is_contiguous(&shape, &strides) {
            Content::Stored { file: self.file, bytes: start..start + elements as u64 * element.bytes }
        } else {
            let bytes = start..geometry.region.bytes.end;
            match Strided::new(self.file, bytes, dtype, &shape, &strides) {
                Some(strided) => Content::Encoded(Arc::new(strided)),
                None => return rule(format!("its shape {text} does not fit its strides")),
            }
        };
        let key = ViewKey { start, element: element.name, shape: shape.clone(), strides };
        let tensor = Tensor { name: String::new(), dtype, shape, elements, content, aliases: Vec::new() };
        Ok(Item::Tensor(Box::new(tensor), key))
    }
}

/// The shape in the machine's own integers, and the number of elements. Also without its zeros the
/// product must fit: a later stage multiplies some of the dimensions.
fn checked_shape(shape: &[u64]) -> Option<(Vec<usize>, usize)> {
    let dims: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    let product = dims.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let elements = if dims.contains(&0) { 0 } else { product };
    Some((dims, elements))
}

/// The position of the last element in the storage: offset + Σ (size − 1)·stride.
fn last_element(geometry: &Geometry) -> Option<u64> {
    let dims = geometry.shape.iter().zip(&geometry.strides);
    dims.into_iter().try_fold(geometry.offset, |sum, (size, stride)| {
        sum.checked_add(size.checked_sub(1)?.checked_mul(*stride)?)
    })
}

/// Whether the elements lie row by row without a gap; strides of dimensions of one do not matter.
fn is_contiguous(shape: &[usize], strides: &[u64]) -> bool {
    let mut expected = 1;
    for (size, stride) in shape.iter().zip(strides).rev().filter(|(size, _)| **size > 1) {
        if *stride != expected {
            return false;
        }
        expected *= *size as u64;
    }
    true
}
