//! Names made by strangers: terminal escapes, markup, line breaks, invisible characters, formulas and
//! megabytes, through every output of both commands and into every message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "common/archive.rs"]
mod archive;
mod common;
#[allow(dead_code)]
#[path = "gguf/writer.rs"]
mod gguf;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// What a name may hold to do harm.
const HOSTILE: [&str; 20] = [
    "\u{1b}[31mred\u{1b}]0;title\u{7}",
    "\u{1b}[2J\u{1b}[H",
    "\u{9b}31m\u{9d}0;x\u{9c}",
    "bell\u{7}back\u{8}\u{8}\u{7f}nul\u{0}",
    "line\nbreak\r\nand\u{2028}more\u{85}next\u{b}\u{c}",
    "tab\tin\tname",
    "<script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>&amp;",
    "a|b|c",
    "`code` ``` **bold** _it_ ~~no~~ $x$",
    "[link](javascript:alert(1)) ![image](http://a.example/x.png)",
    "see https://a.example/ or www.a.example @somebody #1",
    "gpj\u{202e}exe\u{202c}\u{2066}\u{2069}\u{200f}",
    "zero\u{200b}width\u{200d}\u{2060}\u{feff}\u{ad}\u{e0041}\u{fe0f}",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "comma,\"quote\"",
    "\\u{1b} \\x1b \\",
];

/// The longest name that every one of the formats allows.
const LONG: usize = 60_000;

/// Two names of this length that differ in the middle only.
fn long(length: usize) -> [String; 2] {
    ['a', 'b'].map(|c| format!("{}{c}{}", "\u{1b}<".repeat(length / 4), "x".repeat(length / 2)))
}

/// The names of the matrices of a checkpoint: single ones, and two blocks of every hostile stack.
fn names(longest: usize) -> Vec<String> {
    let hostile = HOSTILE.iter().map(|text| (*text).to_owned());
    let all: Vec<String> = hostile.chain(long(longest)).collect();
    let blocks = all.iter().flat_map(|text| [format!("{text}.0.w"), format!("{text}.1.w")]);
    blocks.chain(all.iter().cloned()).collect()
}

const SIDE: usize = 16;

