//! Every format of tables, with what may be wrong in it.

use std::path::PathBuf;

use evenkeel_trainer::data::{Cell, Columns, Labels, Table, Targets, read};
use tempfile::TempDir;

use crate::{columns, fixture};

/// A file with some content.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn table(name: &str, content: impl AsRef<[u8]>, columns: &Columns) -> Table {
    let (_folder, path) = file(name, content);
    read(&path, columns).unwrap()
}

/// What is said of a file, without its path.
fn refusal(name: &str, content: impl AsRef<[u8]>, columns: &Columns) -> String {
    let (_folder, path) = file(name, content);
    let said = read(&path, columns).unwrap_err().to_string();
    said.strip_prefix(&format!("{}: ", path.display())).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn text(label: &str) -> Cell {
    Cell::Text(label.to_owned())
}

#[test]
fn json_lines_hold_objects_or_arrays() {
    let lines = "\u{feff}{\"a\": \"x\\ty\", \"more\": [1], \"b\": 1}\r\n\n{\"b\": true, \"a\": \"\u{e9}\"}\n{\"a\":\"\",\"b\":0.5}";
    let found = table("x.jsonl", lines, &columns("a", None, "b"));
    assert_eq!(found.texts, ["x\ty", "\u{e9}", ""]);
    assert_eq!(found.labels, [Cell::Integer(1), Cell::Bool(true), Cell::Real(0.5)]);
    let arrays = table("x.JSON", "[\"l\", \"a\", \"b\"]\n", &columns("1", Some("2"), "0"));
    assert_eq!((arrays.texts, arrays.pairs.unwrap()), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(arrays.labels, [text("l")]);
}

#[test]
fn json_lines_say_what_is_wrong_and_where() {
    let columns = columns("a", None, "b");
    let said = |content: &str| refusal("x.jsonl", content, &columns);
    let good = "{\"a\": \"x\", \"b\": 1}\n";
    assert_eq!(
        said(&format!("{good}{{\"a\": \"x\", \"c\": 1}}")),
        "line 2 has no column `b`; the columns are `a`, `c`."
    );
    assert_eq!(said(&format!("{good}{{\"a\": 3, \"b\": 1}}")), "line 2, column `a` is a number, not text.");
    assert_eq!(said("{\"a\": null, \"b\": 1}"), "line 1, column `a` is null, not text.");
    assert_eq!(said("{\"a\": \"x\", \"b\": []}"), "line 1, column `b` is an array, not a label.");
    assert!(said(&format!("{good}{{\"a\": ")).starts_with("line 2 is not JSON: EOF"));
    assert!(said("[{\"a\": \"x\",\n").contains("one object; a file with one array is not read"));
    assert_eq!(said("7\n"), "line 1 holds no JSON object.");
    assert!(said(&"[".repeat(100_000)).contains("recursion limit"));
}

#[test]
fn csv_has_quotes_and_tsv_has_none() {
    let csv = "text,label\r\n\"a, \"\"b\"\"\nc\",1\r\n\"\",2\r\n";
    let found = table("x.csv", csv, &columns("text", None, "label"));
    assert_eq!(
        (found.texts, found.labels),
        (vec!["a, \"b\"\nc".to_owned(), String::new()], vec![text("1"), text("2")])
    );
    let tsv = "sentence\tlabel\n\"no closing\t0\n5\" \"x\"\t1\n";
    let found = table("x.tsv", tsv, &columns("sentence", None, "label"));
    assert_eq!(found.texts, ["\"no closing", "5\" \"x\""]);
}

#[test]
fn tsv_of_glue_has_no_header_or_broken_rows() {
    // CoLA's in-domain files.
    let cola = "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThem friends \"buy\" this.\n";
    let found = table("train.tsv", cola, &columns("3", None, "1"));
    assert_eq!(found.texts, ["Our friends won't buy this.", "Them friends \"buy\" this."]);
    assert_eq!(found.labels, [text("1"), text("0")]);
    // QQP's have rows that break off.
    let qqp = "id\tquestion1\tquestion2\tis_duplicate\n1\ta\tb\t0\n2\ta\n3\tc\td\t1\n";
    let found = table("train.tsv", qqp, &columns("question1", Some("question2"), "is_duplicate"));
    assert_eq!((found.texts.len(), found.left_out), (2, 1));
    assert_eq!(found.pairs.unwrap(), ["b", "d"]);
    // By number, but with a header all the same.
    let numbered = Columns { header: Some(true), ..columns("0", None, "1") };
    assert_eq!(table("x.tsv", "sentence\tlabel\na\t1\n", &numbered).texts, ["a"]);
    // A name that is a number is a name first.
    assert_eq!(table("x.tsv", "text\t0\na\t1\n", &columns("text", None, "0")).labels, [text("1")]);
}

/// Nobody can tell which field the tab is in.
#[test]
fn a_tab_inside_a_field_of_a_named_column_is_refused() {
    let wanted = columns("sentence", None, "label");
    assert_eq!(
        refusal("x.tsv", "sentence\tlabel\na\t1\na\tb\t1\n", &wanted),
        "row 2 (line 3) has 3 fields where the header has 2: a tab in one of them shifts the others."
    );
    // Nothing is shifted by what is empty, or where no column has a name.
    assert_eq!(table("x.tsv", "sentence\tlabel\na\t1\t\n", &wanted).labels, [text("1")]);
    assert_eq!(
        table("x.tsv", "a\t1\nb\t0\tlicence\n", &columns("0", None, "1")).labels,
        [text("1"), text("0")]
    );
}

#[test]
fn delimited_files_say_what_is_wrong_and_where() {
    let wanted = columns("text", None, "label");
    assert_eq!(
        refusal("x.csv", "sentence,label\na,1\n", &wanted),
        "there is no column `text`; the columns are `sentence`, `label`."
    );
    assert_eq!(
        refusal("x.csv", "text,label\na,1\nb,c,1\n", &wanted),
        "row 2 (line 3) has 3 fields where the first row of the file has 2: is a comma not in quotes?"
    );
    assert!(refusal("x.csv", "text,label\n\"a,1\nb,1\n", &wanted).ends_with("is a quote not closed?"));
    assert_eq!(
        refusal("x.tsv", "a\tb\n", &columns("4", None, "1")),
        "there is no column `4`; the columns are `0`, `1`."
    );
    assert_eq!(refusal("x.tsv", "text\tlabel\n", &wanted), "the TSV file holds no row.");
    assert_eq!(
        refusal("x.tsv", "text\tlabel\na\nb\n", &wanted),
        "every row has fewer fields than the header's 2."
    );
    assert!(
        refusal("x.tsv", b"text\tlabel\ncaf\xe9\t1\n", &wanted).contains("byte 0xe9 at offset 14, in line 2")
    );
}

#[test]
fn files_that_are_none_are_refused() {
    let wanted = columns("text", None, "label");
    for name in ["x.jsonl", "x.csv", "x.tsv", "x.parquet"] {
        assert_eq!(refusal(name, "", &wanted), "the file is empty.", "{name}");
    }
    assert!(refusal("x.xlsx", "a", &wanted).contains("one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet"));
    assert!(refusal("x.jsonl", "\n\n", &wanted).contains("holds no row"));
    assert!(refusal("x.parquet", "PAR1 but no more", &wanted).contains("not a Parquet file"));
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("x.csv");
    std::fs::create_dir(&directory).unwrap();
    assert!(read(&directory, &wanted).unwrap_err().to_string().contains("not a file"));
    assert!(read(&folder.path().join("none.csv"), &wanted).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn parquet_of_the_hub_is_read() {
    let path = fixture("trainer/data/glue.parquet");
    let found = read(&path, &columns("sentence", None, "label")).unwrap();
    assert_eq!(found.len(), 20);
    assert!(found.texts.iter().enumerate().all(|(n, text)| text.ends_with(&format!(" ({n})"))));
    let names = ["negative".to_owned(), "positive".to_owned()];
    let targets = Labels::classes(&names, &[], &found).unwrap().read(&found).unwrap();
    assert_eq!(targets, Targets::Classes((0..20).map(|n| n % 2).collect()));
    assert_eq!(read(&path, &columns("0", None, "1")).unwrap(), Table { label: found_label("1"), ..found });

    let pairs =
        read(&fixture("trainer/data/pairs.parquet"), &columns("sentence1", Some("sentence2"), "label"));
    let pairs = pairs.unwrap();
    assert!(pairs.pairs.as_ref().unwrap()[0].ends_with(" (19)"));
    let targets = Labels::Regression.read(&pairs).unwrap();
    assert_eq!(targets, Targets::Values((0..20_u8).map(|n| f32::from(n) / 4.0).collect()));
}

fn found_label(name: &str) -> evenkeel_trainer::data::Column {
    evenkeel_trainer::data::Column::new(name)
}

#[test]
fn parquet_says_what_is_wrong_and_where() {
    let path = fixture("trainer/data/kinds.parquet");
    let read = |text: &str, label: &str| read(&path, &columns(text, None, label));
    let truth = read("text", "truth").unwrap();
    assert_eq!(truth.labels, [Cell::Bool(true), Cell::Bool(false), Cell::Bool(true)]);
    let double = read("text", "double").unwrap();
    assert_eq!(double.labels[..2], [Cell::Real(0.5), Cell::Null]);
    let said = |text: &str, label: &str| {
        let said = read(text, label).unwrap_err().to_string();
        said.split_once("kinds.parquet: ").unwrap().1.to_owned()
    };
    assert_eq!(said("missing", "truth"), "row 2, column `missing` is null, not text.");
    assert_eq!(said("truth", "truth"), "row 1, column `truth` is true, not text.");
    assert_eq!(said("bytes", "truth"), "row 2, column `bytes` is not text in UTF-8.");
    assert!(said("list.list.element", "truth").contains("neither text nor a number"));
    assert_eq!(
        said("sentence", "truth"),
        "there is no column `sentence`; the columns are `text`, `truth`, `double`, `missing`, `list.list.element`, `bytes`."
    );
}

#[test]
fn snippets_are_the_sets_of_the_benchmarks() {
    for (name, train, test) in [("films", 8072, 2000), ("newspaper", 2370, 600)] {
        for (part, count) in [("train", train), ("test", test)] {
            let path = fixture(&format!("cache/snippets/{name}-{part}.jsonl"));
            let found = read(&path, &columns("text", None, "label")).unwrap();
            assert_eq!(found.len(), count, "{name} {part}");
            let labels = Labels::classes(&[], &[], &found).unwrap();
            assert_eq!(labels, Labels::Classes(vec!["negative".to_owned(), "positive".to_owned()]));
        }
    }
}
