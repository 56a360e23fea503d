//! Files that break the rules, and files that are merely odd.

use std::time::{Duration, Instant};

use evenkeel::{Checkpoint, Error, OpenOptions, Settings, Silent};
use proptest::prelude::*;

use super::refusal::refused_bytes as refused;
use super::writer::{File, Tensor, Value, array, int32, string, text, uint16, uint32};
use super::{gguf, open, settings, written};

fn one(metadata: Vec<(&str, Value)>) -> File {
    File::new(metadata, vec![Tensor::zeros("a.weight", &[2, 3])])
}

fn tensors(tensors: Vec<Tensor>) -> Vec<u8> {
    File::new(vec![], tensors).bytes()
}

#[test]
fn headers_that_break_the_rules() {
    let counts = |tensors, keys| File { counts: Some((tensors, keys)), ..one(vec![]) }.bytes();
    // As long as so many tensors would be at least.
    let mut more_than_are_read = counts((1 << 17) + 1, 0);
    more_than_are_read.resize(8 << 20, 0);
    let version = |version| File { version, ..one(vec![]) }.bytes();
    let huge = u64::MAX.to_le_bytes();
    let key = |bytes: &[u8]| [&counts(0, 1)[..24], bytes].concat();
    let nested = (0..8).fold(array(0, 1, &[7]).1, |inside, _| array(9, 1, &inside).1);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GGUF".to_vec(), "4 bytes long, too short for a header"),
        (b"GGUX\x03\0\0\0".to_vec(), "does not begin with `GGUF`"),
        (b"lmgg\x01\0\0\0".to_vec(), "ggml file from before GGUF"),
        (version(1), "of version 1"),
        (version(0), "of version 0"),
        (version(4), "of version 4"),
        (version(3 << 24), "big-endian"),
        (counts(1 << 60, 0), "should hold 1152921504606846976 tensors"),
        (counts(u64::MAX, 0), "should hold 18446744073709551615 tensors"),
        (counts(1, 1 << 60), "should hold 1152921504606846976 entries of metadata"),
        (more_than_are_read, "it has 131073 tensors, more than 131072"),
        (counts(9, 0), "should hold 9 tensors from byte 24 on, but the file ends at byte 120"),
        (key(&[huge, huge].concat()), "is 18446744073709551615 bytes long, more than 65535"),
        (key(&[&200u64.to_le_bytes()[..], &[0; 20]].concat()), "200 bytes should follow at byte 32"),
        (key(&[&string(b"\xff\xfe")[..], &[0; 5]].concat()), "the name of a key at byte 24 is not UTF-8"),
        (one(vec![("k", (13, vec![0; 8]))]).bytes(), "`k` is of type 13"),
        (one(vec![("k", (8, huge.to_vec()))]).bytes(), "should follow"),
        (one(vec![("k", array(0, 1 << 60, &[]))]).bytes(), "elements of the array `k`"),
        (one(vec![("k", array(12, u64::MAX, &[]))]).bytes(), "elements of the array `k`"),
        (one(vec![("k", array(8, 1 << 40, &[]))]).bytes(), "elements of the array `k`"),
        (one(vec![("k", array(8, 1, &huge))]).bytes(), "should follow"),
        (one(vec![("k", array(77, 1, &[0]))]).bytes(), "elements of type 77"),
        (one(vec![("k", (9, nested))]).bytes(), "nested more than 4 deep"),
        (one(vec![("k", uint32(1)), ("k", uint32(2))]).bytes(), "the key `k` occurs twice"),
        (one(vec![("general.alignment", uint32(0))]).bytes(), "general.alignment is no power of two"),
        (one(vec![("general.alignment", uint32(48))]).bytes(), "general.alignment is no power of two"),
        (one(vec![("general.alignment", text("32"))]).bytes(), "general.alignment is no power of two"),
        (one(vec![("general.alignment", uint32(1 << 31))]).bytes(), "but there are 0 bytes of data"),
    ];
    for (bytes, part) in cases {
        refused("model.gguf", &bytes, part);
    }
    refused("big-endian.gguf", &std::fs::read(gguf("big-endian.gguf")).unwrap(), "big-endian");
    // What a file is, its content says: not its name.
    refused("model.safetensors", &counts(1 << 60, 0), "is not a valid GGUF file");
}

