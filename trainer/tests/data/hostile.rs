//! Broken files: a sentence or a table, never a panic.

use std::panic::catch_unwind;
use std::path::Path;

use evenkeel_trainer::data::{TextTokenizer, read};

use crate::{columns, fixture};

/// Reads the bytes as a file of that name; gives how often that was refused.
fn try_all(name: &str, variants: impl Iterator<Item = Vec<u8>>, wanted: [&str; 2]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let wanted = columns(wanted[0], None, wanted[1]);
    let mut refused = 0;
    for bytes in variants {
        std::fs::write(&path, &bytes).unwrap();
        let found = catch_unwind(|| read(&path, &wanted));
        match found.unwrap_or_else(|_| panic!("{name} of {} bytes: {bytes:?}", bytes.len())) {
            Ok(table) => assert!(!table.is_empty() && table.labels.len() == table.len()),
            Err(error) => {
                let said = error.to_string();
                assert!(said.ends_with(['.', '?', ')']) && !said.contains('\n'), "{said}");
                refused += 1;
            }
        }
    }
    refused
}

/// Every `step`th (odd) of: the beginnings of a file; its bytes, each changed in two ways.
fn variants(bytes: &[u8], step: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let beginnings = (0..bytes.len()).step_by(step).map(|end| bytes[..end].to_vec());
    let changed = (0..bytes.len() * 2).step_by(step).map(|number| {
        let mut changed = bytes.to_vec();
        changed[number / 2] ^= [0xff, 0x01][number % 2];
        changed
    });
    beginnings.chain(changed)
}

#[test]
fn broken_text_files_are_refused_or_read() {
    let lines = "{\"text\": \"caf\u{e9}\", \"label\": 1}\n{\"text\": \"x\", \"label\": \"b\"}\n";
    assert!(try_all("x.jsonl", variants(lines.as_bytes(), 1), ["text", "label"]) > 100);
    let csv = "text,label\n\"caf\u{e9}, \"\"x\"\"\",1\nb,2\n";
    assert!(try_all("x.csv", variants(csv.as_bytes(), 1), ["text", "label"]) > 30);
    let tsv = "text\tlabel\n\"caf\u{e9}\t1\nb\t2\n";
    assert!(try_all("x.tsv", variants(tsv.as_bytes(), 1), ["text", "label"]) > 30);
}

#[test]
fn broken_parquet_files_are_refused_or_read() {
    for (name, wanted) in [("glue", ["sentence", "label"]), ("kinds", ["text", "double"])] {
        let bytes = std::fs::read(fixture(&format!("trainer/data/{name}.parquet"))).unwrap();
        assert!(try_all("x.parquet", variants(&bytes, 7), wanted) >= bytes.len() / 7, "{name}");
    }
}

#[test]
fn broken_tokenizers_are_refused_or_read() {
    let json = std::fs::read(fixture("trainer/data/roberta-json/tokenizer.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let try_one = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let opened = catch_unwind(|| TextTokenizer::open(Path::new(folder.path())).map(|t| t.pad()));
        opened.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(bytes))).is_err()
    };
    let refused = (0..json.len()).step_by(97).filter(|end| try_one(&json[..*end])).count();
    assert_eq!(refused, json.len().div_ceil(97));
    for place in (0..json.len()).step_by(61) {
        let mut changed = json.clone();
        changed[place] = changed[place].wrapping_add(1);
        try_one(&changed);
    }
}
