//! Safetensors files and their indices that break the rules; directories, names.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use proptest::prelude::*;
use serde_json::json;

use super::refusal::refused;

/// A safetensors file out of a header's text and its data.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A valid file: tensors of F32 zeros with these names and shapes.
pub fn valid(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]});
        header.insert((*name).to_owned(), entry);
        offset = end;
    }
    file(&serde_json::to_string(&header).unwrap(), &vec![0; offset])
}

#[track_caller]
fn refused_bytes(bytes: &[u8], part: &str) {
    super::refusal::refused_bytes("model.safetensors", bytes, part);
}

#[test]
fn headers_that_break_the_rules() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let one = |a: String| format!(r#"{{"a":{a}}}"#);
    let four = || entry("F32", "[1]", 0, 4);
    let huge = (1u64 << 61) - 1;
    let eight: Vec<String> = (0..8)
        .map(|i| format!(r#""t{i}":{}"#, entry("U8", &format!("[{huge}]"), i * huge, i * huge + huge)))
        .collect();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (vec![1, 2, 3], "3 bytes long, too short"),
        (u64::MAX.to_le_bytes().to_vec(), "holds only 0 after the length"),
        (file("{}", &[])[..9].to_vec(), "should be 2 bytes long"),
        (file("{\"a\":", &[]), "not what the format allows"),
        (file("[]", &[]), "not what the format allows"),
        (file(&one(deep), &[]), "not what the format allows"),
        ([&4u64.to_le_bytes()[..], &[b'{', 0xff, 0xfe, b'}']].concat(), "not UTF-8 at byte 1"),
        (file(&format!(r#"{{"a":{},"a":{}}}"#, four(), four()), &[0; 4]), "the key `a` occurs twice"),
        (
            file(r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]),
            "duplicate field",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#, &[0; 4]),
            "unknown field `x`",
        ),
        (
            file(r#"{"__metadata__":{"k":1},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]),
            "__metadata__",
        ),
        (file(&one(entry("F31", "[1]", 0, 4)), &[0; 4]), "F31"),
        (file(&one(entry("F32", "[-1]", 0, 4)), &[0; 4]), "`a`"),
        (file(&one(entry("F32", "[1.5]", 0, 4)), &[0; 4]), "`a`"),
        (file(&one(entry("F32", "[2]", 0, 4)), &[0; 4]), "needs 64 bits, but has 4 bytes"),
        (file(&one(entry("F4", "[3]", 0, 1)), &[0; 1]), "needs 12 bits, but has 1 bytes"),
        (file(&one(entry("F32", "[1]", 4, 0)), &[0; 4]), "lies at 4..0"),
        (file(&one(entry("F32", "[1]", 0, 4)), &[0; 3]), "lies at 0..4 of 3 bytes"),
        (file(&one(entry("U8", "[4294967296,4294967296]", 0, 0)), &[]), "overflows"),
        (file(&one(entry("U8", "[0,4294967296,4294967296]", 0, 0)), &[]), "overflows"),
        (file(&format!("{{{}}}", eight.join(",")), &[0; 64]), "the tensor `t0` lies at"),
        (file(&two(four(), entry("F32", "[1]", 2, 6)), &[0; 6]), "the tensor `b` overlaps"),
        (file(&two(four(), entry("F32", "[1]", 8, 12)), &[0; 12]), "4 bytes before the tensor `b`"),
        (file(&one(four()), &[0; 9]), "its last 5 bytes belong to no tensor"),
    ];
    for (bytes, part) in cases {
        refused_bytes(&bytes, part);
    }
}

#[test]
fn other_formats_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, head, part) in [
        ("a.zip", &b"PK\x03\x04....."[..], "zip archive"),
        ("b.pkl", b"\x80\x02}q\x00.....", "none that torch.save wrote"),
        ("c.gguf", b"GGUF\x03\0\0\0\0\0", "GGUF"),
        ("d.txt", b"hello, hello, hello", "the format of this file is not known"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, head).unwrap();
        refused(&path, part);
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = valid(&[("a.weight", &[2, 3]), ("b.weight", &[4])]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let opened = Checkpoint::open(&path, &OpenOptions::default());
        assert!(opened.is_err(), "{length} of {} bytes are accepted", whole.len());
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(Checkpoint::open(&path, &OpenOptions::default()).unwrap().tensors().len(), 2);
}

/// A file's name and content.
type NamedBytes<'a> = (&'a str, &'a [u8]);

/// A directory with these files.
fn directory(files: &[NamedBytes]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

fn index(map: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<String> = map.iter().map(|(tensor, shard)| format!("{tensor:?}:{shard:?}")).collect();
    format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, entries.join(",")).into_bytes()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_must_agree_with_their_index() {
    let (one, two) = (valid(&[("a.weight", &[2])]), valid(&[("b.weight", &[2])]));
    let both = valid(&[("a.weight", &[2]), ("b.weight", &[2])]);
    let cases: Vec<(Vec<u8>, Vec<NamedBytes>, &str)> = vec![
        (
            index(&[("a.weight", "1.st"), ("b.weight", "2.st")]),
            vec![("1.st", &one)],
            "the shard `2.st` is missing",
        ),
        (index(&[("a.weight", "../1.st")]), vec![("1.st", &one)], "is not the plain name of a file"),
        (index(&[("a.weight", "/etc/passwd")]), vec![], "is not the plain name of a file"),
        (index(&[("a.weight", "..")]), vec![], "is not the plain name of a file"),
        (
            index(&[("a.weight", "1.st"), ("a.weight", "2.st")]),
            vec![("1.st", &one)],
            "`a.weight` occurs twice",
        ),
        (
            index(&[("a.weight", "1.st"), ("c.weight", "1.st")]),
            vec![("1.st", &one)],
            "puts the tensor `c.weight`",
        ),
        (
            index(&[("a.weight", "1.st")]),
            vec![("1.st", &both)],
            "holds the tensor `b.weight`, which the index",
        ),
        (
            index(&[("a.weight", "1.st"), ("b.weight", "2.st")]),
            vec![("1.st", &both), ("2.st", &two)],
            "`b.weight`",
        ),
        (index(&[]), vec![], "lists no tensor"),
        (b"{".to_vec(), vec![], "is not a valid checkpoint index"),
    ];
    for (map, mut files, part) in cases {
        files.push((INDEX, &map));
        refused(directory(&files).path(), part);
    }
}

#[test]
fn directories_without_one_checkpoint() {
    let one = valid(&[("a.weight", &[2])]);
    refused(directory(&[]).path(), "the directory is empty");
    refused(directory(&[("readme.txt", b"x")]).path(), "holds no checkpoint that this version reads");
    refused(directory(&[("pytorch_model.bin", b"x")]).path(), "the format of this file is not known");
    refused(
        directory(&[("a.safetensors", &one), ("b.safetensors", &one)]).path(),
        "a.safetensors, b.safetensors",
    );
    let diffusers = directory(&[
        ("model_index.json", b"{}"),
        ("unet/diffusion_pytorch_model.safetensors", &one),
        ("vae/diffusion_pytorch_model.safetensors", &one),
        ("tokenizer/vocab.json", b"{}"),
    ]);
    refused(diffusers.path(), "holds several models");
    refused(diffusers.path(), "unet, ");
    refused(directory(&[("model.safetensors", &one), ("config.json", b"[]")]).path(), "config.json");
    refused(Path::new("no/such/path"), "there is no file or directory");
    refused(Path::new("no-such/model"), "no-such/model");
}

/// A pipe would block the open, a directory of that name would not read: neither is a file.
#[cfg(unix)]
#[test]
fn special_files_are_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("model.safetensors");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(&pipe, "not a regular file");
    refused(Path::new("/dev/null"), "not a regular file");
}

#[test]
fn hostile_names_are_escaped_everywhere() {
    let evil = "\u{1b}[2J<script>\n|`x`\u{202e}.0.weight";
    let dir = directory(&[("model.safetensors", &valid(&[(evil, &[64, 64]), ("x.weight", &[64, 64])]))]);
    for format in ["table", "markdown", "csv"] {
        for command in ["analyze", "inspect"] {
            let mut run = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
            run.args([command, "--format", format]).arg(dir.path());
            if command == "analyze" {
                run.args(["--per", "matrix"]);
            }
            let done = run.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let text = String::from_utf8(done.stdout).unwrap();
            if format == "csv" {
                continue; // data, quoted but not changed
            }
            assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{format}: {text:?}");
            assert!(text.contains("u{1b}"), "{format}: {text}");
            assert!(format != "markdown" || !text.contains("<script>"), "{text}");
        }
    }
}

/// Text out of a header reaches the message escaped and cut, whichever rule it breaks.
#[test]
fn hostile_text_in_error_messages_is_escaped() {
    let long = "D".repeat(1_000_000);
    let long_type = format!(r#"{{"a":{{"dtype":"{long}","shape":[1],"data_offsets":[0,4]}}}}"#);
    let ones = vec!["1"; 300_000].join(",");
    let long_shape = format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,8]}}}}"#);
    let escape = r#"{"a":{"dtype":"\u001b[31mEVIL\nerror: all fine","shape":[1],"data_offsets":[0,4]}}"#;
    let key = r#"{"a":{"\u001b[31mEVIL\nerror: all fine":1}}"#;
    for header in [&long_type, &long_shape, escape, key] {
        let dir = directory(&[("model.safetensors", &file(header, &[0; 8]))]);
        let error = Checkpoint::open(dir.path(), &OpenOptions::default()).unwrap_err().to_string();
        assert!(!error.contains(['\u{1b}', '\n']), "{error:?}");
        assert!(error.len() < 1500, "{} characters", error.len());
    }
}

