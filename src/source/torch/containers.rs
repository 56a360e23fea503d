//! Which part of what was saved is the model. The rule, level by level from the outside:
//!
//! 1. A mapping with `state` and `param_groups` is an optimizer's state.
//! 2. Where one of [`MODEL_KEYS`] holds tensors, it is the model (the first of that list), and all else
//!    beside it is left out.
//! 3. Otherwise entries with the name of something else ([`kind_of`]) are left out. A single mapping
//!    that remains is the model; of several things each belongs to it, under its own name. Where
//!    nothing remains but an averaged copy of the weights, that is the model.
//!
//! What the wrappers of parallel or compiled models add to the names is taken off again.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::pickle::{Global, Id, Value};
use super::rebuild::{Item, Tensors, ViewKey};
use super::{Outcome, rule, unusable};
use crate::source::{Contents, LeftOut};
use crate::tensors::Tensor;
use crate::text::{count, printable};

/// Names under which training code saves a model beside other things, the surest first.
const MODEL_KEYS: [&str; 9] = [
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "model_weights", "weights",
];
/// Averaged copies of a model.
const AVERAGED: [&str; 9] = [
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "ema_net",
    "params_ema", "shadow_params",
];
/// Segments of names that wrappers around a module add: torch.compile, FSDP, activation checkpoints.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
/// What DataParallel and its kind put before every name.
const PARALLEL: &str = "module.";
/// How many mappings may lie around the model.
const MAX_LEVELS: usize = 16;
/// How deep tensors may lie within the model; a structure that holds itself has no bottom.
const MAX_DEPTH: usize = 64;
/// The most names of tensors, and of containers around them, in one file.
const MAX_NAMES: usize = 1 << 18;
/// The longest that all names may be together, in bytes.
const MAX_NAME_BYTES: usize = 64 << 20;
/// The most entries of containers that are looked at for their names.
const MAX_ENTRIES: usize = 1 << 23;
/// Views may share their storage, but the tensors of a file may not hold more than this many times
/// the file: a small file must not keep a machine busy for long.
const MAX_SHARING: u64 = 16;

/// The model's tensors, and what stands beside them.
pub(super) fn contents(tensors: &Tensors, root: Id) -> Outcome<Contents> {
    let graph = Graph::new(tensors, root);
    let mut found = Found::default();
    for (name, id) in graph.choose(root, &mut found)? {
        graph.collect(name.into_owned(), id, &mut found)?;
    }
    check_the_rest(tensors)?;
    found.leave_out_averages();
    found.unwrap_names();
    found.contents(tensors.file_bytes)
}

/// Tensors that are left out must be sound as well: a file that lies about one is not to be trusted.
fn check_the_rest(tensors: &Tensors) -> Outcome<()> {
    for (id, value) in tensors.values.iter() {
        if matches!(value, Value::Object(o) if matches!(o.class, Global::Rebuild(_))) {
            tensors.read(id).map_err(|problem| named(problem, "a tensor outside of the model"))?;
        }
    }
    Ok(())
}

/// Puts the tensor's name before what is wrong with it.
fn named(problem: super::Problem, what: &str) -> super::Problem {
    match problem {
        super::Problem::Rule(reason) => super::Problem::Rule(format!("{what}: {reason}")),
        other => other,
    }
}

/// What the name of an entry says that it is, where it is not the model.
fn kind_of(name: &str) -> Option<&'static str> {
    const OPTIMIZERS: [&str; 5] =
        ["optimizer", "optimizers", "optim", "optimizer_states", "last_optimizer_state"];
    const SCHEDULERS: [&str; 5] = ["scheduler", "schedulers", "lr_scheduler", "lr_schedulers", "sched"];
    const SCALERS: [&str; 4] = ["scaler", "grad_scaler", "amp", "amp_scaler"];
    const METRICS: [&str; 9] =
        ["metrics", "history", "losses", "loss", "callbacks", "loops", "stats", "best_acc", "best_loss"];
    /// A longer name is none of them, and not worth the search.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let stem = name.strip_suffix("_state_dict").or_else(|| name.strip_suffix("_state")).unwrap_or(name);
    let is = |list: &[&str], name: &str| list.contains(&name);
    if AVERAGED.contains(&name) || AVERAGED.contains(&stem) {
        Some("an averaged copy of the weights (EMA)")
    } else if is(&OPTIMIZERS, name) || is(&OPTIMIZERS, stem) || stem.starts_with("optimizer_") || stem.ends_with("_optimizer") {
        Some("an optimizer's state")
    } else if is(&SCHEDULERS, stem) || stem.ends_with("_scheduler") {
        Some("a schedule's state")
    } else if is(&SCALERS, stem) {
        Some("a gradient scaler's state")
    } else if name == "rng" || name == "random_state" || name.contains("rng_state") || name.contains("random_state") {
        Some("the state of a random generator")
    } else if is(&METRICS, name) {
        Some("metrics of the training")
    } else {
        None
    }
}

/// The entries that belong to the model, and the others with what they are.
type Parts<'a> = (Vec<Entry<'a>>, Vec<(Cow<'a, str>, Id, Cow<'static, str>)>);

