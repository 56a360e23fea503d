//! PEFT's patterns for module names: a regular expression that matches the whole name, or all of it
//! after some dot. The first pattern of the file that matches counts.

use regex::bytes::{Regex, RegexBuilder};

use crate::text::printable;

/// How many patterns there may be: PEFT itself writes at most one a module.
const MOST: usize = 20_000;
/// Bytes that a compiled expression may take: some hundred states.
const COMPILED: usize = 1 << 16;
/// Matching an expression against a name, in comparisons of plain names.
const EXPRESSION: usize = 1000;

/// Numbers by pattern, in the order of the file.
#[derive(Debug)]
pub(super) struct Patterns(Vec<(Pattern, f64)>);

#[derive(Debug)]
enum Pattern {
    /// Letters, digits, `_` and `-`, and dots, which stand for any character: nearly all patterns are
    /// names of modules, and need no machinery.
    Name(String),
    Expression(Regex),
}

impl Patterns {
    /// Compiles the patterns; the error is what is wrong with which one.
    pub fn new(entries: Vec<(String, f64)>) -> Result<Patterns, String> {
        if entries.len() > MOST {
            return Err(format!("has {} entries, more than {MOST}", entries.len()));
        }
        let compiled = entries.into_iter().map(|(text, value)| Ok((Pattern::new(text)?, value)));
        compiled.collect::<Result<_, String>>().map(Patterns)
    }

    /// The number of the first pattern that matches.
    pub fn find(&self, module: &str) -> Option<f64> {
        self.0.iter().find(|(pattern, _)| pattern.matches(module)).map(|(_, value)| *value)
    }

    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|(_, value)| *value)
    }

    /// What it takes to look one name up.
    pub fn effort(&self) -> usize {
        let one = |(pattern, _): &(Pattern, f64)| match pattern {
            Pattern::Name(_) => 1,
            Pattern::Expression(_) => EXPRESSION,
        };
        self.0.iter().map(one).sum()
    }
}

impl Pattern {
    fn new(text: String) -> Result<Pattern, String> {
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
            return Ok(Pattern::Name(text));
        }
        // Bytes instead of characters keep the expressions small; names are ASCII.
        let expression = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{text})$"))
            .unicode(false)
            .size_limit(COMPILED)
            .dfa_size_limit(COMPILED)
            .build();
        expression
            .map(Pattern::Expression)
            .map_err(|_| format!("has `{}`, which is no regular expression that is read", printable(&text)))
    }

    fn matches(&self, module: &str) -> bool {
        let name = match self {
            Pattern::Expression(expression) => return expression.is_match(module.as_bytes()),
            Pattern::Name(name) => name.as_bytes(),
        };
        let Some((before, end)) =
            module.len().checked_sub(name.len()).map(|at| module.as_bytes().split_at(at))
        else {
            return false;
        };
        let same = name.iter().zip(end).all(|(wanted, found)| wanted == found || *wanted == b'.');
        same && before.last().is_none_or(|b| *b == b'.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pattern: &str, module: &str) -> bool {
        Patterns::new(vec![(pattern.to_owned(), 1.0)]).unwrap().find(module).is_some()
    }

    #[test]
    fn names_match_behind_a_dot() {
        for (pattern, module) in [
            ("q_proj", "q_proj"),
            ("q_proj", "model.layers.0.q_proj"),
            ("layers.0.q_proj", "model.layers.0.q_proj"),
            ("q.proj", "a.q_proj"),
            ("q_proj|k_proj", "a.k_proj"),
            (r"layers\.[0-3]\..*", "model.layers.2.mlp.up"),
            (r"^model.*q_proj", "model.x.q_proj"),
            (r".*\.q_proj", "model.x.q_proj"),
        ] {
            assert!(find(pattern, module), "{pattern} {module}");
        }
        for (pattern, module) in [
            ("q_proj", "model.my_q_proj"),
            ("q_proj", "q_proj.base"),
            ("0.q_proj", "model.10.q_proj"),
            (r"layers\.[0-3]\..*", "model.layers.4.mlp.up"),
            ("q_proj|k_proj", "a.xk_proj"),
            ("long.name.of.a.module", "name"),
        ] {
            assert!(!find(pattern, module), "{pattern} {module}");
        }
    }

    #[test]
    fn the_first_one_counts() {
        let patterns = Patterns::new(vec![("0.q".to_owned(), 1.0), ("q".to_owned(), 2.0)]).unwrap();
        assert_eq!(patterns.find("layers.0.q"), Some(1.0));
        assert_eq!(patterns.find("layers.1.q"), Some(2.0));
        assert_eq!(patterns.find("layers.1.k"), None);
    }

    #[test]
    fn hostile_expressions_are_refused_or_linear() {
        for bad in ["(", "(?=q)", r"(q)\1", "((a{500}){500}){500}", "[z-a]"] {
            let message = Patterns::new(vec![(bad.to_owned(), 1.0)]).unwrap_err();
            assert!(message.contains("no regular expression"), "{message}");
        }
        assert!(Patterns::new(vec![("q".to_owned(), 1.0); MOST + 1]).is_err());
        let start = std::time::Instant::now();
        assert!(!find("(a*)*(a|aa)*(a|a?)+b", &"a".repeat(100_000)));
        assert!(start.elapsed().as_secs() < 2);
    }
}
