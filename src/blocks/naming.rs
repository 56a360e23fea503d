//! Which block a tensor belongs to, by its name: known families, a general rule, or a pattern.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::families::FAMILIES;
use crate::error::{Error, Result};
use crate::text::printable;

/// A place in the model that is counted as one unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The tower it belongs to: `encoder`, `decoder`, `text`, `vision`, `backbone`, …
    pub stack: String,
    /// The name's beginning that all its tensors share, such as `bert.encoder.layer.0`.
    pub name: String,
    /// Its number within the stack.
    pub index: u64,
}

/// What the blocks of a path are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Transformer blocks: across them the paper's statistics are taken by default.
    Transformer,
    /// Stages of different widths: layers are compared by default.
    Stages,
}

/// Where a family keeps the blocks of one stack.
#[derive(Debug)]
pub struct Path {
    /// The stack's name.
    pub stack: &'static str,
    /// Dotted segments; `#` stands for a number, alone or at the end of a segment.
    pub segments: &'static str,
    /// What the blocks are.
    pub units: Units,
}

/// Models that name their blocks alike.
#[derive(Debug)]
pub struct Family {
    /// The name that is reported where no `config.json` says it.
    pub name: &'static str,
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Parts of tensor names that give the family away.
    pub marks: &'static [&'static str],
    /// Where the blocks are, special cases first.
    pub paths: &'static [Path],
}

/// Gives every tensor its block.
#[derive(Debug)]
pub struct Naming {
    rule: Rule,
    architecture: Option<String>,
}

#[derive(Debug)]
enum Rule {
    Pattern {
        regex: Regex,
        /// The same block name occurs in two stacks, so that the stack has to be part of it.
        qualified: bool,
    },
    Family(&'static Family),
    /// The prefixes before a number that takes several values.
    General(BTreeSet<String>),
}

impl Naming {
    /// Chooses the rule: the user's pattern, the family of `model_type`, the family that the names
    /// give away, or else the general rule.
    ///
    /// In a pattern the group `block` (else the first group, else the whole match) is the block's
    /// name, and the group `stack` its stack.
    ///
    /// # Errors
    /// [`Error::Setting`] where the pattern is no regular expression or fits no name.
    pub fn new(names: &[&str], model_type: Option<&str>, pattern: Option<&str>) -> Result<Naming> {
        let fits = |family: &&&'static Family| names.iter().any(|n| family.block_of(n).is_some());
        let all: Vec<&'static Family> = FAMILIES.iter().collect();
        // A type may belong to several families, where tools name its tensors differently.
        let known =
            model_type.and_then(|t| all.iter().filter(|f| f.model_types.contains(&t)).find(fits).copied());
        let family = known.or_else(|| {
            let marked = |f: &&&'static Family| {
                names.iter().any(|n| f.marks.iter().any(|mark| contains_segments(n, mark)))
            };
            all.iter().filter(marked).find(fits).copied()
        });
        let architecture = model_type.map(str::to_owned).or_else(|| family.map(|f| f.name.to_owned()));
        let rule = match (pattern, family) {
            (Some(pattern), _) => {
                let regex = compile(pattern, names)?;
                let qualified = is_ambiguous(&regex, names);
                Rule::Pattern { regex, qualified }
            }
            (None, Some(family)) => Rule::Family(family),
            (None, None) => Rule::General(repeating_prefixes(names)),
        };
        Ok(Naming { rule, architecture })
    }

    /// The model's family: `model_type`, or what the names give away.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// The block of a tensor; `None` outside all blocks.
    pub fn block_of(&self, name: &str) -> Option<Block> {
        match &self.rule {
            Rule::Pattern { regex, qualified } => {
                let block = by_pattern(regex, name)?;
                let name = if *qualified { format!("{}.{}", block.stack, block.name) } else { block.name };
                Some(Block { name, ..block })
            }
            Rule::Family(family) => family.block_of(name).map(|(block, _)| block),
            Rule::General(prefixes) => by_prefix(prefixes, name),
        }
    }

    /// Whether the blocks are transformer blocks, so far as names tell: `None` where only the
    /// matrices in them can tell (the general rule).
    pub fn are_transformer_blocks(&self, names: &[&str]) -> Option<bool> {
        match &self.rule {
            Rule::Pattern { .. } => Some(true),
            Rule::Family(family) => {
                let units = |n: &&str| family.block_of(n).map(|(_, path)| path.units);
                Some(names.iter().filter_map(units).any(|u| u == Units::Transformer))
            }
            Rule::General(_) => None,
        }
    }
}

