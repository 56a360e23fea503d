//! Files that break the rules: each is refused with a sentence that names the file and the place,
//! quickly and without much memory.

use std::path::Path;

use evenkeel::{Checkpoint, Error, OpenOptions, Settings, Silent};
use proptest::prelude::*;

use crate::archive::{Pickle, legacy, legacy_storage, numbers, one_matrix, zip, zip_of, zip_with};
use crate::common::fixture;

/// Opens a file, and does everything with it that can be done. Must not panic.
fn use_all(path: &Path, mmap: bool) -> Result<usize, Error> {
    let checkpoint = Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() })?;
    let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings)?;
    evenkeel::analyze(&checkpoint, &settings, &Silent)?;
    Ok(checkpoint.tensors().len())
}

fn with_file<T>(bytes: &[u8], work: impl Fn(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pt");
    std::fs::write(&path, bytes).unwrap();
    work(&path)
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    crate::refusal::refused_bytes("model.pt", bytes, part);
}

#[track_caller]
fn refused_pickle(pickle: Pickle, part: &str) {
    refused(&zip_of(&pickle.stop()), part);
}

/// A mapping whose entry `w` is a tensor of the storage `0`, which has 64 elements of F32.
fn tensor(offset: u64, shape: &[u64], strides: &[u64]) -> Vec<u8> {
    let pickle = Pickle::new().raw(b"}").text("w");
    zip_of(&pickle.tensor(("FloatStorage", "0", 64), offset, shape, strides).raw(b"s").stop())
}

#[test]
fn the_files_of_these_tests_are_valid() {
    let storage = legacy_storage(64, &numbers());
    for bytes in [zip_of(&one_matrix()), legacy(&one_matrix(), &["0"], &storage), tensor(1, &[7, 9], &[9, 1])]
    {
        assert_eq!(with_file(&bytes, |path| use_all(path, true)).unwrap(), 1);
    }
}

#[test]
fn tensors_that_lie_about_their_storage() {
    let huge = 1 << 62;
    for (offset, shape, strides, part) in [
        (
            1,
            &[8, 8][..],
            &[8, 1][..],
            "the tensor `w`: its shape 8×8 with offset 1 reaches beyond the 64 elements",
        ),
        (0, &[8, 9], &[8, 1], "reaches beyond"),
        (0, &[8, 8], &[9, 1], "reaches beyond"),
        (u64::MAX, &[1], &[1], "offset, sizes or strides that are not counts, or reaches beyond"),
        (0, &[huge, huge], &[0, 0], "overflows"),
        (0, &[0, huge, huge], &[0, 0, 0], "overflows"),
        (0, &[2, 2], &[huge, huge], "reaches beyond"),
        (0, &[3, 3], &[u64::MAX, 1], "reaches beyond"),
        (0, &[8, 8], &[1], "strides do not agree"),
        (0, &[1; 65], &[1; 65], "are not counts"),
    ] {
        let part = part.split(", or ").last().unwrap();
        refused(&tensor(offset, shape, strides), part);
    }
    // A view that repeats one number is left out, whatever size it claims.
    let both = Pickle::new().raw(b"}(").text("w").tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]);
    let both = both.text("wide").tensor(("FloatStorage", "0", 64), 0, &[1 << 20, 1 << 20], &[0, 0]);
    let bytes = zip_of(&both.raw(b"u").stop());
    let checkpoint = with_file(&bytes, |path| Checkpoint::open(path, &OpenOptions::default()).unwrap());
    assert_eq!(checkpoint.left_out()[0].name, "wide");
    // Tensors that are no part of the model are checked as well.
    let beside = Pickle::new().raw(b"}(").text("model").raw(b"}").text("w");
    let beside = beside.tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"s").text("optimizer");
    let beside = beside.tensor(("FloatStorage", "0", 64), 9, &[8, 8], &[8, 1]).raw(b"u");
    refused_pickle(beside, "a tensor outside of the model: its shape 8×8 with offset 9");
    // Very many large views of the same numbers would keep a machine busy for long.
    let mut many = Pickle::new().raw(b"}(");
    for i in 0..60 {
        many = many.text(&format!("w{i}")).tensor(("FloatStorage", "0", 8192), i, &[64, 127], &[127, 1]);
    }
    let file = zip(&[("a/data.pkl", &many.raw(b"u").stop()), ("a/data/0", &[0; 4 * 8192])]);
    refused(&file, "more than 16 times the file");
}