#[test]
fn tensors_that_break_the_rules() {
    let plain = |name: &str| Tensor::zeros(name, &[2, 3]);
    let shaped = |shape: &[u64]| Tensor { shape: shape.to_vec(), ..plain("a") };
    let quantised = |shape: &[u64], bytes| Tensor::new("a", shape, 8, vec![0; bytes]);
    let at = |offset, name| Tensor { offset: Some(offset), ..plain(name) };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (tensors(vec![plain("a"), plain("b"), plain("a")]), "the tensor `a` occurs twice"),
        (tensors(vec![shaped(&[1, 1, 1, 2, 3])]), "has 5 dimensions, more than 4"),
        (tensors(vec![shaped(&[1 << 32, 1 << 32])]), "has a shape whose size overflows"),
        (tensors(vec![shaped(&[0, 1 << 32, 1 << 32])]), "has a shape whose size overflows"),
        (tensors(vec![shaped(&[1 << 62])]), "takes 18446744073709551616 bytes from offset 0 on"),
        (tensors(vec![shaped(&[2, 4])]), "takes 32 bytes from offset 0 on, but there are 24 bytes"),
        (tensors(vec![at(8, "a")]), "begins at offset 8, which is no multiple of the alignment 32"),
        (tensors(vec![at(32, "a")]), "takes 24 bytes from offset 32 on"),
        (tensors(vec![at(u64::MAX - 31, "a")]), "takes 24 bytes from offset 18446744073709551584 on"),
        (tensors(vec![plain("a"), at(0, "b")]), "`a` and `b` overlap"),
        (tensors(vec![Tensor::zeros("a", &[20]), at(64, "b"), at(32, "c")]), "`a` and `c` overlap"),
        (
            tensors(vec![quantised(&[2, 48], 102)]),
            "has rows of 48 elements, which is no multiple of the 32 in a block of Q8_0",
        ),
        (tensors(vec![quantised(&[], 34)]), "has rows of 1 elements"),
        (
            tensors(vec![quantised(&[2, 64], 4 * 34 - 1)]),
            "takes 136 bytes from offset 0 on, but there are 135",
        ),
        (tensors(vec![plain("\u{1b}[2J\nx"), plain("\u{1b}[2J\nx")]), "\\u{1b}[2J\\u{a}x"),
        (tensors(vec![plain(&"n".repeat(70_000))]), "the name of a tensor at byte 24 is 70000 bytes long"),
        (tensors(vec![]), "it holds no tensors"),
    ];
    for (bytes, part) in cases {
        refused("model.gguf", &bytes, part);
    }
}

/// A file with something of everything: values of all kinds, blocks, plain numbers.
fn sample() -> File {
    let metadata = vec![
        ("general.architecture", text("phi3")),
        ("phi3.embedding_length", uint32(32)),
        ("phi3.attention.head_count", uint32(2)),
        ("phi3.attention.head_count_kv", array(4, 2, &[1, 0, 0, 0, 1, 0, 0, 0])),
        ("tokenizer.tokens", array(8, 2, &[string(b"a"), string(b"bc")].concat())),
        ("nested", array(9, 1, &array(0, 2, &[1, 2]).1)),
        ("float", (12, vec![0; 8])),
    ];
    let blocks = |count: usize| (0..count * 34).map(|i| (i * 37 % 60) as u8).collect::<Vec<u8>>();
    let tensors = vec![
        Tensor::new("blk.0.attn_qkv.weight", &[64, 32], 8, blocks(64)),
        Tensor::new("blk.1.ffn_up_exps.weight", &[2, 8, 32], 8, blocks(16)),
        Tensor::new("blk.1.ffn_norm.weight", &[3], 0, vec![0; 12]),
    ];
    File::new(metadata, tensors)
}