impl Family {
    fn block_of(&self, name: &str) -> Option<(Block, &'static Path)>
    where
        Self: 'static,
    {
        let paths: &'static [Path] = self.paths;
        paths.iter().find_map(|path| path.block_of(name).map(|block| (block, path)))
    }
}

impl Path {
    /// The block where this path occurs in the name, at the first place where it fits.
    fn block_of(&self, name: &str) -> Option<Block> {
        let ends = segment_ends(name);
        let wanted: Vec<&str> = self.segments.split('.').collect();
        let segments: Vec<&str> = name.split('.').collect();
        let start = segments
            .windows(wanted.len())
            .position(|window| window.iter().zip(&wanted).all(|(s, w)| segment_fits(s, w).is_some()))?;
        let window = segments.get(start..start + wanted.len())?.iter().zip(&wanted);
        let index = window.rev().find_map(|(s, w)| segment_fits(s, w).flatten());
        let end = *ends.get(start + wanted.len() - 1)?;
        // A path that ends the whole name is a tensor of its own, not a block with tensors in it.
        (end < name.len()).then(|| Block {
            stack: self.stack.to_owned(),
            name: name.get(..end).unwrap_or(name).to_owned(),
            index: index.unwrap_or(0),
        })
    }
}

/// Whether a segment is the wanted one; the number in it where the wanted one ends in `#`.
fn segment_fits(segment: &str, wanted: &str) -> Option<Option<u64>> {
    match wanted.strip_suffix('#') {
        None => (segment == wanted).then_some(None),
        Some(word) => segment.strip_prefix(word).and_then(number).map(Some),
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The byte offsets at which the dotted segments end.
fn segment_ends(name: &str) -> Vec<usize> {
    let dots = name.bytes().enumerate().filter(|(_, b)| *b == b'.').map(|(i, _)| i);
    dots.chain([name.len()]).collect()
}

/// Whether `part` occurs in `name` as whole segments.
fn contains_segments(name: &str, part: &str) -> bool {
    name.match_indices(part).any(|(at, _)| {
        let before = name.get(..at).unwrap_or("");
        let after = name.get(at + part.len()..).unwrap_or("");
        (before.is_empty() || before.ends_with('.')) && (after.is_empty() || after.starts_with('.'))
    })
}

fn compile(pattern: &str, names: &[&str]) -> Result<Regex> {
    let regex = Regex::new(pattern)
        .map_err(|e| Error::Setting(format!("--block-pattern is not a regular expression: {e}.")))?;
    if !names.iter().any(|name| by_pattern(&regex, name).is_some()) {
        return Err(Error::Setting(format!(
            "--block-pattern `{}` fits no tensor name; `evenkeel inspect` lists the names.",
            printable(pattern)
        )));
    }
    Ok(regex)
}

fn by_pattern(pattern: &Regex, name: &str) -> Option<Block> {
    let found = pattern.captures(name)?;
    let block = found.name("block").or_else(|| {
        let first = if found.name("stack").is_some() { None } else { found.get(1) };
        first.or_else(|| found.get(0))
    })?;
    let stack = found.name("stack").map_or("blocks", |m| m.as_str());
    (!block.is_empty()).then(|| Block {
        stack: stack.to_owned(),
        name: block.as_str().to_owned(),
        index: last_number(block.as_str()),
    })
}

/// Whether one block name belongs to several stacks.
fn is_ambiguous(pattern: &Regex, names: &[&str]) -> bool {
    let mut stacks: BTreeMap<String, String> = BTreeMap::new();
    let blocks = names.iter().filter_map(|name| by_pattern(pattern, name));
    blocks.into_iter().any(|block| {
        let stack = stacks.entry(block.name).or_insert_with(|| block.stack.clone());
        *stack != block.stack
    })
}

fn last_number(text: &str) -> u64 {
    let runs = text.split(|c: char| !c.is_ascii_digit());
    runs.filter_map(|run| run.parse().ok()).next_back().unwrap_or(0)
}

/// The prefixes in front of a whole-segment number that takes at least two values in the names.
fn repeating_prefixes(names: &[&str]) -> BTreeSet<String> {
    let mut values: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for name in names {
        for (prefix, index) in numbered_prefixes(name) {
            values.entry(prefix).or_default().insert(index);
        }
    }
    let repeating = values.into_iter().filter(|(_, indexes)| indexes.len() > 1);
    repeating.map(|(prefix, _)| prefix.to_owned()).collect()
}

/// Every (prefix, number) such that the name goes `prefix.number.rest`.
fn numbered_prefixes(name: &str) -> impl Iterator<Item = (&str, u64)> {
    let ends = segment_ends(name);
    let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().map(|e| e + 1)).collect();
    let count = ends.len();
    // Real names have a dozen segments; one of thousands would cost the square of them.
    (1..count.saturating_sub(1).min(64)).filter_map(move |i| {
        let prefix = name.get(..*ends.get(i - 1)?)?;
        let segment = name.get(*starts.get(i)?..*ends.get(i)?)?;
        Some((prefix, number(segment)?))
    })
}

/// The general rule: the first number whose prefix repeats; the stack is that prefix without the
/// word that only says "layers".
fn by_prefix(prefixes: &BTreeSet<String>, name: &str) -> Option<Block> {
    const WORDS: [&str; 8] = ["layer", "layers", "block", "blocks", "h", "resblocks", "stages", "modules"];
    let (prefix, index) = numbered_prefixes(name).find(|(prefix, _)| prefixes.contains(*prefix))?;
    let stack = match prefix.rsplit_once('.') {
        Some((before, word)) if WORDS.contains(&word) => before,
        _ => prefix,
    };
    let digits = name.get(prefix.len() + 1..)?.split('.').next()?;
    Some(Block { stack: stack.to_owned(), name: format!("{prefix}.{digits}"), index })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(
        names: &[&str],
        model_type: Option<&str>,
        pattern: Option<&str>,
    ) -> Vec<Option<(String, String)>> {
        let naming = Naming::new(names, model_type, pattern).unwrap();
        let block = |n: &&str| naming.block_of(n).map(|b| (b.stack, b.name));
        names.iter().map(block).collect()
    }

    fn some(stack: &str, name: &str) -> Option<(String, String)> {
        Some((stack.to_owned(), name.to_owned()))
    }

    #[test]
    fn a_family_without_its_config_is_recognised() {
        let names = ["encoder.layer.0.attention.self.query.weight", "pooler.dense.weight"];
        assert_eq!(blocks(&names, None, None), [some("encoder", "encoder.layer.0"), None]);
        let naming = Naming::new(&names, None, None).unwrap();
        assert_eq!(naming.architecture(), Some("bert"));
    }

    #[test]
    fn an_unknown_model_type_falls_back_to_the_names() {
        let names = ["model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.gate_proj.weight"];
        let naming = Naming::new(&names, Some("brand_new"), None).unwrap();
        assert_eq!(naming.architecture(), Some("brand_new"));
        assert_eq!(naming.block_of(names[0]).unwrap().stack, "decoder");
    }

    #[test]
    fn the_general_rule_takes_the_outermost_number_that_repeats() {
        let names = ["net.0.tower.3.fc.weight", "net.0.tower.4.fc.weight", "head.0.fc.weight"];
        let found = blocks(&names, None, None);
        assert_eq!(found, [some("net.0.tower", "net.0.tower.3"), some("net.0.tower", "net.0.tower.4"), None]);
        let stacks = blocks(&["a.blocks.1.w.x", "a.blocks.2.w.x", "7.w", "8.w"], None, None);
        assert_eq!(stacks, [some("a", "a.blocks.1"), some("a", "a.blocks.2"), None, None]);
    }

    #[test]
    fn a_pattern_names_block_and_stack() {
        let names = ["x/enc_3/w", "x/dec_4/w", "y"];
        let found = blocks(&names, None, Some(r"x/(?<block>(?<stack>enc|dec)_\d+)"));
        assert_eq!(found, [some("enc", "enc_3"), some("dec", "dec_4"), None]);
        let plain = blocks(&names, None, Some(r"x/\w+_\d+"));
        assert_eq!(plain[0], some("blocks", "x/enc_3"));
        // The number alone would make one block of two.
        let towers = ["enc.0.w", "enc.1.w", "dec.0.w"];
        let found = blocks(&towers, None, Some(r"(?<stack>enc|dec)\.(?<block>\d+)"));
        assert_eq!(found, [some("enc", "enc.0"), some("enc", "enc.1"), some("dec", "dec.0")]);
        assert!(Naming::new(&names, None, Some("(")).is_err());
        assert!(Naming::new(&names, None, Some("zzz")).is_err());
    }

    #[test]
    fn numbers_beyond_u64_are_no_block() {
        let name = format!("model.layers.{}.mlp.gate_proj.weight", "9".repeat(30));
        let naming = Naming::new(&[&name], Some("llama"), None).unwrap();
        assert_eq!(naming.block_of(&name), None);
    }
}