#[test]
fn storages_that_are_not_there() {
    let of = |class: &str, key: &str, elements: u64| {
        let pickle = Pickle::new().raw(b"}").text("w");
        pickle.tensor((class, key, elements), 0, &[2, 2], &[2, 1]).raw(b"s")
    };
    refused_pickle(of("FloatStorage", "1", 64), "the storage `1`, which is missing");
    refused_pickle(of("FloatStorage", "0", 63), "the storage `0` has 256 bytes, but its pickle says 63");
    refused_pickle(of("FloatStorage", "0", 1 << 63), "the storage `0` has 256 bytes");
    refused_pickle(of("DoubleStorage", "0", 64), "64 elements of 8");
    refused_pickle(of("UntypedStorage", "0", 256), "no type");
    refused_pickle(of("OddStorage", "0", 64), "`torch.OddStorage`");
    refused_pickle(Pickle::new().raw(b"}").text("w").text("0").raw(b"Qs"), "no tensors");
    refused_pickle(
        Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b")R"),
        "too few arguments",
    );
    let inner = Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b"(NKKKtR");
    refused_pickle(inner, "model.pt");
}

#[test]
fn pickles_that_break_the_rules() {
    let p = Pickle::new;
    let cases = [
        (p().raw(&[0xff]), "the operation 0xff at byte"),
        (p().raw(&[0x82, 1]), "the operation 0x82"),
        (p().raw(&[0x97]), "the operation 0x97"),
        (p().raw(&[0x80, 9]), "protocol 9"),
        (p(), "takes a value that is not there"),
        (p().raw(b"N(0"), ""),
        (p().raw(b"a"), "takes a value that is not there"),
        (p().raw(b"t"), "takes a value that is not there"),
        (p().raw(b"(N\x85\x86"), "takes a value that is not there"),
        (p().raw(b"h\x07"), "refers to value 7, which it never remembered"),
        (p().raw(b"}(Nu"), "a key without a value"),
        (p().raw(b"N(NNu"), "fills what is no container"),
        (p().raw(b"]NNs"), "fills what is no container"),
        (p().raw(b"NN\x81"), "calls what is no global"),
        (
            p().global("collections", "OrderedDict").raw(b"NR"),
            "calls what is no global, or without arguments",
        ),
        (p().global("collections", "OrderedDict").raw(b"(](NNetR"), "a mapping of what are no pairs"),
        (p().raw(b"X\xff\xff\xff\x7f"), "is it cut off?"),
        (p().raw(&[0x8d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "is it cut off?"),
        (p().raw(&[0x8e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), "is it cut off?"),
        (p().raw(b"\x8b\xff\xff\xff\xff"), "is it cut off?"),
        (p().raw(b"X\x02\0\0\0\xff\xfe"), "is not UTF-8"),
        (p().raw(b"Iseven\n"), "no number"),
        (p().raw(b"gseven\n"), "no number of the memo"),
        (p().raw(b"NN\x93"), "a global without a name"),
        (p().raw(b"cos"), "is it cut off?"),
        (p().raw(b"}"), "it holds no tensors"),
        (p().raw(b"N"), "it holds no tensors"),
    ];
    for (pickle, part) in cases {
        refused_pickle(pickle, part);
    }
    // What is refused by name is said even where the rest of the file is broken.
    let evil = p().global("os", "system").raw(b"(").text("true").raw(b"tR");
    refused(&zip_of(&evil.0), "`os.system`");
    refused(&legacy(&evil.0, &[], &[]), "`os.system`");
    let evil = p().global("evil\u{1b}[31m", "x\u{202e}");
    refused_pickle(evil, "`evil\\u{1b}[31m.x\\u{202e}`");
    for (module, name) in [("builtins", "eval"), ("torch.hub", "load"), ("torch.storage", "_load_from_bytes")]
    {
        refused_pickle(p().global(module, name), &format!("`{module}.{name}`"));
        refused_pickle(p().text(module).text(name).raw(b"\x93"), &format!("`{module}.{name}`"));
        refused_pickle(
            p().raw(b"(").raw(format!("i{module}\n{name}\n").as_bytes()),
            &format!("`{module}.{name}`"),
        );
    }
}

/// A few bytes that stand for very many values, names, calls, or a structure without an end.
#[test]
fn bombs_stay_small() {
    // A list of ten times the list before, a hundred times over, with a tensor at the bottom.
    let leaf =
        || Pickle::new().raw(b"}").text("w").tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"s");
    let mut nested = leaf();
    for _ in 0..100 {
        nested = nested.raw(b"q\x01](").raw(&b"h\x01".repeat(10)).raw(b"e");
    }
    refused_pickle(nested, "containers deep");
    let mut wide = leaf();
    for _ in 0..20 {
        wide = wide.raw(b"q\x01](").raw(&b"h\x01".repeat(10)).raw(b"e");
    }
    refused_pickle(wide, "it holds more than");
    // The same without a tensor is nothing at all.
    let mut hollow = Pickle::new().raw(b"]");
    for _ in 0..200 {
        hollow = hollow.raw(b"q\x01](").raw(&b"h\x01".repeat(10)).raw(b"e");
    }
    refused_pickle(hollow, "it holds no tensors");
    // A mapping that holds itself and a tensor.
    let cyclic =
        Pickle::new().raw(b"}q\x01(").text("w").tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]);
    refused_pickle(cyclic.text("again").raw(b"h\x01u"), "");
    // One long name for very many entries.
    let name = "n".repeat(1 << 20);
    let mut names = Pickle::new().raw(b"}q\x02").text(&name).raw(b"q\x01(");
    names = names.tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"q\x030");
    names = Pickle(names.0).raw(b"1h\x02(").raw(&b"h\x01h\x03".repeat(5000)).raw(b"u");
    refused_pickle(names, "names of more than");
    // Deep nesting of every kind.
    for deep in [&b"("[..], b"]q\x01(h\x01e", b"N\x85", b"(N"] {
        let pickle = Pickle::new().raw(&deep.repeat(200_000));
        refused_pickle(pickle, "");
    }
    let tuples = Pickle::new().raw(b"N").raw(&b"\x85".repeat(500_000));
    refused_pickle(tuples, "it holds no tensors");
    // Many operations, values, and remembered values.
    refused_pickle(Pickle::new().raw(b"N").raw(&b"N0".repeat(9 << 20)), "operations");
    refused_pickle(Pickle::new().raw(&b"]0".repeat(3 << 20)), "values");
    refused_pickle(Pickle::new().raw(&b"N".repeat(2 << 20)), "on the stack");
    // One list turned into a mapping again and again.
    let pair = Pickle::new().raw(b"NN\x86q\x01](").raw(&b"h\x01".repeat(100_000)).raw(b"e\x85q\x020");
    let mapping =
        pair.global("collections", "OrderedDict").raw(b"q\x03").raw(&b"h\x03h\x02R0".repeat(100_000));
    refused_pickle(mapping, "its pickle holds values that take more than 33554432 bytes");
}

