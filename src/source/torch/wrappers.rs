//! What training code adds to all the names of a model. Which names have it can only be told from all
//! shards together, so this comes when the index has been held against the names as they are stored.

use std::collections::HashSet;

use super::containers::AVERAGED;
use crate::source::{Contents, LeftOut};
use crate::tensors::Tensor;
use crate::text::count;

/// Segments of names that wrappers around a module add: torch.compile, FSDP, activation checkpoints.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
/// What DataParallel and its kind put before every name.
const PARALLEL: &str = "module.";

/// Averaged copies within a flat list of names, as latent diffusion models keep them.
pub(super) fn leave_out_averages(contents: &mut Contents) {
    let of = |name: &str| {
        let first = name.split('.').next().unwrap_or_default();
        (first.len() < name.len()).then(|| AVERAGED.iter().find(|a| **a == first)).flatten()
    };
    if contents.tensors.iter().all(|tensor| of(&tensor.name).is_some()) {
        return;
    }
    for average in AVERAGED {
        let before = contents.tensors.len();
        contents.tensors.retain_mut(|tensor| {
            if of(&tensor.name) != Some(&average) {
                return true;
            }
            // What shares its elements with the model stays, under the name that it has there.
            let other = tensor.aliases.iter().position(|alias| of(alias).is_none());
            match other {
                Some(position) => tensor.name = tensor.aliases.remove(position),
                None => return false,
            }
            true
        });
        let gone = before - contents.tensors.len();
        if gone > 0 {
            let gone = count(gone, "tensor", "tensors");
            let reason = format!("an averaged copy of the weights (EMA): {gone}");
            contents.left_out.push(LeftOut { name: average.to_owned(), reason });
        }
    }
}

/// Takes the wrappers' segments out of all names, unless two would become one.
pub(super) fn unwrap_names(tensors: &mut [Tensor]) {
    let all = tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases));
    let mut unwrapped: Vec<String> =
        all.map(|name| WRAPPERS.iter().fold(name.clone(), |name, wrapper| without(name, wrapper))).collect();
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
    for tensor in tensors {
        for name in std::iter::once(&mut tensor.name).chain(&mut tensor.aliases) {
            *name = unwrapped.next().unwrap_or_default();
        }
    }
}

/// A name without the segments that are `wrapper`.
fn without(name: String, wrapper: &str) -> String {
    if !name.contains(wrapper) {
        return name;
    }
    let mut kept = String::with_capacity(name.len());
    let mut rest = name.as_str();
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
        let without = |name: &str| without(name.to_owned(), "_orig_mod.");
        assert_eq!(without("_orig_mod.a.weight"), "a.weight");
        assert_eq!(without("a._orig_mod._orig_mod.b"), "a.b");
        assert_eq!(without("my_orig_mod.b"), "my_orig_mod.b");
    }
}
