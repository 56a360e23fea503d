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
use std::collections::HashSet;

use super::found::Found;
use super::pickle::{Global, Id, Value};
use super::rebuild::Tensors;
use crate::source::Contents;
use crate::source::problem::{Checked, Problem, rule};
use crate::text::{count, printable};

/// Names under which training code saves a model beside other things, the surest first.
const MODEL_KEYS: [&str; 9] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "model_weights",
    "weights",
];
/// Averaged copies of a model.
pub(super) const AVERAGED: [&str; 9] = [
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "ema_net",
    "params_ema",
    "shadow_params",
];
/// How many mappings may lie around the model.
const MAX_LEVELS: usize = 16;
/// How deep tensors may lie within the model; a structure that holds itself has no bottom.
const MAX_DEPTH: usize = 64;

/// The model's tensors, and what stands beside them.
pub(super) fn contents(tensors: &Tensors, root: Id) -> Checked<Contents> {
    let graph = Graph::new(tensors, root);
    let mut found = Found::default();
    for (name, id) in graph.choose(root, &mut found)? {
        graph.collect(name.into_owned(), id, &mut found)?;
    }
    check_the_rest(tensors)?;
    found.contents(tensors.file_bytes)
}

/// Tensors that are left out must be sound as well: a file that lies about one is not to be trusted.
fn check_the_rest(tensors: &Tensors) -> Checked<()> {
    // The same arguments may be called again and again.
    let mut seen = HashSet::new();
    for (id, value) in tensors.values.iter() {
        let Value::Object(object) = value else { continue };
        let Global::Rebuild(how) = object.class else { continue };
        if seen.insert((how, object.arguments)) {
            tensors.read(id).map_err(|problem| named(problem, "a tensor outside of the model"))?;
        }
    }
    Ok(())
}

/// Puts the tensor's name before what is wrong with it.
fn named(problem: Problem, what: &str) -> Problem {
    match problem {
        Problem::Rule(reason) => Problem::Rule(format!("{what}: {reason}")),
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
    } else if is(&OPTIMIZERS, name)
        || is(&OPTIMIZERS, stem)
        || stem.starts_with("optimizer_")
        || stem.ends_with("_optimizer")
    {
        Some("an optimizer's state")
    } else if is(&SCHEDULERS, stem) || stem.ends_with("_scheduler") {
        Some("a schedule's state")
    } else if is(&SCALERS, stem) {
        Some("a gradient scaler's state")
    } else if name == "rng"
        || name == "random_state"
        || name.contains("rng_state")
        || name.contains("random_state")
    {
        Some("the state of a random generator")
    } else if is(&METRICS, name) {
        Some("metrics of the training")
    } else {
        None
    }
}