#[test]
fn archives_that_break_the_rules() {
    let pickle = one_matrix();
    let data = numbers();
    let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &pickle), ("a/data/0", &data)];
    let with = |number: usize, at: usize, bytes: &[u8]| {
        zip_with(&entries, |entry, record| {
            if entry == number {
                record[at..at + bytes.len()].copy_from_slice(bytes);
            }
        })
    };
    let also = |name: &'static str, data: &'static [u8]| zip(&[entries[0], entries[1], (name, data)]);
    refused(&also("a/data/0", b""), "two members named `a/data/0`");
    refused(&also("b/data.pkl", b"N."), "2 entries called data.pkl");
    refused(&zip(&entries[1..]), "0 entries called data.pkl");
    refused(&also("a/byteorder", b"big"), "byte order `big`");
    refused(&also("a/constants.pkl", b"N."), "TorchScript");
    refused(&also("a/code/m.py", b""), "TorchScript");
    refused(&with(1, 10, &[8]), "contradicts the directory");
    refused(&with(1, 8, &[1]), "is encrypted");
    refused(&with(1, 20, &[9]), "lies outside");
    refused(&with(1, 24, &[0xff; 4]), "a zip64 field is cut off");
    refused(&with(1, 42, &[0xff, 0xff, 0xff, 0x7f]), "lies outside");
    refused(&with(1, 42, &[0; 4]), "contradicts the directory");
    refused(&with(1, 46, b"b"), "contradicts the directory");
    refused(&with(1, 0, b"X"), "its directory has no signature");
    refused(&with(1, 46, &[0xff]), "is empty or no text");
    refused(&with(1, 28, &[0xff, 0xff]), "its directory is cut off");
    let whole = zip(&entries);
    let end = whole.len() - 22;
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(&patched(0, b"X"), "no end record");
    refused(&patched(4, &[1]), "one part of an archive of several");
    refused(&patched(8, &[3, 0, 3, 0]), "lists 2 members, but should list 3");
    refused(&patched(8, &[1, 0, 1, 0]), "lists more members than the 1 that it should");
    refused(&patched(16, &[0; 4]), "should begin at byte 0");
    refused(&patched(12, &[0xff; 4]), "its directory of 4294967295 bytes");
    refused(&patched(20, &[1]), "no end record");
    // Two entries over the same bytes: the second one's header within the first one's data.
    let inner = zip(&[("a/data/0", &data)]);
    let inner_end = inner.len() - 22 - 46 - 8;
    let outer = zip_with(&[("a/data.pkl", &inner[..inner_end]), ("a/data/0", &data)], |number, record| {
        if number == 1 {
            record[42..46].copy_from_slice(&64u32.to_le_bytes());
        }
    });
    refused(&outer, "overlaps the one before it");
    refused(b"PK\x03\x04", "");
}

