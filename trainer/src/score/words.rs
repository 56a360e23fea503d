//! Scores of answers in words, as SQuAD's evaluation defines them (Rajpurkar et al. 2016): compared are the
//! words in lower case, without the punctuation of ASCII and without articles; of several right answers the
//! one counts that is most like the answer given.

use std::collections::HashMap;

/// The part of the answers that say just what a right one says.
pub fn exact_match(given: &[String], right: &[Vec<String>]) -> f64 {
    mean(given, right, |given, right| f64::from(u8::from(given == right)))
}

/// The mean F1 of the words that an answer and a right one have in common.
pub fn word_f1(given: &[String], right: &[Vec<String>]) -> f64 {
    mean(given, right, f1)
}

/// The mean over the questions of the best score against any right answer.
fn mean(given: &[String], right: &[Vec<String>], score: impl Fn(&[String], &[String]) -> f64) -> f64 {
    let best = |(given, right): (&String, &Vec<String>)| {
        let given = words(given);
        right.iter().map(|right| score(&given, &words(right))).fold(0.0, f64::max)
    };
    given.iter().zip(right).map(best).sum::<f64>() / given.len().min(right.len()) as f64
}

/// 2·common / (words of one + words of the other), a word counting as often as in both.
fn f1(given: &[String], right: &[String]) -> f64 {
    let mut left: HashMap<&String, usize> = HashMap::new();
    for word in right {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0.0;
    for word in given {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1.0;
        }
    }
    if common == 0.0 { 0.0 } else { 2.0 * common / (given.len() + right.len()) as f64 }
}

/// The words that are compared. Punctuation is taken out first, so that it divides no word; an article is
/// one that no letter, digit or underscore touches.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let kept: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut without = String::with_capacity(kept.len());
    let mut rest = kept.as_str();
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_alphanumeric();
        let run = rest.find(|c| in_word(c) != in_word(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(run);
        without.push_str(if ["a", "an", "the"].contains(&run) { " " } else { run });
        rest = after;
    }
    // What Python calls white space: the separators of ASCII, too.
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    without.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_case_and_punctuation_do_not_count() {
        assert_eq!(
            words("The  quick-brown fox, an ANIMAL of the U.S.!"),
            ["quickbrown", "fox", "animal", "of", "us"]
        );
        assert_eq!(words("a\u{2014}the\u{2014}b another"), ["\u{2014}", "\u{2014}b", "another"]);
        assert!(words(" The. ").is_empty());
    }

    #[test]
    fn the_best_of_the_right_answers_counts() {
        let given = ["the red house".to_owned(), String::new()];
        let right = [vec!["house".to_owned(), "Red House!".to_owned()], vec!["x".to_owned()]];
        assert_eq!(exact_match(&given, &right), 0.5);
        assert_eq!(word_f1(&given, &right), 0.5);
        assert_eq!(word_f1(&given, &[right[0][..1].to_vec(), right[1].clone()]), 1.0 / 3.0);
        assert!(exact_match(&[], &[]).is_nan());
    }
}
