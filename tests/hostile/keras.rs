//! Keras archives and HDF5 files that break the rules.

use std::path::Path;
use std::time::Instant;

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use proptest::prelude::*;

use super::archive::{Member, archive};
use super::common::fixture;
use super::hdf5::{ATTRIBUTE, DATASPACE, File, LAYOUT, LINK, LINK_INFO, UNDEFINED};
use super::hdf5::{contiguous, damage, dataspace, f32s, link, message};
use super::refusal::refused_bytes;

const NAME: &str = "model.weights.h5";

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    refused_bytes(NAME, bytes, part);
}

/// Opens a file and does everything with it that can be done; must not panic.
fn use_all(path: &Path, mmap: bool) -> Result<usize, String> {
    let options = OpenOptions { mmap, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(path, &options).map_err(|e| e.to_string())?;
    let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings).map_err(|e| e.to_string())?;
    evenkeel::analyze(&checkpoint, &settings, &Silent).map_err(|e| e.to_string())?;
    Ok(checkpoint.tensors().len())
}

/// A file with one dataset `a` of these messages.
fn dataset(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = File::new();
    let object = file.header(messages);
    let root = file.group(&[("a", object)]);
    file.finish(root)
}

/// A file of two small matrices, and where they are.
fn valid() -> Vec<u8> {
    let mut file = File::new();
    let one = file.dataset(&[2, 3], f32s(), &[0; 24]);
    let other = file.dataset(&[4], f32s(), &[0; 16]);
    let root = file.group(&[("a", one), ("b", other)]);
    file.finish(root)
}

#[test]
fn datasets_that_break_the_rules() {
    let large = 1 << 33;
    for (dims, address, size, part) in [
        (vec![2, 3], 0, 25, "`a`: a dataset of shape 2×3 and type F32 needs 24 bytes, but has 25"),
        (vec![2, 3], 0, 23, "needs 24 bytes, but has 23"),
        (vec![large, large], 0, 0, "`a`: it has a shape whose size overflows"),
        (vec![0, large, large], 0, 0, "overflows"),
        (vec![u64::MAX], 0, 4, "needs 73786976294838206460 bytes"),
        (vec![1 << 40], 0, 1 << 42, "its data of 4398046511104 bytes at address 0 lies outside"),
        (vec![2, 3], u64::MAX - 8, 24, "lies outside"),
        (vec![2, 3], 1 << 40, 24, "at address 1099511627776 lies outside"),
    ] {
        refused(&dataset(&[dataspace(&dims), f32s(), contiguous(address, size)]), part);
    }
    let good = || [dataspace(&[2]), f32s(), contiguous(0, 8)];
    let [space, kind, layout] = good();
    refused(&dataset(&[kind.clone(), layout.clone()]), "`a`: it has not a dataspace");
    refused(&dataset(&[space.clone(), layout.clone()]), "it has not a datatype");
    refused(&dataset(&[space.clone(), space.clone(), kind.clone(), layout.clone()]), "a dataspace twice");
    refused(&dataset(&[space.clone(), kind.clone(), message(LAYOUT, &[3])]), "a layout is cut off");
    refused(&dataset(&[space.clone(), kind.clone(), message(LAYOUT, &[9, 1])]), "a layout has the version 9");
    let chunks = [&[3, 2, 2][..], &[0; 8], &[2, 0, 0, 0], &[4, 0, 0, 0]].concat();
    refused(&dataset(&[space.clone(), kind.clone(), message(LAYOUT, &chunks)]), "stored in chunks");
    refused(&dataset(&[space.clone(), kind.clone(), message(LAYOUT, &[4, 2])]), "an index of HDF5 1.10");
    refused(&dataset(&[space.clone(), kind.clone(), message(LAYOUT, &[3, 3])]), "a virtual dataset");
    refused(&dataset(&[message(DATASPACE, &[2, 33, 0, 1]), kind, layout]), "it has 33 dimensions");
    let shared: Vec<u8> = [&space[..3], &[2], &space[4..]].concat();
    let [_, kind, layout] = good();
    refused(&dataset(&[shared, kind, layout]), "it shares a dataspace with other objects");
    // Never written, and so nothing: the file has no tensor.
    refused(&dataset(&[space, f32s(), contiguous(UNDEFINED, 8)]), "it holds no tensors");
}

