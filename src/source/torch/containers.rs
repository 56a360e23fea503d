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
        found.name(name.len())?;
        graph.collect(name.into_owned(), id, &mut found)?;
    }
    check_the_rest(tensors)?;
    found.leave_out_averages();
    found.unwrap_names();
    found.contents(tensors.file_bytes)
}

/// Tensors that are left out must be sound as well: a file that lies about one is not to be trusted.
fn check_the_rest(tensors: &Tensors) -> Checked<()> {
    for (id, value) in tensors.values.iter() {
        if matches!(value, Value::Object(o) if matches!(o.class, Global::Rebuild(_))) {
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
