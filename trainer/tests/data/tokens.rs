//! Token numbers against transformers.

use std::path::{Path, PathBuf};

use evenkeel_trainer::data::{Cell, Column, Columns, Table, TextTokenizer};
use serde_json::Value;

use crate::{expected, fixture, numbers};

/// One row.
fn table(text: &str, pair: Option<&str>) -> Table {
    let columns = Columns {
        text: Column::new("text"),
        pair: pair.map(|_| Column::new("pair")),
        label: Column::new("label"),
        header: None,
    };
    let mut table = Table::new(Path::new("texts.jsonl"), &columns);
    table.texts.push(text.to_owned());
    table.pairs = pair.map(|pair| vec![pair.to_owned()]);
    table.labels.push(Cell::Integer(0));
    table
}

/// Every case of a tokenizer.
fn compare(tokenizer: &TextTokenizer, name: &str) {
    let all = expected("tokens.json");
    let cases = all[name].as_array().unwrap();
    assert!(cases.len() > 50);
    for case in cases {
        let length = case["max_length"].as_u64().unwrap() as usize;
        let table = table(case["text"].as_str().unwrap(), case["pair"].as_str());
        let tokens = tokenizer.tokenise(&table, length).unwrap();
        let ids = numbers(&case["ids"], |n| Some(n.as_u64()? as u32));
        let types = numbers(&case["types"], |n| Some(n.as_u64()? as u8));
        assert_eq!((tokens.ids(0), tokens.types(0)), (&ids[..], &types[..]), "{name}: {case}");
        assert_eq!(tokens.cut() == 1, tokens.needed() > length, "{name}: {case}");
        assert!(tokens.cut() == 0 || tokens.length(0) == length, "{name}: {case}");
    }
}

fn trained(name: &str) -> PathBuf {
    fixture("trainer/data").join(name)
}

#[test]
fn tokens_are_those_of_transformers() {
    let minilm = TextTokenizer::open(&fixture("cache/minilm")).unwrap();
    assert_eq!((minilm.pad(), minilm.vocabulary(), minilm.specials(true)), (0, 30522, 3));
    compare(&minilm, "minilm");
    compare(&TextTokenizer::open(&trained("bert-cased")).unwrap(), "bert-cased");
    for name in ["roberta", "roberta-json"] {
        let tokenizer = TextTokenizer::open(&trained(name)).unwrap();
        assert_eq!((tokenizer.pad(), tokenizer.specials(false), tokenizer.specials(true)), (1, 2, 4));
        compare(&tokenizer, name);
    }
}

#[test]
fn a_vocabulary_alone_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("cache/minilm/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    compare(&TextTokenizer::open(folder.path()).unwrap(), "minilm");
}

#[test]
fn many_rows_keep_their_order_and_cuts_are_counted() {
    let tokenizer = TextTokenizer::open(&trained("bert-cased")).unwrap();
    let mut table = table("", Some(""));
    let texts: Vec<String> = (0..9000).map(|n| "dog ".repeat(n % 11)).collect();
    table.pairs = Some(texts.iter().rev().cloned().collect());
    table.texts = texts;
    let tokens = tokenizer.tokenise(&table, 12).unwrap();
    assert_eq!(tokens.len(), 9000);
    let pieces = tokenizer.tokenise(&self::table("dog", None), 12).unwrap().length(0) - 2;
    let needed: Vec<usize> = (0..9000).map(|n| (n % 11 + (8999 - n) % 11) * pieces + 3).collect();
    for (row, needed) in needed.iter().enumerate() {
        assert_eq!(tokens.length(row), (*needed).min(12), "{row}");
    }
    assert_eq!(tokens.cut(), needed.iter().filter(|needed| **needed > 12).count());
    assert_eq!(Some(tokens.needed()), needed.iter().copied().max());
    assert!((tokens.largest_id() as usize) < tokenizer.vocabulary());
}

#[test]
fn configuration_decides_on_the_side_and_the_filling() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(trained("bert-cased/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    let configure = |config: &Value| {
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        TextTokenizer::open(folder.path())
    };
    let right = configure(&serde_json::json!({"do_lower_case": false})).unwrap();
    let left = configure(&serde_json::json!({
        "do_lower_case": false, "truncation_side": "left", "pad_token": {"content": "[MASK]"},
    }));
    let left = left.unwrap();
    assert_eq!((right.pad(), left.pad()), (0, 4));
    let table = table("the dog and the fox and the dog and the fox", None);
    let whole = right.tokenise(&table, 100).unwrap().ids(0).to_vec();
    let n = whole.len();
    assert!(n > 8);
    let cut = |tokenizer: &TextTokenizer| tokenizer.tokenise(&table, 6).unwrap().ids(0).to_vec();
    assert_eq!(cut(&right), [&whole[..5], &whole[n - 1..]].concat());
    assert_eq!(cut(&left), [&whole[..1], &whole[n - 5..]].concat());
    let refused = configure(&serde_json::json!({"cls_token": "<cls>"})).unwrap_err().to_string();
    assert!(refused.ends_with("the special token `<cls>` is not in the vocabulary."), "{refused}");
}

/// Of an empty text a tokenizer that puts nothing around it makes nothing, and a model cannot be given that.
#[test]
fn a_row_without_tokens_is_refused_by_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "a": 1}, "unk_token": "[PAD]"},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), "{\"pad_token\": \"[PAD]\"}").unwrap();
    let tokenizer = TextTokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.tokenise(&table("a a", None), 8).unwrap().ids(0), [1, 1]);
    assert_eq!(tokenizer.tokenise(&table("", Some("a")), 8).unwrap().ids(0), [1]);
    let refused = tokenizer.tokenise(&table(" ", None), 8).unwrap_err().to_string();
    let expected = "row 1 of texts.jsonl: it has no token at all, and the tokenizer puts none around it.";
    assert!(refused.ends_with(expected), "{refused}");
}

#[test]
fn tokenizers_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = || TextTokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(refused().contains("neither tokenizer.json, nor vocab.txt"));
    std::fs::write(folder.path().join("vocab.txt"), b"[CLS]\n\xff\n").unwrap();
    assert!(refused().contains("not a tokenizer that can be read"));
    std::fs::write(folder.path().join("tokenizer.json"), "{\"version\": \"1.0\"}").unwrap();
    assert!(refused().contains("tokenizer.json: this is not a tokenizer"), "{}", refused());
    std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(refused().contains("not valid JSON"));
    let tokenizer = TextTokenizer::open(&trained("roberta")).unwrap();
    let refused = tokenizer.tokenise(&table("a", Some("b")), 4).unwrap_err().to_string();
    assert_eq!(refused, "a length of 4 leaves no room for text beside 4 special tokens.");
}