#[test]
fn groups_that_are_no_tree() {
    let with = |links: &dyn Fn(u64, u64) -> Vec<(&'static str, u64)>| {
        let mut file = File::new();
        let one = file.dataset(&[2, 3], f32s(), &[0; 24]);
        let root = file.bytes.len() as u64;
        file.group(&links(one, root));
        file.finish(root)
    };
    refused(&with(&|_, root| vec![("a", root)]), "`a` leads to an object that has another name, too");
    refused(&with(&|one, _| vec![("a", one), ("b", one)]), "`b` leads to an object");
    refused(&with(&|one, root| vec![("a", one), ("a", root)]), "it has two objects named `a`");
    refused(
        &with(&|_, _| vec![("a", 1 << 50)]),
        "an object header of 4 bytes at address 1125899906842624 lies",
    );
    refused(&with(&|_, _| vec![("a", UNDEFINED)]), "lies outside");
    refused(&with(&|_, _| vec![("a", 0)]), "`a`: an object header has the version 137");
    for name in ["", ".", "a/b", "a\0"] {
        refused(&with(&|one, _| vec![(name, one)]), "is no name of a link");
    }
    let mut file = File::new();
    let mut inner = file.dataset(&[2, 3], f32s(), &[0; 24]);
    for _ in 0..70 {
        inner = file.group(&[("g", inner)]);
    }
    refused(&file.finish(inner), "lies in more than 64 groups");
    let mut file = File::new();
    let one = file.header(&[dataspace(&[2]), f32s(), contiguous(0, 8)]);
    let other = file.header(&[dataspace(&[3]), f32s(), contiguous(4, 12)]);
    let root = file.group(&[("a", one), ("b", other)]);
    refused(&file.finish(root), "`a` and `b` share bytes");
    let soft = message(LINK, &[&[1, 8, 1, 1][..], b"a", &[1, 0, b'x']].concat());
    let mut file = File::new();
    let root = file.header(&[soft]);
    refused(&file.finish(root), "`a` is a soft or external link");
    let mut file = File::new();
    let root = file.header(&[message(LINK_INFO, &[&[0; 2][..], &[0; 16]].concat())]);
    refused(&file.finish(root), "fractal heap");
    let mut file = File::new();
    let root = file.header(&[message(LINK, &[&[1, 3][..], &u64::MAX.to_le_bytes()].concat())]);
    refused(&file.finish(root), "a link is cut off");
}

/// Headers that continue in themselves, and objects whose structures share their bytes.
#[test]
fn work_is_bounded_by_the_length() {
    const CONTINUATION: u8 = 16;
    let mut file = File::new();
    let to = |address: u64, size: u64| {
        message(CONTINUATION, &[address.to_le_bytes(), size.to_le_bytes()].concat())
    };
    // The block's own place is known: it is added first.
    let block = file.bytes.len() as u64;
    let own = to(block, 4 + 20 + 4);
    file.add(&[&b"OCHK"[..], &own, &[0; 4]].concat());
    let root = file.header(&[to(block, 28)]);
    refused(&file.finish(root), "share each other's bytes many times over");
    // Every link leads to a header of its own that continues in one large block.
    let mut file = File::new();
    let size = 60_000;
    let large = file.add(&[&b"OCHK"[..], &message(0, &vec![0; size]), &[0; 4]].concat());
    let objects: Vec<u64> = (0..20_000).map(|_| file.header(&[to(large, size as u64 + 12)])).collect();
    let names: Vec<String> = (0..objects.len()).map(|i| i.to_string()).collect();
    let links: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(objects).collect();
    let root = file.group(&links);
    // As groups they would be empty: an attribute is looked for in each.
    let bytes = file.finish(root);
    let start = Instant::now();
    refused(&bytes, "");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn attributes_that_lie() {
    let attribute = |kind: &[u8], data: &[u8]| {
        let sizes = [5, kind.len() as u16, 4].map(u16::to_le_bytes).concat();
        let content = [&[3, 0][..], &sizes, &[0], b"name\0", kind, &[2, 0, 0, 0], data].concat();
        let mut file = File::new();
        let one = file.dataset(&[2, 3], f32s(), &[0; 24]);
        let vars = file.header(&[message(ATTRIBUTE, &content), link("0", one)]);
        let layer = file.group(&[("vars", vars)]);
        let root = file.group(&[("dense", layer)]);
        file.finish(root)
    };
    let any_length = [&[0x19, 1, 0, 0, 16, 0, 0, 0][..], &[0x10; 12]].concat();
    let place = |length: u32, address: u64, index: u32| {
        [&length.to_le_bytes()[..], &address.to_le_bytes(), &index.to_le_bytes()].concat()
    };
    refused(&attribute(&any_length, &place(4, 1 << 40, 1)), "`dense/vars`: a global heap of 16 bytes");
    refused(&attribute(&any_length, &place(4, 0, 1)), "a global heap has no signature");
    refused(&attribute(&any_length, &[0; 7]), "an attribute is cut off");
    let fixed = [0x13, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f];
    refused(&attribute(&fixed, b"abc"), "an attribute is cut off");
    // Beyond what is ever read there is none, and what is no text is none.
    for bytes in
        [attribute(&any_length, &place(u32::MAX, 0, 1)), attribute(&[0x13, 0, 0, 0, 2, 0, 0, 0], b"\xff\xff")]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, bytes).unwrap();
        let found = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(found.tensors()[0].name, "dense.kernel");
    }
}

