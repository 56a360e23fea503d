//! The tensors of the model as they are found: named, counted against bounds, told from their
//! aliases.

use std::collections::{HashMap, HashSet};

use super::rebuild::{Item, ViewKey};
use crate::source::problem::{Checked, rule, unusable};
use crate::source::{Contents, LeftOut, MAX_SHARING};
use crate::tensors::Tensor;
use crate::text::printable;

/// The most names of tensors, and of containers around them, in one file.
const MAX_NAMES: usize = 1 << 17;
/// The longest that all names may be together, in bytes.
const MAX_NAME_BYTES: usize = 1 << 24;
/// The most entries of containers that are looked at for their names.
const MAX_ENTRIES: usize = 1 << 23;

/// What was found of the model.
#[derive(Default)]
pub(super) struct Found {
    tensors: Vec<Tensor>,
    left_out: Vec<LeftOut>,
    /// The position of the first tensor with the same elements.
    views: HashMap<ViewKey, usize>,
    names: usize,
    name_bytes: usize,
    entries: usize,
}

impl Found {
    /// Counts a name. Shared structures are walked once for each name that they have, and a few bytes
    /// can give them very many.
    pub fn name(&mut self, bytes: usize) -> Checked<()> {
        self.names += 1;
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        if self.names > MAX_NAMES || self.name_bytes > MAX_NAME_BYTES {
            return rule(format!(
                "it holds more than {MAX_NAMES} names, or names of more than {MAX_NAME_BYTES} bytes"
            ));
        }
        Ok(())
    }

    /// Counts entries of a container that are looked at.
    pub fn look_at(&mut self, entries: usize) -> Checked<()> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MAX_ENTRIES {
            return rule(format!("its containers share each other {MAX_ENTRIES} times over"));
        }
        Ok(())
    }

    pub fn leave_out(&mut self, name: String, reason: String) -> Checked<()> {
        self.name(name.len())?;
        self.left_out.push(LeftOut { name, reason });
        Ok(())
    }

    pub fn add(&mut self, name: String, item: Item) -> Checked<()> {
        match item {
            Item::Unread(reason) => self.leave_out(name, reason)?,
            Item::Tensor(tensor, key) => {
                let next = self.tensors.len();
                // Tensors without elements lie nowhere, and so not at the same place.
                let first = if tensor.elements == 0 { next } else { *self.views.entry(key).or_insert(next) };
                match self.tensors.get_mut(first) {
                    Some(first) => first.aliases.push(name),
                    None => self.tensors.push(Tensor { name, ..*tensor }),
                }
            }
        }
        Ok(())
    }

    pub fn contents(self, file_bytes: u64) -> Checked<Contents> {
        let mut names = HashSet::new();
        let all = self.tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases));
        if let Some(twice) = all.into_iter().find(|name| !names.insert(name.as_str())) {
            return rule(format!("the tensor `{}` occurs twice", printable(twice)));
        }
        let bytes = self.tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.stored_bytes()));
        if bytes > file_bytes.saturating_mul(MAX_SHARING) {
            return rule(format!(
                "its tensors share their storages so that they hold {bytes} bytes, more than {MAX_SHARING} times the file"
            ));
        }
        if self.tensors.is_empty() {
            return unusable(match self.left_out.as_slice() {
                [] => "it holds no tensors".to_owned(),
                [first, rest @ ..] => format!(
                    "it holds no weights of a model, only `{}` ({}){}",
                    printable(&first.name),
                    printable(&first.reason),
                    if rest.is_empty() { String::new() } else { format!(" and {} more like it", rest.len()) }
                ),
            });
        }
        Ok(Contents { tensors: self.tensors, config: None, left_out: self.left_out })
    }
}