/// The elements of matrix `i`: noise, with a NaN in every fifth.
fn elements(i: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64 ^ (i as u64) << 32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let mut values: Vec<f32> = (0..SIDE * SIDE).map(|_| noise()).collect();
    if i % 5 == 4 {
        values[7] = f32::NAN;
    }
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn safetensors(names: &[String]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (i, name) in names.iter().enumerate() {
        let from = data.len();
        data.extend(elements(i));
        let entry = json!({"dtype": "F32", "shape": [SIDE, SIDE], "data_offsets": [from, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// A checkpoint of each format with its names, in a directory whose own name is hostile where the
/// system allows that. The configuration beside them is hostile, too.
fn checkpoints() -> (tempfile::TempDir, Vec<(PathBuf, Vec<String>)>) {
    let root = tempfile::tempdir().unwrap();
    let named = if cfg!(unix) { "\u{1b}[31m<b>\u{202e}|`dir\n" } else { "plain" };
    let mut all = Vec::new();
    let mut add = |format: &str, file: &str, names: Vec<String>, bytes: Vec<u8>| {
        let dir = root.path().join(format).join(named);
        std::fs::create_dir_all(&dir).unwrap();
        let kind = "<script>\u{1b}[31m".repeat(60_000);
        std::fs::write(dir.join("config.json"), json!({"model_type": kind}).to_string()).unwrap();
        let path = dir.join(file);
        std::fs::write(&path, bytes).unwrap();
        all.push((path, names));
    };
    let megabytes = names(1_000_000);
    add("safetensors", "model.safetensors", megabytes.clone(), safetensors(&megabytes));
    let shorter = names(LONG);
    let shape = [SIDE as u64, SIDE as u64];
    let tensors = shorter.iter().enumerate().map(|(i, n)| gguf::Tensor::new(n, &shape, 0, elements(i)));
    add("gguf", "model.gguf", shorter.clone(), gguf::File::new(Vec::new(), tensors.collect()).bytes());
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({SIDE}, {SIDE}), }}");
    let member = |(i, name): (usize, &String)| {
        archive::Member::stored(&format!("{name}.npy"), &archive::npy(&header, &elements(i)))
    };
    // What an archive does not allow in the name of a member is refused: see the tests of that format.
    let allowed: Vec<String> = shorter.into_iter().filter(|name| !name.contains('\0')).collect();
    let members: Vec<archive::Member> = allowed.iter().enumerate().map(member).collect();
    add("npz", "model.npz", allowed.clone(), archive::archive(&members));
    (root, all)
}

fn run(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).arg(path).env_remove("CLICOLOR_FORCE").output().unwrap()
}

/// Nothing that a terminal acts upon or that hides text, and no more than so many bytes.
#[track_caller]
fn harmless<'a>(bytes: &'a [u8], most: usize, what: &str) -> &'a str {
    let text = std::str::from_utf8(bytes).unwrap();
    let invisible = |c: char| {
        matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    let bad = text.char_indices().find(|(_, c)| c.is_control() && *c != '\n' || invisible(*c));
    if let Some((at, c)) = bad {
        let near: String = text[at..].chars().take(20).collect();
        panic!("{what} has {c:?} at byte {at}: {near:?}");
    }
    assert!(text.len() <= most, "{what} has {} bytes", text.len());
    text
}

/// Cells of a Markdown table's row: bars that no backslash escapes.
fn bars(line: &str) -> usize {
    let mut escaped = false;
    let plain = |c: char| {
        let bar = c == '|' && !escaped;
        escaped = c == '\\' && !escaped;
        bar
    };
    line.chars().map(plain).filter(|bar| *bar).count()
}

#[track_caller]
fn sound_markdown(text: &str, what: &str) {
    assert!(!text.contains('<') && !text.contains("://") && !text.contains("www."), "{what}");
    assert!(!text.contains("@s") && !text.contains("@S"), "{what} mentions somebody");
    let rows: Vec<usize> = text.lines().filter(|line| line.starts_with('|')).map(bars).collect();
    assert!(rows.len() > 10 && rows.iter().all(|bars| *bars == rows[0]), "{what}: {rows:?}");
    let code = text.replace("\\\\", "").replace("\\`", "");
    assert!(!code.contains('`'), "{what} has a code span");
}

#[track_caller]
fn sound_table(text: &str, what: &str) {
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 600, "{what} is {widest} wide");
}

#[track_caller]
fn sound_csv(text: &str, what: &str) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut rows = 0;
    // The reader itself refuses rows of different lengths.
    for record in reader.records() {
        let record = record.unwrap();
        let numbers = |cell: &str| cell.parse::<f64>().is_ok();
        let formula = |cell: &&str| cell.starts_with(['=', '+', '-', '@']) && !numbers(cell);
        assert_eq!(record.iter().find(formula), None, "{what}");
        rows += 1;
    }
    assert!(rows > 10, "{what}");
}

/// The names in JSON: exact up to the limit, cut and different above it.
#[track_caller]
fn sound_json(text: &str, list: &str, expected: &[String], what: &str) {
    assert!(!text.contains('<'), "{what} has markup");
    let value: Value = serde_json::from_str(text).unwrap();
    let found: HashSet<&str> =
        value[list].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(found.len(), expected.len(), "{what}: two names became one");
    for name in expected {
        match name.len() {
            ..=4096 => assert!(found.contains(name.as_str()), "{what} lacks {name:?}"),
            length => {
                let cut = format!("…({length} bytes, fnv1a ");
                assert!(found.iter().any(|name| name.contains(&cut)), "{what}");
            }
        }
    }
    assert!(found.iter().all(|name| name.len() <= 4096), "{what}");
}

const GATE: [&str; 8] = [
    "--min-eigenvalues=8",
    "--max-alpha=0.01",
    "--min-alpha=9",
    "--max-alpha-std=1e-9",
    "--max-spectral-norm=1e-9",
    "--min-stable-rank=1e9",
    "--threads=2",
    "--granularity=block",
];