/// Head counts that no model has are ignored: nothing may overflow, nothing is divided by zero.
#[test]
fn absurd_head_counts_in_the_configuration() {
    let names = [
        "h.0.self_attention.query_key_value.weight",
        "layers.0.self_attn.qkv_proj.weight",
        "layers.0.wqkv.weight",
    ];
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (*name, &[24usize, 8][..])).collect();
    let weights = valid(&tensors);
    let counts = [
        "0",
        "-1",
        "9223372036854775808",
        "18446744073709551614",
        "18446744073709551615",
        "\"8\"",
        "null",
        "3",
    ];
    for kind in ["phi3", "falcon", "bloom", "internlm2", "gpt_bigcode", "gpt_neox"] {
        for heads in counts {
            for shared in counts {
                for flag in ["multi_query", "new_decoder_architecture"] {
                    let config = format!(
                        r#"{{"model_type":"{kind}","num_attention_heads":{heads},"num_key_value_heads":{shared},"{flag}":true}}"#
                    );
                    let files: [NamedBytes; 2] =
                        [("model.safetensors", &weights), ("config.json", config.as_bytes())];
                    let read = use_all(&directory(&files).path().join("model.safetensors"), true);
                    assert_eq!(read.unwrap().len(), names.len(), "{config}");
                }
            }
        }
    }
}