#[test]
fn every_truncation_is_refused() {
    let (whole, borders) = sample().write();
    let (_dir, path) = written("model.gguf", &whole);
    assert_eq!(open(&path, true).tensors().len(), 3);
    let data = borders[borders.len() - 4];
    // Every byte of the header, every border of the data and their neighbours.
    let around = borders.iter().flat_map(|b| [b - 1, *b]).filter(|b| *b < whole.len() && *b > data);
    for length in (1..=data).chain(around) {
        for mmap in [true, false] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let opened = Checkpoint::open(&path, &OpenOptions { mmap, ..OpenOptions::default() });
            assert!(opened.is_err(), "{length} of {} bytes are accepted", whole.len());
        }
    }
}

/// A vocabulary that is longer than what is read of a file at once, in front of the tensors.
#[test]
fn long_metadata_is_passed_over() {
    let tokens: Vec<u8> = (0..40_000).flat_map(|i| string(format!("token {i}").as_bytes())).collect();
    let metadata = vec![
        ("tokens", array(8, 40_000, &tokens)),
        ("scores", array(6, 40_000, &vec![0; 160_000])),
        ("template", text(&"x".repeat(200_000))),
        ("general.architecture", text("llama")),
    ];
    let (_dir, path) = written("x.gguf", &one(metadata).bytes());
    for mmap in [true, false] {
        let checkpoint = open(&path, mmap);
        assert_eq!(checkpoint.config().unwrap().model_type(), Some("llama"));
        assert_eq!(checkpoint.tensors()[0].name, "a.weight");
    }
}

/// Files that are odd, and right.
#[test]
fn odd_files_are_read() {
    // 123 tensors: the ninth byte is the brace by which a safetensors file is known.
    let many: Vec<Tensor> = (0..123).map(|i| Tensor::zeros(&format!("t.{i}"), &[2, 2])).collect();
    let (_dir, path) = written("model", &tensors(many));
    assert_eq!((open(&path, true).format(), open(&path, true).tensors().len()), ("gguf", 123));
    let version_2 = File { version: 2, ..sample() }.bytes();
    let (_dir, path) = written("x.gguf", &version_2);
    assert_eq!(open(&path, false).tensors().len(), 3);
    // A scalar, an empty tensor, and a type from the future.
    let strange = vec![
        Tensor::zeros("scalar", &[]),
        Tensor { offset: Some(1 << 40), ..Tensor::zeros("empty", &[0, 4]) },
        Tensor::new("new", &[4, 4], 99, vec![0; 16]),
        Tensor::new("old", &[4, 4], 31, vec![0; 16]),
    ];
    let (_dir, path) = written("x.gguf", &tensors(strange));
    let report = super::analyze(&path, &settings());
    let reason = |name: &str| report.skipped.iter().find(|s| s.name == name).unwrap().reason.as_str();
    assert_eq!((reason("scalar"), reason("empty")), ("scalar", "empty"));
    assert_eq!(reason("new"), "of the ggml type 99, which this version does not know");
    assert_eq!(reason("old"), "of the ggml type 31 (Q4_0_4_4), which this version does not know");
}

