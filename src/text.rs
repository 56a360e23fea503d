//! Text helpers shared by every stage: names that come out of a checkpoint are untrusted.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The longest name, in characters as they are shown, that a person gets to see; of a longer one the
/// middle is left out.
pub const MAX_SHOWN: usize = 160;

/// The longest name, in bytes, that a report holds unchanged; see [`bounded`].
pub const MAX_EXACT: usize = 4096;

/// A name made safe for a terminal and cut: as [`escaped`], and where that is longer than
/// [`MAX_SHOWN`] characters, its beginning and its end with `…` between them.
///
/// ```
/// assert_eq!(evenkeel::text::printable("a\u{1b}[31m"), "a\\u{1b}[31m");
/// ```
pub fn printable(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_SHOWN && name.chars().all(is_harmless) {
        return Cow::Borrowed(name);
    }
    // An escape is never cut in two, and nothing is built that is much longer than what is shown.
    let whole: String = name.chars().map(escape).take(MAX_SHOWN + 1).collect();
    if name.chars().nth(MAX_SHOWN).is_none() && whole.chars().count() <= MAX_SHOWN {
        return Cow::Owned(whole);
    }
    let half = MAX_SHOWN / 2;
    let head: String = within(half, name.chars()).map(escape).collect();
    let tail: Vec<char> = within(half, name.chars().rev()).collect();
    let tail: String = tail.into_iter().rev().map(escape).collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// The first characters that take at most `width` of them when they are escaped.
fn within(width: usize, chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut used = 0;
    chars.take_while(move |c| {
        used += if is_harmless(*c) { 1 } else { c.escape_unicode().len() };
        used <= width
    })
}

/// A name with its control characters, line breaks, and the invisible characters that reorder or
/// imitate text written as `\u{…}`. It is not cut. (A backslash stays one: this is for reading, and
/// the exact name is in JSON.)
pub fn escaped(name: &str) -> Cow<'_, str> {
    if name.chars().all(is_harmless) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(escape).collect())
}

/// A name of at most [`MAX_EXACT`] bytes as it is; of a longer one the beginning and the end, between
/// them its length and a checksum of the whole (FNV-1a, 64 bits), so that different names stay
/// different. (Somebody who looks for two names with the same checksum can find them.)
pub fn bounded(name: &str) -> Cow<'_, str> {
    const HEAD: usize = 512;
    const TAIL: usize = 256;
    if name.len() <= MAX_EXACT {
        return Cow::Borrowed(name);
    }
    // At the next border between characters.
    let head = (0..=HEAD).rev().find_map(|end| name.get(..end)).unwrap_or_default();
    let tail = (name.len() - TAIL..name.len()).find_map(|start| name.get(start..)).unwrap_or_default();
    Cow::Owned(format!("{head}…({} bytes, fnv1a {:016x})…{tail}", name.len(), fnv1a(name.as_bytes())))
}

/// The checksum FNV-1a of 64 bits (Fowler, Noll and Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn escape(c: char) -> String {
    if is_harmless(c) { c.to_string() } else { c.escape_unicode().to_string() }
}

/// Whether a character shows as itself, in its place, and does nothing else.
pub(crate) fn is_harmless(c: char) -> bool {
    !c.is_control() && !is_deceptive(c)
}

/// Characters that make a name look like another one, or break a line, without being control
/// characters in Unicode's sense: bidirectional controls and the other format characters, those
/// without a glyph (fillers, joiners, variation selectors, tags), spaces other than the plain one, and
/// the separators of lines and paragraphs.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
        | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Compares names so that runs of digits count as numbers: `layer.9` comes before `layer.10`.
///
/// Names that differ only in leading zeros are ordered by their text, so that the order is total.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        match (left.chars().next(), right.chars().next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, rest_x) = split_digits(left);
                let (y, rest_y) = split_digits(right);
                let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (rest_x, rest_y);
            }
            (Some(x), Some(y)) if x == y => {
                let skip = |s| str::get(s, x.len_utf8()..).unwrap_or("");
                (left, right) = (skip(left), skip(right));
            }
            (Some(x), Some(y)) => return x.cmp(&y),
        }
    }
}