/// Neither a name of thousands of segments, nor a long one on a stack of many matrices, nor very
/// many stacks may cost more than a moment.
#[test]
fn names_that_would_multiply() {
    let dotted = format!("{}weight", "0.".repeat(100_000));
    let long = format!("{}.experts.w", "n".repeat(200_000));
    let deep = valid(&[(&dotted, &[4, 4]), ("a.0.b.weight", &[4, 4]), ("a.1.b.weight", &[4, 4])]);
    let stacked = valid(&[(&long, &[1000, 8, 8])]);
    let stacks: Vec<String> = (0..20_000).map(|i| format!("s{}.{}.fc.weight", i / 2, i % 2)).collect();
    let stacks: Vec<(&str, &[usize])> = stacks.iter().map(|name| (name.as_str(), &[2usize, 2][..])).collect();
    for (what, bytes) in [("deep", deep), ("stacked", stacked), ("stacks", valid(&stacks))] {
        let dir = directory(&[("model.safetensors", &bytes)]);
        let start = std::time::Instant::now();
        use_all(&dir.path().join("model.safetensors"), true).unwrap();
        // Generous: each took minutes or gigabytes when the cost was a square.
        assert!(start.elapsed().as_secs() < 20, "{what}: {:?}", start.elapsed());
    }
}