#[test]
fn parts_must_belong_together() {
    let part = |number, count, tensors, names: &[&str]| {
        let split = vec![
            ("split.no", uint16(number)),
            ("split.count", uint16(count)),
            ("split.tensors.count", int32(tensors)),
        ];
        File::new(split, names.iter().map(|name| Tensor::zeros(name, &[2, 2])).collect()).bytes()
    };
    let whole = tensors(vec![Tensor::zeros("b", &[2, 2])]);
    let first = || part(0, 2, 2, &["a"]);
    type Files<'a> = Vec<(&'a str, Vec<u8>)>;
    let cases: Vec<(Files, &str)> = vec![
        (
            vec![("x-00001-of-00002.gguf", first())],
            "part 2 of 2 is missing: there is no `x-00002-of-00002.gguf`",
        ),
        (vec![("x-00002-of-00002.gguf", part(1, 2, 2, &["b"]))], "part 1 of 2 is missing"),
        (vec![("x.gguf", first())], "its name does not end in -00001-of-00002.gguf"),
        (vec![("x-00001-of-00003.gguf", first())], "its name does not end in -00001-of-00002.gguf"),
        (
            vec![("x-00001-of-00002.gguf", first()), ("x-00002-of-00002.gguf", whole)],
            "does not make it part 2 of the 2 that `x-00001-of-00002.gguf` belongs to",
        ),
        (
            vec![("x-00001-of-00002.gguf", first()), ("x-00002-of-00002.gguf", part(1, 2, 3, &["b"]))],
            "does not make it part 2 of the 2",
        ),
        (
            vec![("x-00001-of-00002.gguf", first()), ("x-00002-of-00002.gguf", part(1, 2, 2, &["b", "c"]))],
            "all parts hold 2 tensors, but they hold 3",
        ),
        (
            vec![("x-00001-of-00002.gguf", first()), ("x-00002-of-00002.gguf", part(1, 2, 2, &["a"]))],
            "the tensor `a` is in `x-00001-of-00002.gguf` and in `x-00002-of-00002.gguf`",
        ),
        (
            vec![("x-00001-of-00002.gguf", first()), ("x-00002-of-00002.gguf", b"GGUF\x03\0\0\0\0".to_vec())],
            "x-00002-of-00002.gguf is not a valid GGUF file",
        ),
        (
            vec![("x-00001-of-00002.gguf", first()), ("y-00001-of-00002.gguf", first())],
            "it holds several checkpoints",
        ),
        (vec![("x.gguf", part(u16::MAX, u16::MAX, 2, &["a"]))], "by its metadata it is part 65536 of 65535"),
    ];
    for (files, message) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        super::refusal::refused(dir.path(), message);
    }
}

/// Everything that can be done with a file; it may be refused, and must not panic.
fn use_all(bytes: &[u8], mmap: bool) -> bool {
    let (_dir, path) = written("model.gguf", bytes);
    let options = OpenOptions { mmap, ..OpenOptions::default() };
    let start = Instant::now();
    let used = match Checkpoint::open(&path, &options) {
        Err(error) => {
            let message = error.to_string();
            assert!(!matches!(error, Error::Changed { .. }) && message.ends_with('.'), "{message}");
            false
        }
        Ok(checkpoint) => {
            let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
            evenkeel::inventory(&checkpoint, &settings).unwrap();
            evenkeel::analyze(&checkpoint, &settings, &Silent).unwrap();
            true
        }
    };
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    used
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        in_header in any::<bool>(),
        mmap in any::<bool>(),
    ) {
        let (mut bytes, borders) = sample().write();
        // Half of the cases hit the header only: it is a small part of the file.
        let length = if in_header { borders[borders.len() - 4] } else { bytes.len() };
        for (place, value) in &changes {
            bytes[place.index(length)] = *value;
        }
        prop_assert!(use_all(&bytes, mmap) || !changes.is_empty());
    }

    /// Numbers in the header's fields that are near a limit, each field by itself.
    #[test]
    fn changed_fields_never_panic(
        field in 0usize..9,
        number in prop::sample::select(vec![
            0u64, 1, 2, 3, 4, 5, 9, 31, 32, 63, 64, 255, 1 << 16, 1 << 31, 1 << 32, (1 << 32) + 1,
            1 << 60, 1 << 61, 1 << 62, 1 << 63, u64::MAX - 31, u64::MAX - 1, u64::MAX,
        ]),
        kind in 0u32..45,
        mmap in any::<bool>(),
    ) {
        let mut file = sample();
        let tensor = (number % 3) as usize;
        match field {
            0 => file.counts = Some((number, 7)),
            1 => file.counts = Some((3, number)),
            2 => file.tensors[tensor].offset = Some(number),
            3 => file.tensors[tensor].shape = vec![number, 32],
            4 => file.tensors[tensor].shape = vec![32, number],
            5 => file.tensors[tensor].shape = vec![number; tensor + 2],
            6 => file.tensors[tensor].kind = kind,
            7 => file.metadata[4].1 = array(kind % 14, number, &[0; 64]),
            _ => file.metadata[tensor + 1].1 = (10, number.to_le_bytes().to_vec()),
        }
        use_all(&file.bytes(), mmap);
    }
}