/// Splits off the leading run of digits, without its leading zeros.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.trim_start_matches('0'), rest)
}

/// A number with four decimals, or with an exponent where they would not show it.
pub fn number(value: f64) -> String {
    match value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        true => format!("{value:.3e}"),
        false => format!("{value:.4}"),
    }
}

/// A shape for people: `768×3072`; one of very many dimensions is cut.
pub fn shape(dims: &[usize]) -> String {
    const MOST: usize = 8;
    let shown: Vec<String> = dims.iter().take(MOST).map(usize::to_string).collect();
    match dims.len() {
        0 => "scalar".to_owned(),
        n if n > MOST => format!("{}×… ({n} dimensions)", shown.join("×")),
        _ => shown.join("×"),
    }
}

/// A number of bytes for people: `90.9 MB`. Decimal units, as file managers and model hubs use.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = "kB";
    for next in UNITS {
        unit = next;
        if value < 999.95 {
            break;
        }
        if next != "PB" {
            value /= 1000.0;
        }
    }
    format!("{value:.1} {unit}")
}

/// A count with its noun: `1 block`, `6 blocks`, `1 matrix`, `36 matrices`.
pub fn count(number: usize, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_count_as_numbers() {
        let mut names = vec!["layer.10", "layer.9", "layer.1", "layer", "a2b10", "a2b9", "a02b9"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["a02b9", "a2b9", "a2b10", "layer", "layer.1", "layer.9", "layer.10"]);
    }

    #[test]
    fn very_long_digit_runs_do_not_overflow() {
        let big = "9".repeat(400);
        let bigger = format!("1{}", "0".repeat(400));
        assert_eq!(natural_cmp(&big, &bigger), Ordering::Less);
    }

    #[test]
    fn hostile_names_are_escaped_and_cut() {
        assert_eq!(printable("plain.weight"), "plain.weight");
        assert_eq!(printable("a\nb"), "a\\u{a}b");
        assert_eq!(printable("\u{202e}x"), "\\u{202e}x");
        assert_eq!(printable("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
        assert_eq!(printable("a\u{e0041}\u{2066}\u{fe0f}b"), "a\\u{e0041}\\u{2066}\\u{fe0f}b");
        let long = "é".repeat(1_000_000);
        let shown = printable(&long);
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
        assert!(shown.contains('…'));
    }

    #[test]
    fn escapes_count_in_what_is_shown_and_stay_whole() {
        for name in ["\u{1b}".repeat(100), "\u{1b}".repeat(100_000), format!("{}é", "\u{e0001}x".repeat(30))]
        {
            let shown = printable(&name);
            assert!(shown.chars().count() <= MAX_SHOWN + 1 && shown.contains('…'), "{shown}");
            assert_eq!(shown.matches('{').count(), shown.matches('}').count(), "{shown}");
        }
        let fits = format!("{}\u{1b}", "x".repeat(MAX_SHOWN - 6));
        assert_eq!(printable(&fits), escaped(&fits));
        assert_eq!(printable(&"x".repeat(MAX_SHOWN)), "x".repeat(MAX_SHOWN));
    }

    #[test]
    fn long_names_are_bounded_and_stay_different() {
        let exact = "é".repeat(MAX_EXACT / 2);
        assert_eq!(bounded(&exact), exact);
        let long = |middle: char| format!("{}{middle}{}", "é".repeat(500_001), "x".repeat(500_000));
        let (one, other) = (long('a'), long('b'));
        assert!(bounded(&one).len() < 1024 && bounded(&one).ends_with("xxx"));
        assert!(bounded(&one).contains("…(1500003 bytes, fnv1a "));
        assert_ne!(bounded(&one), bounded(&other));
        // The published vectors of FNV-1a.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(90_868_376), "90.9 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
        assert_eq!(bytes(999_960), "1.0 MB");
    }
}
