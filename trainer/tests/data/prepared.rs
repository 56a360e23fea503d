//! From files to examples.

use std::path::Path;

use evenkeel_trainer::data::subset::Choice;
use evenkeel_trainer::data::{Labels, Layout, Prepared, Sources, TextTokenizer, prepare};

use crate::{columns, fixture};

/// 2,000 of the film snippets, 989 of them positive.
fn films(
    eval: Option<&Path>,
    (ratio, choice): (f64, Choice),
    max_length: usize,
) -> evenkeel_trainer::Result<Prepared> {
    let wanted = columns("text", None, "label");
    let sources = Sources {
        train: &fixture("cache/snippets/films-test.jsonl"),
        eval,
        eval_fraction: 0.1,
        layout: Layout::Columns(&wanted),
        labels: &[],
        configured: &[],
        regression: false,
        ratio,
        choice,
        seed: 13,
        max_length,
    };
    prepare(&sources, &TextTokenizer::open(&fixture("cache/minilm")).unwrap())
}

const ALL: (f64, Choice) = (1.0, Choice::Stratified);

#[test]
fn a_tenth_is_held_back_whatever_is_taken() {
    let all = films(None, ALL, 512).unwrap();
    let few = films(None, (0.01, Choice::Stratified), 512).unwrap();
    assert_eq!((all.train.len(), all.eval.len()), (1800, 200));
    assert_eq!((few.train.len(), few.eval.len()), (18, 200));
    assert_eq!(all.eval.tokens(), few.eval.tokens());
    assert_eq!(all.labels, Labels::Classes(vec!["negative".to_owned(), "positive".to_owned()]));
    let positive = |prepared: &Prepared| -> [i64; 2] {
        [&prepared.train, &prepared.eval].map(|part| part.targets().classes().unwrap().iter().sum())
    };
    assert_eq!((positive(&all), positive(&few)), ([890, 99], [9, 99]));
    assert!(all.notes.is_empty());
}

#[test]
fn texts_that_were_cut_are_noted() {
    let notes = films(None, (0.5, Choice::First), 16).unwrap().notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains(" of 900 training examples are cut to 16 tokens; the longest has "));
}

#[test]
fn evaluation_data_has_the_labels_of_the_training_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eval.tsv");
    std::fs::write(&path, "text\tlabel\ngood\tpositive\nwell\tneutral\n").unwrap();
    let refused = films(Some(&path), ALL, 64).unwrap_err().to_string();
    assert!(
        refused.ends_with("row 2, column `label`: `neutral` is none of the labels `negative`, `positive`.")
    );
    std::fs::write(&path, "text\tlabel\ngood\tpositive\nbroken\n").unwrap();
    let prepared = films(Some(&path), ALL, 512).unwrap();
    assert_eq!((prepared.train.len(), prepared.eval.len()), (2000, 1));
    assert!(prepared.notes[0].ends_with("1 row is left out, having fewer fields than the header."));
}