#[test]
fn legacy_files_that_break_the_rules() {
    let pickle = one_matrix();
    let good = legacy_storage(64, &numbers());
    refused(&legacy(&pickle, &[], &[]), "the storage `0`, which is missing");
    refused(&legacy(&pickle, &["0", "0"], &good.repeat(2)), "the storage `0` twice");
    refused(&legacy(&pickle, &["0", "7"], &good.repeat(2)), "the storage `7`, which its pickle never names");
    refused(&legacy(&pickle, &["0"], &legacy_storage(63, &numbers())), "has 63 elements at byte");
    refused(
        &legacy(&pickle, &["0"], &legacy_storage(u64::MAX, &numbers())),
        "has 18446744073709551615 elements",
    );
    refused(&legacy(&pickle, &["0"], &good[..100]), "is it cut off?");
    refused(
        &legacy(&pickle, &["0"], &[&good[..], b"more"].concat()),
        "its last 4 bytes belong to no storage",
    );
    let twice = Pickle::new().raw(b"}(").text("v").tensor(("HalfStorage", "0", 64), 0, &[8, 8], &[8, 1]);
    let twice = twice.text("w").tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"u").stop();
    refused(&legacy(&twice, &["0"], &good), "two types or lengths");
    let mut big = legacy(&pickle, &["0"], &good);
    let at = big.windows(2).position(|pair| pair == b"\x88s").unwrap();
    big[at] = 0x89;
    refused(&big, "stored big-endian");
    refused(&Pickle::new().raw(b"}").stop(), "none that torch.save wrote");
    // A part of a storage, as files of torch 0.2 describe it.
    let part = |offset: u64, length: u64| {
        let storage = Pickle::new().raw(b"}").text("w").global("torch._utils", "_rebuild_tensor").raw(b"((");
        let storage = storage.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(64);
        let storage = storage.raw(b"(").text("1").int(offset).int(length).raw(b"ttQ");
        storage.int(0).ints(&[4, 4]).ints(&[4, 1]).raw(b"tRs").stop()
    };
    let file = legacy(&part(8, 16), &["0"], &good);
    with_file(&file, |path| {
        let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
        let bytes = checkpoint.read(&checkpoint.tensors()[0], 0..16).unwrap();
        assert_eq!(*bytes, numbers()[32..96]);
    });
    refused(&legacy(&part(60, 5), &["0"], &good), "a view of the storage `0` lies outside");
    refused(&legacy(&part(0, 15), &["0"], &good), "reaches beyond the 15 elements");
}

