//! Names: what a tensor of an adapter is for, and which weight of the base it belongs to.
//!
//! PEFT wraps a model, and saves the names of the wrapped modules behind `base_model.model.`. The
//! wrapped model may itself be a wrapper around what the base file holds (`bert.encoder…` of a
//! classifier over `encoder…` of the file), or the other way round: then all names differ by one
//! prefix.

use std::collections::HashMap;

use crate::text::{natural_cmp, printable};

/// What PEFT puts before the name of every module.
const WRAPPER: &str = "base_model.model.";
/// The original module inside the one that PEFT puts in its place.
const ORIGINAL: &str = "base_layer";

/// What a tensor of an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// A of a layer: [r, in], or [r, in, kernel…].
    A,
    /// B of a layer: [out, r], or [out, r, 1…].
    B,
    /// The bias of B; it is added to the layer's bias, scaled like the product.
    Bias,
    /// A of an embedding: [r, vocabulary].
    EmbeddingA,
    /// B of an embedding: [width, r].
    EmbeddingB,
    /// A whole tensor in place of the base's.
    Whole,
}

/// A tensor's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub part: Part,
    /// The module's name in the adapted model; of a whole tensor the tensor's name.
    pub module: String,
    /// The module that the configuration's patterns are matched against: of the two layers inside
    /// torch's MultiheadAttention that is the attention itself.
    pub configured: String,
}

impl Parsed {
    /// Reads the name of a tensor in an adapter's file; the error is what is wrong with it.
    pub fn of(name: &str) -> Result<Parsed, String> {
        let inner = name.strip_prefix(WRAPPER).unwrap_or(name);
        let segments: Vec<&str> = inner.split('.').collect();
        let mark = segments.iter().position(|s| s.starts_with("lora_") || *s == "token_adapter");
        let (module, part) = match mark.map(|at| segments.split_at(at)) {
            None => (segments.as_slice(), Part::Whole),
            Some((module, ["lora_A", "weight"])) => (module, Part::A),
            Some((module, ["lora_B", "weight"])) => (module, Part::B),
            Some((module, ["lora_B", "bias"])) => (module, Part::Bias),
            Some((module, ["lora_embedding_A"])) => (module, Part::EmbeddingA),
            Some((module, ["lora_embedding_B"])) => (module, Part::EmbeddingB),
            Some((_, ["lora_magnitude_vector", ..])) => {
                return Err("belongs to DoRA, which this version does not read".to_owned());
            }
            Some((_, ["token_adapter", ..])) => {
                return Err(
                    "belongs to `trainable_token_indices`, which this version does not read".to_owned()
                );
            }
            Some((_, rest)) => {
                let rest = rest.join(".");
                return Err(format!("ends with `{}`, which is no part of a LoRA adapter", printable(&rest)));
            }
        };
        if module.is_empty() {
            return Err("names no module".to_owned());
        }
        let outer = module.iter().position(|s| *s == ORIGINAL).and_then(|at| module.get(..at));
        let plain: Vec<&str> = module.iter().copied().filter(|s| *s != ORIGINAL).collect();
        Ok(Parsed { part, module: plain.join("."), configured: outer.unwrap_or(module).join(".") })
    }
}

/// The names of the base's tensors, and the prefix by which those of the adapter differ from them.
#[derive(Debug)]
pub(super) struct Targets {
    positions: HashMap<String, usize>,
}

/// How a name of the adapter becomes one of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    /// The base has something in front.
    Add(String),
    /// The adapter has.
    Remove(String),
}

impl Shift {
    pub fn apply(&self, name: &str) -> Option<String> {
        match self {
            Shift::Add(prefix) => Some(format!("{prefix}{name}")),
            Shift::Remove(prefix) => name.strip_prefix(prefix.as_str()).map(str::to_owned),
        }
    }
}

/// Why names do not fit the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No prefix leads from all of the names to names of the base: this one has none.
    Missing(String),
    /// This name can be either of two.
    Ambiguous(String, [String; 2]),
}

impl Targets {
    /// From every name (tied tensors have several) with the position of its tensor.
    pub fn new(names: impl Iterator<Item = (String, usize)>) -> Targets {
        Targets { positions: names.collect() }
    }

