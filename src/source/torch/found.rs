//! The tensors of the model as they are found: named, counted against bounds, told from their
//! aliases, and at last freed of what wrappers added to their names.

use std::collections::{HashMap, HashSet};

use super::containers::AVERAGED;
use super::rebuild::{Item, ViewKey};
use crate::source::problem::{Checked, rule, unusable};
use crate::source::{Contents, LeftOut};
use crate::tensors::Tensor;
use crate::text::{count, printable};

/// Segments of names that wrappers around a module add: torch.compile, FSDP, activation checkpoints.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
/// What DataParallel and its kind put before every name.
const PARALLEL: &str = "module.";
/// The most names of tensors, and of containers around them, in one file.
const MAX_NAMES: usize = 1 << 18;
/// The longest that all names may be together, in bytes.
const MAX_NAME_BYTES: usize = 64 << 20;
/// The most entries of containers that are looked at for their names.
const MAX_ENTRIES: usize = 1 << 23;
/// Views may share their storage, but the tensors of a file may not hold more than this many times
/// the file: a small file must not keep a machine busy for long.
const MAX_SHARING: u64 = 16;

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

    /// Averaged copies within a flat list of names, as latent diffusion models keep them.
    pub fn leave_out_averages(&mut self) {
        let of = |name: &str| {
            let first = name.split('.').next().unwrap_or_default();
            (first.len() < name.len()).then(|| AVERAGED.iter().find(|a| **a == first)).flatten()
        };
        if self.tensors.iter().all(|tensor| of(&tensor.name).is_some()) {
            return;
        }
        for average in AVERAGED {
            let before = self.tensors.len();
            self.tensors.retain(|tensor| of(&tensor.name) != Some(&average));
            let gone = before - self.tensors.len();
            if gone > 0 {
                let gone = count(gone, "tensor", "tensors");
                let reason = format!("an averaged copy of the weights (EMA): {gone}");
                self.left_out.push(LeftOut { name: average.to_owned(), reason });
            }
        }
    }

    /// Takes the wrappers' segments out of all names, unless two would become one.
    pub fn unwrap_names(&mut self) {
        let names = |tensors: &[Tensor]| -> Vec<String> {
            let all = tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases));
            all.map(|name| WRAPPERS.iter().fold(name.clone(), |name, wrapper| without(&name, wrapper)))
                .collect()
        };
        let mut unwrapped = names(&self.tensors);
        // Twice is seen; without a bound, a long name of nothing else would be long work.
        for _ in 0..2 {
            if unwrapped.iter().all(|name| name.starts_with(PARALLEL)) {
                unwrapped.iter_mut().for_each(|name| drop(name.drain(..PARALLEL.len())));
            }
        }
        let distinct: HashSet<&str> = unwrapped.iter().map(String::as_str).collect();
        if distinct.len() < unwrapped.len() || distinct.contains("") {
            return;
        }
        let mut unwrapped = unwrapped.into_iter();
        for tensor in &mut self.tensors {
            for name in std::iter::once(&mut tensor.name).chain(&mut tensor.aliases) {
                *name = unwrapped.next().unwrap_or_default();
            }
        }
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

/// A name without the segments that are `wrapper`.
fn without(name: &str, wrapper: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    let mut rest = name;
    loop {
        while let Some(after) = rest.strip_prefix(wrapper) {
            rest = after;
        }
        match rest.split_once('.') {
            Some((segment, after)) => {
                kept.push_str(segment);
                kept.push('.');
                rest = after;
            }
            None => {
                kept.push_str(rest);
                return kept;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_segments() {
        assert_eq!(without("_orig_mod.a.weight", "_orig_mod."), "a.weight");
        assert_eq!(without("a._orig_mod._orig_mod.b", "_orig_mod."), "a.b");
        assert_eq!(without("my_orig_mod.b", "_orig_mod."), "my_orig_mod.b");
    }
}