/// A link into nowhere, a page in place of a file, a file without anything in it.
#[test]
fn failed_downloads_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    refused(&directory(&[("model.safetensors", pointer)]).path().join("model.safetensors"), "git lfs pull");
    refused(directory(&[("model.safetensors", b"<!DOCTYPE html>")]).path(), "HTML");
    refused(directory(&[("model.safetensors", &file("{}", &[]))]).path(), "it holds no tensors");
    #[cfg(unix)]
    {
        let dir = directory(&[("other.txt", b"x")]);
        std::os::unix::fs::symlink("blobs/nowhere", dir.path().join("model.safetensors")).unwrap();
        refused(dir.path(), "was the download interrupted?");
    }
}

#[test]
fn shapes_with_zeros_and_no_data_are_listed() {
    let header = r#"{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]},"b":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}"#;
    let dir = directory(&[("model.safetensors", &file(header, &[0; 8]))]);
    let checkpoint = Checkpoint::open(dir.path(), &OpenOptions::default()).unwrap();
    let report = evenkeel::analyze(&checkpoint, &Settings::default(), &Silent).unwrap();
    let reasons: Vec<&str> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
    assert_eq!(reasons, ["empty", "scalar"]);
}

/// Everything that can be done with a file that was accepted; must not panic.
fn use_all(path: &Path, mmap: bool) -> Option<HashMap<String, Vec<usize>>> {
    let options = OpenOptions { mmap, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(path, &options).ok()?;
    let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings).unwrap();
    evenkeel::analyze(&checkpoint, &settings, &Silent).unwrap();
    Some(checkpoint.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Changed bytes never panic, and what is accepted the format's own library accepts, too.
    #[test]
    fn mutated_files_are_refused_or_read_as_the_library_reads_them(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        mmap in any::<bool>(),
    ) {
        let mut bytes = valid(&[("h.0.a.weight", &[4, 4]), ("h.0.b.weight", &[3, 2, 3]), ("h.1.c", &[5])]);
        for (position, value) in changes {
            let length = bytes.len();
            bytes[position % length] = value;
        }
        let dir = directory(&[("model.safetensors", &bytes)]);
        if let Some(ours) = use_all(&dir.path().join("model.safetensors"), mmap) {
            let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let theirs: HashMap<String, Vec<usize>> =
                theirs.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    /// Any valid file of any shapes is read, whatever its tensors are called.
    #[test]
    fn every_valid_file_is_read(
        tensors in prop::collection::btree_map(
            "[a-z.0-9_]{0,24}|(h\\.[0-3]\\.)?(conv|experts|c_attn|qkv|gate_up_proj|weight_ih_l0|weight_hh_l0)(\\.weight)?",
            prop::collection::vec(0usize..9, 0..6),
            1..8,
        ),
    ) {
        let tensors: Vec<(&str, &[usize])> =
            tensors.iter().filter(|(n, _)| *n != "__metadata__").map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let dir = directory(&[("model.safetensors", &valid(&tensors))]);
        let read = use_all(dir.path(), true).unwrap();
        prop_assert_eq!(read.len(), tensors.len());
    }
}