    pub fn get(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    pub fn insert(&mut self, name: String, position: usize) {
        self.positions.insert(name, position);
    }

    /// The position of the tensor that a name of the adapter means: exactly that name first.
    pub fn find(&self, name: &str, shift: Option<&Shift>) -> Option<usize> {
        self.get(name).or_else(|| self.get(&shift?.apply(name)?))
    }

    /// The one prefix that leads from those of `names` that the base does not hold to names that it
    /// holds; `None` where it holds all of them.
    pub fn shift<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Option<Shift>, Unfit> {
        let mut foreign = names.filter(|name| self.get(name).is_none());
        let Some(first) = foreign.next() else { return Ok(None) };
        let mut shifts = self.shifts_of(first);
        let mut last = first;
        for name in foreign {
            if shifts.is_empty() {
                break;
            }
            last = name;
            shifts.retain(|shift| shift.apply(name).is_some_and(|found| self.get(&found).is_some()));
        }
        shifts.sort_by_key(|shift| shift.apply(first));
        let example = |shift: &Shift| shift.apply(first).unwrap_or_default();
        match shifts.as_slice() {
            [] => Err(Unfit::Missing(last.to_owned())),
            [only] => Ok(Some(only.clone())),
            [one, other, ..] => Err(Unfit::Ambiguous(first.to_owned(), [example(one), example(other)])),
        }
    }

    /// Names of the base that are most like one that it lacks, for a message: those of the same
    /// parameter of the same layer, or else any.
    pub fn like(&self, name: &str) -> Vec<&str> {
        const MOST: usize = 2;
        let starts = name.rmatch_indices('.').map(|(at, _)| at).take(2);
        let endings = starts.filter_map(|at| name.get(at..)).collect::<Vec<_>>();
        let names = || self.positions.keys().map(String::as_str);
        let alike = |ending: &&str| names().filter(|base| base.ends_with(*ending)).collect::<Vec<_>>();
        let found = endings.iter().rev().map(alike).find(|found| !found.is_empty());
        let mut found = found.unwrap_or_else(|| names().collect());
        found.sort_by(|a, b| natural_cmp(a, b));
        found.truncate(MOST);
        found
    }

    /// Every prefix that leads from one name to some name of the base.
    fn shifts_of(&self, name: &str) -> Vec<Shift> {
        let longer = self.positions.keys().filter_map(|base| {
            let prefix = base.strip_suffix(name)?;
            prefix.ends_with('.').then(|| Shift::Add(prefix.to_owned()))
        });
        let dots = name.match_indices('.').filter_map(|(at, _)| name.split_at_checked(at + 1));
        let shorter = dots
            .filter(|(_, rest)| self.get(rest).is_some())
            .map(|(prefix, _)| Shift::Remove(prefix.to_owned()));
        longer.chain(shorter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> (Part, String, String) {
        let Parsed { part, module, configured } = Parsed::of(name).unwrap();
        (part, module, configured)
    }

    #[test]
    fn names_are_taken_apart() {
        let is = |part, module: &str| (part, module.to_owned(), module.to_owned());
        assert_eq!(
            parsed("base_model.model.model.layers.0.q.lora_A.weight"),
            is(Part::A, "model.layers.0.q")
        );
        assert_eq!(parsed("h.0.c_attn.lora_B.weight"), is(Part::B, "h.0.c_attn"));
        assert_eq!(parsed("base_model.model.q.lora_B.bias"), is(Part::Bias, "q"));
        assert_eq!(parsed("base_model.model.wte.lora_embedding_A"), is(Part::EmbeddingA, "wte"));
        assert_eq!(parsed("base_model.model.classifier.bias"), is(Part::Whole, "classifier.bias"));
        let inner = parsed("base_model.model.attn.base_layer.out_proj.lora_A.weight");
        assert_eq!(inner, (Part::A, "attn.out_proj".to_owned(), "attn".to_owned()));
        let whole = parsed("base_model.model.embed_tokens.base_layer.weight");
        assert_eq!((whole.0, whole.1.as_str()), (Part::Whole, "embed_tokens.weight"));
        for (name, part) in [
            ("q.lora_magnitude_vector", "DoRA"),
            ("wte.token_adapter.trainable_tokens_delta", "trainable_token_indices"),
            ("q.lora_A.default.weight", "`lora_A.default.weight`"),
            ("q.lora_E", "`lora_E`"),
            ("lora_A.weight", "no module"),
        ] {
            assert!(Parsed::of(name).unwrap_err().contains(part), "{name}");
        }
    }

    fn targets(names: &[&str]) -> Targets {
        Targets::new(names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), i)))
    }

    #[test]
    fn one_prefix_leads_from_the_adapter_to_the_base() {
        let base = targets(&["encoder.0.q.weight", "encoder.1.q.weight", "q.weight", "pooler.weight"]);
        let shift = base.shift(["bert.encoder.0.q.weight", "bert.encoder.1.q.weight"].into_iter());
        // `q.weight` is an end of both names, too, but that prefix fits only one of them.
        assert_eq!(shift, Ok(Some(Shift::Remove("bert.".to_owned()))));
        let shift = shift.unwrap();
        assert_eq!(base.find("bert.encoder.1.q.weight", shift.as_ref()), Some(1));
        assert_eq!(base.find("pooler.weight", shift.as_ref()), Some(3));
        assert_eq!(base.find("roberta.pooler.weight", shift.as_ref()), None);
        assert_eq!(base.shift(["q.weight"].into_iter()), Ok(None));
        let longer = base.shift(["0.q.weight", "1.q.weight"].into_iter());
        assert_eq!(longer, Ok(Some(Shift::Add("encoder.".to_owned()))));
    }

    #[test]
    fn no_prefix_and_two_of_them_are_errors() {
        let base = targets(&["text.layers.0.q.weight", "vision.layers.0.q.weight", "text.layers.1.q.weight"]);
        let found = base.shift(["layers.0.q.weight"].into_iter());
        let both = ["text.layers.0.q.weight".to_owned(), "vision.layers.0.q.weight".to_owned()];
        assert_eq!(found, Err(Unfit::Ambiguous("layers.0.q.weight".to_owned(), both)));
        let second = base.shift(["layers.0.q.weight", "layers.1.q.weight"].into_iter());
        assert_eq!(second, Ok(Some(Shift::Add("text.".to_owned()))));
        let missing = base.shift(["layers.0.q.weight", "layers.7.q.weight"].into_iter());
        assert_eq!(missing, Err(Unfit::Missing("layers.7.q.weight".to_owned())));
        assert_eq!(base.like("layers.7.q.weight"), ["text.layers.0.q.weight", "text.layers.1.q.weight"]);
        assert_eq!(base.like("w"), ["text.layers.0.q.weight", "text.layers.1.q.weight"]);
        assert!(targets(&[]).like("q.weight").is_empty());
        // Half a segment is no prefix.
        assert!(base.shift(["ers.0.q.weight"].into_iter()).is_err());
    }
}