/// The symbol tables that h5py writes, changed in place.
#[test]
fn symbol_tables_that_lie() {
    let whole = std::fs::read(fixture("keras/bfloat16.weights.h5")).unwrap();
    let nth =
        |what: &[u8], n: usize| (0..whole.len()).filter(|at| whole[*at..].starts_with(what)).nth(n).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let (tree, node, heap) = (nth(b"TREE", 0), nth(b"SNOD", 0), nth(b"HEAP", 0));
    // A node of a higher level whose child is itself, and one whose child is of the same level.
    let mut cycle = with(tree + 5, &[1]);
    cycle[tree + 32..tree + 40].copy_from_slice(&(tree as u64).to_le_bytes());
    refused(&cycle, "belongs elsewhere");
    refused(&with(tree + 4, &[1]), "belongs elsewhere");
    refused(&with(tree + 6, &[0xff, 0xff]), "");
    refused(&with(tree + 32, &[0xff; 8]), "a symbol table node of 8 bytes");
    refused(&with(node, b"X"), "a symbol table node has no signature");
    refused(&with(node + 6, &[0xff, 0xff]), "");
    refused(&with(node + 8, &[0xff; 8]), "of a group's heap has no end");
    refused(&with(node + 24, &[2]), "is a soft link");
    refused(&with(heap + 8, &[0xff; 8]), "a heap of names of 18446744073709551615 bytes");
    refused(&with(heap + 24, &[0xff; 8]), "lies outside");
    refused(&with(8, &[9]), "its superblock has the version 9");
    refused(&with(13, &[4]), "its addresses and lengths have 4 and 8 bytes, not 8");
    refused(&with(24, &[1]), "its addresses count from byte 1");
    refused(&with(40, &[0xff; 8]), "it should have 18446744073709551615 bytes");
    refused(&with(0, &[0; 8]), "it has no HDF5 signature");
}

#[test]
fn archives_that_break_the_rules() {
    let weights = Member::stored("model.weights.h5", &valid());
    let config = |text: &[u8]| Member::stored("config.json", text);
    let refused = |members: &[Member], part: &str| refused_bytes("model.keras", &archive(members), part);
    refused(
        &[config(b"{}")],
        "this zip archive holds no model.weights.h5, which a Keras model has, but config.json",
    );
    refused(&[Member::deflated("model.weights.h5", &valid())], "is compressed, which Keras never does");
    refused(&[weights.clone(), weights.clone()], "it has two members named `model.weights.h5`");
    refused(&[Member::stored("model.weights.h5", &valid()[..100])], "is it cut off?");
    refused(&[Member::stored("model.weights.h5", b"")], "it has no HDF5 signature");
    // What is behind the member is not of the file.
    let mut short = valid();
    let end = (short.len() as u64 + 8).to_le_bytes();
    short[28..36].copy_from_slice(&end);
    refused(&[Member::stored("model.weights.h5", &short), config(b"{}")], "is it cut off?");
    // A configuration only helps: a wrong one is done without.
    for text in [&b"{"[..], b"[[[[", &b"[".repeat(1 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.keras");
        std::fs::write(&path, archive(&[config(text), weights.clone()])).unwrap();
        assert_eq!(use_all(&path, true), Ok(2));
    }
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let read = |name: &str| std::fs::read(fixture("keras").join(name)).unwrap();
    for (whole, step) in
        [(valid(), 1), (read("bfloat16.weights.h5"), 7), (read("latest.h5"), 7), (read("inner.keras"), 61)]
    {
        for length in (1..whole.len()).step_by(step) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let opened = Checkpoint::open(&path, &OpenOptions::default());
            assert!(opened.is_err(), "{length} of {} bytes are accepted", whole.len());
        }
    }
    let whole = valid();
    for length in [1, 8, 12, 47, 48, 72, whole.len() - 1] {
        refused(&whole[..length], NAME);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Changed bytes and addresses never panic.
    #[test]
    fn mutated_files_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..8), 1..5),
        file in 0usize..5,
        mmap in any::<bool>(),
    ) {
        let file = ["bfloat16.weights.h5", "latest.h5", "types.h5", "quantised.keras", "inner.keras"][file];
        let mut bytes = std::fs::read(fixture("keras").join(file)).unwrap();
        damage(&mut bytes, changes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, &bytes).unwrap();
        let start = Instant::now();
        let _ = use_all(&path, mmap);
        prop_assert!(start.elapsed().as_secs() < 10);
    }
}