/// The pickle's values as containers of tensors.
struct Graph<'a> {
    tensors: &'a Tensors<'a>,
    /// Tensors in and below each value, along the arena; shared ones count each time.
    counts: Vec<u64>,
}

/// An entry of a container: its name, and what stands there.
type Entry<'a> = (Cow<'a, str>, Id);

impl<'a> Graph<'a> {
    fn new(tensors: &'a Tensors<'a>, root: Id) -> Graph<'a> {
        let mut graph = Graph { tensors, counts: vec![0; tensors.values.len()] };
        graph.count(root);
        graph
    }

    /// Counts the tensors below every value, each value once, without recursion: what holds itself
    /// counts as nothing where it does.
    fn count(&mut self, root: Id) {
        let mut seen = vec![false; self.counts.len()];
        let mut path = vec![(root, 0)];
        while let Some((id, next)) = path.pop() {
            if let Some(child) = self.child(id, next) {
                path.push((id, next + 1));
                let fresh = seen.get_mut(child.position()).is_some_and(|seen| !std::mem::replace(seen, true));
                if fresh {
                    path.push((child, 0));
                }
                continue;
            }
            let mut sum = u64::from(self.tensors.is_tensor(id));
            for position in 0.. {
                let Some(child) = self.child(id, position) else { break };
                sum = sum.saturating_add(self.tensors_in(child));
            }
            if let Some(count) = self.counts.get_mut(id.position()) {
                *count = sum;
            }
        }
    }

    /// A container's members by their position.
    fn child(&self, id: Id, position: usize) -> Option<Id> {
        let values = self.tensors.values;
        match values.mapping(id) {
            Some(entries) => entries.get(position).map(|(_, value)| *value),
            None => values.sequence(id)?.get(position).copied(),
        }
    }

    fn tensors_in(&self, id: Id) -> u64 {
        self.counts.get(id.position()).copied().unwrap_or(0)
    }

    fn is_container(&self, id: Id) -> bool {
        self.tensors.values.mapping(id).is_some() || self.tensors.values.sequence(id).is_some()
    }

    /// The entries of a mapping or a sequence. Numbers are names, too; other keys name nothing.
    fn entries(&self, id: Id) -> Vec<Entry<'a>> {
        let values = self.tensors.values;
        if let Some(entries) = values.mapping(id) {
            let name = |(position, (key, value)): (usize, &(Id, Id))| {
                let text = values.text(*key).map(Cow::Borrowed);
                let number = || values.int(*key).map_or_else(|| format!("#{position}"), |n| n.to_string());
                (text.unwrap_or_else(|| Cow::Owned(number())), *value)
            };
            return entries.iter().enumerate().map(name).collect();
        }
        let items = values.sequence(id).unwrap_or_default();
        items.iter().enumerate().map(|(position, value)| (Cow::Owned(position.to_string()), *value)).collect()
    }

    fn is_optimizer(&self, id: Id) -> bool {
        let values = self.tensors.values;
        // No optimizer has many entries beside the two: a long mapping is not searched.
        let entries = values.mapping(id).filter(|entries| entries.len() <= 8).unwrap_or_default();
        let has = |name: &str| entries.iter().any(|(key, _)| values.text(*key) == Some(name));
        has("param_groups") && has("state")
    }

    /// Follows the rule above from the outside in. Gives the parts of the model, each with the name
    /// that goes before its own.
    fn choose(&self, root: Id, found: &mut Found) -> Outcome<Vec<Entry<'a>>> {
        let mut node = root;
        let mut place = String::new();
        for _ in 0..MAX_LEVELS {
            if self.tensors.is_tensor(node) {
                return Ok(vec![(Cow::Borrowed("tensor"), node)]);
            }
            if self.is_optimizer(node) {
                let name = if place.is_empty() { "the file" } else { place.trim_end_matches('.') };
                found.leave_out(name.to_owned(), self.reason(node, "an optimizer's state"))?;
                return Ok(Vec::new());
            }
            let entries = self.entries(node);
            let (model, other) = match self.by_key(&entries) {
                Some(position) => self.only(entries, position),
                None => self.by_what_they_are(entries),
            };
            for (name, id, reason) in other {
                found.leave_out(format!("{place}{name}"), self.reason(id, &reason))?;
            }
            match model.as_slice() {
                [(name, only)] if self.is_container(*only) => {
                    found.name(place.len() + name.len())?;
                    place.push_str(name);
                    place.push('.');
                    node = *only;
                }
                _ => return Ok(model),
            }
        }
        Ok(vec![(Cow::Borrowed(""), node)])
    }

    /// The entry that one of the [`MODEL_KEYS`] names.
    fn by_key(&self, entries: &[Entry]) -> Option<usize> {
        let holds = |e: &Entry, key: &str| e.0 == key && self.is_container(e.1) && self.tensors_in(e.1) > 0;
        MODEL_KEYS.iter().find_map(|key| entries.iter().position(|entry| holds(entry, key)))
    }

    /// Parts: the entry at a position, and all others with tensors.
    fn only(&self, entries: Vec<Entry<'a>>, position: usize) -> Parts<'a> {
        let mut parts: Parts = (Vec::new(), Vec::new());
        for (index, (name, id)) in entries.into_iter().enumerate() {
            if index == position {
                parts.0.push((name, id));
            } else if let Some(reason) = self.kind(&name, id) {
                parts.1.push((name, id, Cow::Borrowed(reason)));
            } else if self.tensors_in(id) > 0 {
                parts.1.push((name, id, Cow::Borrowed("beside the model")));
            }
        }
        parts
    }

    /// Parts: what could be the model, and what is something else by its name or its form.
    fn by_what_they_are(&self, entries: Vec<Entry<'a>>) -> Parts<'a> {
        let mut parts: Parts = (Vec::new(), Vec::new());
        for (name, id) in entries {
            match self.kind(&name, id) {
                Some(reason) => parts.1.push((name, id, Cow::Borrowed(reason))),
                None if self.tensors_in(id) > 0 || self.tensors.is_array(id) => parts.0.push((name, id)),
                None => {}
            }
        }
        let average = |e: &(Cow<str>, Id, _)| AVERAGED.contains(&&*e.0) && self.tensors_in(e.1) > 0;
        if let (true, Some(position)) = (parts.0.is_empty(), parts.1.iter().position(average)) {
            let (name, id, _) = parts.1.remove(position);
            parts.0.push((name, id));
        }
        parts
    }

    /// What an entry is, where it is not the model: by its name, or as an optimizer by its form.
    /// Single numbers are nothing to be said of.
    fn kind(&self, name: &str, id: Id) -> Option<&'static str> {
        let kind = kind_of(name).or_else(|| self.is_optimizer(id).then_some("an optimizer's state"));
        kind.filter(|_| self.is_container(id) || self.tensors_in(id) > 0)
    }

    fn reason(&self, id: Id, what: &str) -> String {
        let tensors = usize::try_from(self.tensors_in(id)).unwrap_or(usize::MAX);
        format!("{what}: {}", count(tensors, "tensor", "tensors"))
    }

    /// Every tensor in and below a value, named by the keys on the way.
    fn collect(&self, name: String, id: Id, found: &mut Found) -> Outcome<()> {
        let mut path = vec![(name, id, 0)];
        while let Some((name, id, depth)) = path.pop() {
            if self.tensors.is_tensor(id) {
                let shown = format!("the tensor `{}`", printable(&name));
                let item = self.tensors.read(id).map_err(|problem| named(problem, &shown))?;
                found.add(name, item)?;
            } else if self.tensors.is_array(id) {
                found.leave_out(name, "a NumPy array, no tensor".to_owned())?;
            } else if self.tensors_in(id) > 0 {
                if depth == MAX_DEPTH {
                    return rule(format!("its tensors lie more than {MAX_DEPTH} containers deep"));
                }
                let entries = self.entries(id);
                found.look_at(entries.len())?;
                for (key, value) in entries.into_iter().rev() {
                    if self.tensors_in(value) > 0 || self.tensors.is_array(value) {
                        let full = if name.is_empty() { key.into_owned() } else { format!("{name}.{key}") };
                        found.name(full.len())?;
                        path.push((full, value, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What was found of the model.
#[derive(Default)]
struct Found {
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
    fn name(&mut self, bytes: usize) -> Outcome<()> {
        self.names += 1;
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        if self.names > MAX_NAMES || self.name_bytes > MAX_NAME_BYTES {
            return rule(format!("it holds more than {MAX_NAMES} names, or names of more than {MAX_NAME_BYTES} bytes"));
        }
        Ok(())
    }

    /// Counts entries of a container that are looked at.
    fn look_at(&mut self, entries: usize) -> Outcome<()> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MAX_ENTRIES {
            return rule(format!("its containers share each other {MAX_ENTRIES} times over"));
        }
        Ok(())
    }

    fn leave_out(&mut self, name: String, reason: String) -> Outcome<()> {
        self.name(name.len())?;
        self.left_out.push(LeftOut { name, reason });
        Ok(())
    }

    fn add(&mut self, name: String, item: Item) -> Outcome<()> {
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
    fn leave_out_averages(&mut self) {
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
    fn unwrap_names(&mut self) {
        let names = |tensors: &[Tensor]| -> Vec<String> {
            let all = tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases));
            all.map(|name| WRAPPERS.iter().fold(name.clone(), |name, wrapper| without(&name, wrapper))).collect()
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

    fn contents(self, file_bytes: u64) -> Outcome<Contents> {
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

    #[test]
    fn names_of_other_things() {
        for name in ["optimizer", "optimizer_state_dict", "optimizer_states", "G_optimizer", "optim"] {
            assert_eq!(kind_of(name), Some("an optimizer's state"), "{name}");
        }
        for name in ["ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema"] {
            assert_eq!(kind_of(name), Some("an averaged copy of the weights (EMA)"), "{name}");
        }
        for name in ["lr_schedulers", "scheduler_state_dict", "cuda_rng_state", "callbacks", "scaler"] {
            assert!(kind_of(name).is_some(), "{name}");
        }
        for name in ["generator", "encoder", "weight", "schedule", "ema.weight"] {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }
}
