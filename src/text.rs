//! Text helpers shared by every stage: names that come out of a checkpoint are untrusted.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The longest name, in characters, that is shown to a person; the rest is cut with an ellipsis.
pub const MAX_SHOWN: usize = 160;

/// A name made safe for a terminal: control characters, line breaks and the invisible characters
/// that reorder text are written as `\u{…}`, and a very long name is cut in the middle.
///
/// ```
/// assert_eq!(evenkeel::text::printable("a\u{1b}[31m"), "a\\u{1b}[31m");
/// ```
pub fn printable(name: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && !reorders_text(c);
    if name.len() <= MAX_SHOWN && name.chars().all(harmless) {
        return Cow::Borrowed(name);
    }
    let escape =
        |c: char| -> String { if harmless(c) { c.to_string() } else { c.escape_unicode().to_string() } };
    let count = name.chars().count();
    if count <= MAX_SHOWN {
        return Cow::Owned(name.chars().map(escape).collect());
    }
    let half = MAX_SHOWN / 2;
    let head: String = name.chars().take(half).map(escape).collect();
    let tail: String = name.chars().skip(count - half).map(escape).collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// Bidirectional controls, zero-width characters and line separators: they make a name look like
/// another one, or break a line, without being control characters in Unicode's sense.
fn reorders_text(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
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
        let long = "é".repeat(1_000_000);
        let shown = printable(&long);
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
        assert!(shown.contains('…'));
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(90_868_376), "90.9 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
        assert_eq!(bytes(999_960), "1.0 MB");
    }
}