#[test]
fn published_fixtures_that_are_no_models() {
    for (name, part) in [
        (
            "optimizer-only.pt",
            "it holds no weights of a model, only `the file` (an optimizer's state: 21 tensors)",
        ),
        ("whole-model.pt", "save `model.state_dict()`"),
        ("plain.pt", "none that torch.save wrote"),
    ] {
        let bytes = std::fs::read(fixture("torch").join(name)).unwrap();
        refused(&bytes, part);
    }
}

#[test]
fn every_truncation_is_refused() {
    let small = [
        zip_of(&one_matrix()),
        legacy(&one_matrix(), &["0"], &legacy_storage(64, &numbers())),
        std::fs::read(fixture("torch/bare-protocol-2.pt")).unwrap(),
        std::fs::read(fixture("torch/bare-legacy.pt")).unwrap(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pt");
    for whole in &small {
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let opened = Checkpoint::open(&path, &OpenOptions::default());
            assert!(opened.is_err(), "{length} of {} bytes are accepted", whole.len());
        }
    }
    // A tar archive ends in padding, which a reader can do without.
    let tar = std::fs::read(fixture("torch/bare-tar.pt")).unwrap();
    for length in (0..tar.len()).step_by(7) {
        std::fs::write(&path, &tar[..length]).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path, &OpenOptions::default()) {
            assert_eq!(checkpoint.tensors().len(), 7);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Changed bytes never panic, and everything that is accepted can be read.
    #[test]
    fn mutated_files_are_refused_or_read(
        which in 0usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        mmap in any::<bool>(),
    ) {
        let names = ["views.pt", "views-legacy.pt", "bare-tar.pt", "fairseq.pt", "bare-protocol-1.pt", "bare-protocol-4.pt"];
        let mut bytes = std::fs::read(fixture("torch").join(names[which])).unwrap();
        for (position, value) in changes {
            let at = position.index(bytes.len());
            bytes[at] = value;
        }
        let _ = with_file(&bytes, |path| use_all(path, mmap));
    }

    /// Any sequence of operations, in the place of a pickle, with the globals that are known.
    #[test]
    fn arbitrary_pickles_are_refused_or_read(
        operations in prop::collection::vec(0usize..24, 0..60),
        mmap in any::<bool>(),
    ) {
        let pieces: [&[u8]; 24] = [
            b"(", b"t", b"}", b"]", b"N", b"K\x02", b"K\x08", b")", b"R", b"b", b"s", b"u", b"e", b"a", b"\x85",
            b"\x86", b"q\x01", b"h\x01", b"\x81", b"Q", b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch._utils\n_rebuild_parameter\n", b"ccollections\nOrderedDict\n", b"2",
        ];
        let matrix = Pickle::new().tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"q\x01");
        let pickle = operations.iter().fold(matrix, |pickle, piece| pickle.raw(pieces[*piece]));
        let _ = with_file(&zip_of(&pickle.stop()), |path| use_all(path, mmap));
    }
}