/// The pickle's values as containers of tensors.
struct Graph<'a> {
    tensors: &'a Tensors<'a>,
    /// Tensors in and below each value, along the arena; shared ones count each time.
    counts: Vec<u32>,
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
        let mut path = vec![(root, 0u32)];
        while let Some((id, next)) = path.pop() {
            if let Some(child) = self.child(id, next as usize) {
                path.push((id, next + 1));
                let fresh = seen.get_mut(child.position()).is_some_and(|seen| !std::mem::replace(seen, true));
                if fresh {
                    path.push((child, 0));
                }
                continue;
            }
            let mut sum = u32::from(self.tensors.is_tensor(id));
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

    fn tensors_in(&self, id: Id) -> u32 {
        self.counts.get(id.position()).copied().unwrap_or(0)
    }

    fn is_container(&self, id: Id) -> bool {
        self.tensors.values.mapping(id).is_some() || self.tensors.values.sequence(id).is_some()
    }

    /// How many members a container has.
    fn len(&self, id: Id) -> usize {
        let values = self.tensors.values;
        let sequence = || values.sequence(id).map_or(0, <[Id]>::len);
        values.mapping(id).map_or_else(sequence, <[(Id, Id)]>::len)
    }

    /// The entries of a mapping or a sequence that may be of interest: tensors, arrays, containers. One
    /// after the other, since there may be very many.
    fn entries(&self, id: Id) -> impl DoubleEndedIterator<Item = Entry<'a>> {
        (0..self.len(id)).filter_map(move |position| self.entry(id, position))
    }

    /// Numbers are names, too; other keys name nothing.
    fn entry(&self, id: Id, position: usize) -> Option<Entry<'a>> {
        let values = self.tensors.values;
        let value = self.child(id, position)?;
        if !(self.is_container(value) || self.tensors_in(value) > 0 || self.tensors.is_array(value)) {
            return None;
        }
        let Some(entries) = values.mapping(id) else {
            return Some((Cow::Owned(position.to_string()), value));
        };
        let (key, _) = *entries.get(position)?;
        let number = || values.int(key).map_or_else(|| format!("#{position}"), |n| n.to_string());
        Some((values.text(key).map_or_else(|| Cow::Owned(number()), Cow::Borrowed), value))
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
    fn choose(&self, root: Id, found: &mut Found) -> Checked<Vec<Entry<'a>>> {
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
            let model = match self.by_key(node) {
                Some(position) => self.only(node, position, &place, found)?,
                None => self.by_what_they_are(node, &place, found)?,
            };
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

    /// The position of the entry that one of the [`MODEL_KEYS`] names, the surest of them.
    fn by_key(&self, node: Id) -> Option<usize> {
        let values = self.tensors.values;
        let rank = |(position, (key, value)): (usize, &(Id, Id))| {
            let key = values.text(*key)?;
            let rank = MODEL_KEYS.iter().position(|known| *known == key)?;
            (self.is_container(*value) && self.tensors_in(*value) > 0).then_some((rank, position))
        };
        let entries = values.mapping(node)?;
        entries.iter().enumerate().filter_map(rank).min().map(|(_, position)| position)
    }

    /// The entry at a position is the model; all others with tensors are left out.
    fn only(&self, node: Id, position: usize, place: &str, found: &mut Found) -> Checked<Vec<Entry<'a>>> {
        for other in (0..self.len(node)).filter(|other| *other != position) {
            let Some((name, id)) = self.entry(node, other) else { continue };
            if let Some(what) = self.kind(&name, id) {
                self.leave_out(place, &name, id, what, found)?;
            } else if self.tensors_in(id) > 0 {
                self.leave_out(place, &name, id, "beside the model", found)?;
            }
        }
        Ok(self.entry(node, position).into_iter().collect())
    }

    /// What could be the model; what is something else by its name or its form is left out.
    fn by_what_they_are(&self, node: Id, place: &str, found: &mut Found) -> Checked<Vec<Entry<'a>>> {
        let holds = |id: Id| self.tensors_in(id) > 0 || self.tensors.is_array(id);
        let is_model = |(name, id): &Entry| self.kind(name, *id).is_none() && holds(*id);
        let is_average = |(name, id): &Entry| AVERAGED.contains(&&**name) && self.tensors_in(*id) > 0;
        // Where there is nothing else, the first averaged copy is the model.
        let mut average = if self.entries(node).any(|entry| is_model(&entry)) {
            None
        } else {
            self.entries(node).find(is_average)
        };
        let mut model: Vec<Entry> = Vec::new();
        for (name, id) in self.entries(node) {
            match self.kind(&name, id) {
                Some(_) if average.as_ref().is_some_and(|a| (&a.0, a.1) == (&name, id)) => {
                    model.extend(average.take());
                }
                Some(what) => self.leave_out(place, &name, id, what, found)?,
                None if holds(id) => {
                    found.name(name.len())?;
                    model.push((name, id));
                }
                None => {}
            }
        }
        Ok(model)
    }

    fn leave_out(&self, place: &str, name: &str, id: Id, what: &str, found: &mut Found) -> Checked<()> {
        found.leave_out(format!("{place}{name}"), self.reason(id, what))
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
    fn collect(&self, name: String, id: Id, found: &mut Found) -> Checked<()> {
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
                found.look_at(self.len(id))?;
                for (key, value) in self.entries(id).rev() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