#[test]
fn every_output_is_harmless_and_bounded() {
    const MOST: usize = 400_000;
    let (_root, checkpoints) = checkpoints();
    for (path, names) in &checkpoints {
        let kind = path.extension().unwrap().to_str().unwrap();
        for format in ["table", "markdown", "csv", "json"] {
            let runs: [(&str, Vec<&str>); 3] = [
                ("blocks", [&["analyze", "--format", format, "--per=block"], &GATE[..]].concat()),
                ("matrices", [&["analyze", "--format", format, "--per=matrix"], &GATE[..]].concat()),
                ("tensors", vec!["inspect", "--format", format]),
            ];
            for (list, arguments) in runs {
                let what = format!("{kind} {format} {list}");
                let done = run(&arguments, path);
                let stderr = harmless(&done.stderr, MOST, &format!("stderr of {what}"));
                let text = harmless(&done.stdout, MOST, &what);
                let gated = arguments[0] == "analyze";
                assert_eq!(done.status.code(), Some(i32::from(gated)), "{what}: {stderr}");
                let findings = matches!(format, "csv" | "json") && gated;
                assert_eq!(stderr.contains("gate: non-finite: matrix "), findings, "{what}");
                assert!(stderr.lines().all(|line| line.starts_with("gate: ")), "{what}");
                match format {
                    "table" => sound_table(text, &what),
                    "markdown" => sound_markdown(text, &what),
                    "csv" => sound_csv(text, &what),
                    _ if list == "blocks" => {}
                    _ => sound_json(text, list, names, &what),
                }
            }
        }
    }
}

/// A path is the user's own: JSON has it exactly.
#[test]
fn json_has_the_path_and_refers_to_blocks_by_their_names() {
    let (_root, checkpoints) = checkpoints();
    let (path, _) = &checkpoints[0];
    let done = run(&["analyze", "--format=json", "--min-eigenvalues=8", "--granularity=block"], path);
    let value: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(value["checkpoint"]["path"], path.to_str().unwrap());
    assert!(value["checkpoint"]["architecture"].as_str().unwrap().len() <= 4096);
    let list = |key: &str| value[key].as_array().unwrap().clone();
    let blocks: HashSet<String> = list("blocks").iter().map(|b| b["name"].to_string()).collect();
    assert_eq!(blocks.len(), 2 * (HOSTILE.len() + 2));
    let used: HashSet<String> =
        list("matrices").iter().filter(|m| m["block"].is_string()).map(|m| m["block"].to_string()).collect();
    assert_eq!(blocks, used);
    let stacks: HashSet<String> = list("stacks").iter().map(|s| s["name"].to_string()).collect();
    assert!(list("blocks").iter().all(|b| stacks.contains(&b["stack"].to_string())));
}

/// What a message says of a name is one line, too.
#[test]
fn messages_are_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for name in HOSTILE.iter().map(|n| (*n).to_owned()).chain(long(1_000_000)) {
        let header = |entries: &str| {
            let text = format!("{{{entries}}}");
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 8]].concat()
        };
        let key = serde_json::to_string(&name).unwrap();
        let entry = |dtype: &str, to: usize| {
            format!(r#"{key}:{{"dtype":{dtype},"shape":[2],"data_offsets":[0,{to}]}}"#)
        };
        let wrong = [
            entry(r#""F32""#, 4),
            entry(&key, 8),
            format!("{},{}", entry(r#""F32""#, 8), entry(r#""F32""#, 8)),
            format!(r#""__metadata__":{{{key}:1}},{}"#, entry(r#""F32""#, 8)),
            format!(r#""a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8],{key}:1}}"#),
        ];
        for entries in wrong {
            std::fs::write(&path, header(&entries)).unwrap();
            let done = run(&["analyze"], &path);
            let message = harmless(&done.stderr, 4000, "the message");
            assert_eq!(done.status.code(), Some(2), "{message}");
            assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
        }
    }
}
