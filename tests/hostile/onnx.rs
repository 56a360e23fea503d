//! ONNX files that break the rules: each is refused with a sentence that names the file and the
//! place, or read for what it is, within a moment.

use std::path::Path;
use std::time::Instant;

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use proptest::prelude::*;

use super::common::fixture;
use super::protobuf::*;

/// Opens a file and does everything with it that can be done; must not panic.
fn use_all(path: &Path, mmap: bool) -> Result<usize, String> {
    let options = OpenOptions { mmap, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(path, &options).map_err(|e| e.to_string())?;
    let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings).map_err(|e| e.to_string())?;
    evenkeel::analyze(&checkpoint, &settings, &Silent).map_err(|e| e.to_string())?;
    Ok(checkpoint.tensors().len())
}

fn use_bytes(bytes: &[u8]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let mapped = use_all(&path, true);
    let read = use_all(&path, false);
    assert_eq!(mapped, read);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    mapped
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    super::refusal::refused_bytes("model.onnx", bytes, part);
}

fn one(tensor: Vec<u8>) -> Vec<u8> {
    model(&graph(&[], &[tensor]))
}

#[test]
fn messages_that_break_the_rules() {
    let head = number(1, 9);
    let weight = zeros("a.weight", &[2, 3]);
    let graph_of_one = graph(&[], std::slice::from_ref(&weight));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (head.clone(), "it has no graph"),
        ([model(&graph_of_one), bytes(7, &graph_of_one)].concat(), "two graphs"),
        ([head.clone(), vec![0, 0]].concat(), "no field at byte 2"),
        ([head.clone(), vec![0x0b]].concat(), "wire type 3"),
        ([head.clone(), vec![0x3a, 0xff]].concat(), "the number at byte 3 is cut off"),
        ([head.clone(), vec![0x3a], vec![0xff; 10]].concat(), "longer than 64 bits"),
        ([head.clone(), vec![0x3a, 5, 1]].concat(), "should be 5 bytes long, but only 1"),
        ([head.clone(), vec![0x3a], varint(u64::MAX)].concat(), "should be 18446744073709551615 bytes long"),
        ([head.clone(), number(7, 3)].concat(), "is a number, but should have a length"),
        (one(tensor("a", 1, &[2], bytes(9, [0; 4]))), "`a` of shape 2 and type F32 needs 8 bytes, but has 4"),
        (one(tensor("a", 1, &[2], vec![])), "needs 8 bytes, but has 0"),
        (one(tensor("a", 1, &[1 << 32, 1 << 32], vec![])), "`a` has a shape whose size overflows"),
        (one(tensor("a", 1, &[0, 1 << 32, 1 << 32], vec![])), "overflows"),
        (one(tensor("a", 1, &[u64::MAX], vec![])), "needs"),
        (one(tensor("a", 99, &[1], vec![])), "the type 99"),
        (one(tensor("a", 1, &[1], bytes(10, [0; 8]))), "the wrong field, 10"),
        (one(tensor("a", 1, &[1], vec![4 << 3 | 5, 0, 0, 0, 0])), "not packed"),
        (one(tensor("a", 1, &[1], [bytes(4, [0; 4]), bytes(9, [0; 4])].concat())), "both raw and typed"),
        (one(tensor("a", 1, &[1], [bytes(9, [0; 4]), bytes(9, [0; 4])].concat())), "raw data twice"),
        (one(tensor("a", 1, &[1], [bytes(4, [0; 4]), bytes(4, [0; 4])].concat())), "data in two places"),
        (one(tensor("a", 6, &[3], bytes(5, [1, 2]))), "`a` needs 3 numbers, but has 2"),
        (one(tensor("a", 6, &[1], bytes(5, [0x80]))), "is cut off"),
        (one(tensor("a", 1, &[1; 65], vec![])), "more than 64 dimensions"),
        (one([bytes(8, [0xff, 0xfe]), number(2, 1)].concat()), "is not UTF-8"),
        (model(&graph(&[], &[weight.clone(), weight.clone()])), "two initializers named `a.weight`"),
        (one(tensor("\u{1b}[2J\n", 1, &[2], vec![])), "\\u{1b}[2J\\u{a}"),
    ];
    for (bytes, part) in cases {
        refused(&bytes, part);
    }
    refused(b"hello", "model.onnx is not a valid onnx file");
}

/// A tensor whose data are in another file.
fn external(location: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): (&str, &str)| bytes(13, [bytes(1, key), bytes(2, value)].concat());
    let entries = [("location", location)].into_iter().chain(more.iter().copied()).flat_map(entry).collect();
    one(tensor("a.weight", 1, &[2, 3], [entries, number(14, 1)].concat()))
}

#[test]
fn external_data_stay_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("model");
    std::fs::create_dir_all(inner.join("sub")).unwrap();
    std::fs::write(dir.path().join("outside"), [0; 24]).unwrap();
    std::fs::write(inner.join("short"), [0; 23]).unwrap();
    std::fs::write(inner.join("sub/data"), [0; 48]).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../outside", inner.join("link")).unwrap();
        std::os::unix::fs::symlink("sub", inner.join("here")).unwrap();
        std::os::unix::fs::symlink("ring", inner.join("circle")).unwrap();
        std::os::unix::fs::symlink("circle", inner.join("ring")).unwrap();
    }
    let path = inner.join("model.onnx");
    let with = |location: &str, more: &[(&str, &str)]| {
        std::fs::write(&path, external(location, more)).unwrap();
        use_all(&path, true)
    };
    let refused = |location: &str, more: &[(&str, &str)], part: &str| {
        std::fs::write(&path, external(location, more)).unwrap();
        super::refusal::refused(&path, part);
    };
    for location in ["../outside", "/etc/passwd", "sub/../../outside", "", "C:\\x", "a\\b", ".."] {
        refused(location, &[], "are not a file in its own directory");
    }
    std::fs::write(&path, external("sub", &[])).unwrap();
    super::refusal::refused_with(&[], &path, "model/sub", "not a regular file");
    refused("nowhere", &[], "`nowhere` are missing");
    refused("short", &[], "lies at 0..24 of the 23 bytes of `short`");
    refused("sub/data", &[("offset", "25")], "25..49");
    refused("sub/data", &[("offset", "18446744073709551615")], "of the 48 bytes");
    refused("sub/data", &[("length", "20")], "needs 24 bytes, but has 20");
    refused("sub/data", &[("offset", "-1")], "the offset `-1`");
    assert_eq!(with("sub/data", &[("offset", "24"), ("length", "24")]), Ok(1));
    assert_eq!(with("./sub/data", &[]), Ok(1));
    // A model that names itself for its data has some: its own bytes, as far as they go.
    refused("model.onnx", &[("offset", "99")], "bytes of `model.onnx`");
    assert_eq!(with("model.onnx", &[]), Ok(1));
    #[cfg(unix)]
    {
        refused("link", &[], "a link that leaves the directory");
        refused("ring", &[], "`ring`");
        assert_eq!(with("here/data", &[]), Ok(1));
        // The cache of Hugging Face: model and data are links into one directory of blobs.
        let blobs = dir.path().join("blobs");
        let snapshot = dir.path().join("snapshot");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(blobs.join("1"), external("data", &[])).unwrap();
        std::fs::write(blobs.join("2"), [0; 24]).unwrap();
        std::os::unix::fs::symlink("../blobs/1", snapshot.join("model.onnx")).unwrap();
        std::os::unix::fs::symlink("../blobs/2", snapshot.join("data")).unwrap();
        assert_eq!(use_all(&snapshot.join("model.onnx"), true), Ok(1));
    }
}

/// Graphs in graphs in graphs, the deepest first.
fn nested(depth: usize) -> Vec<u8> {
    let mut inner = graph(&[], &[]);
    for _ in 0..depth {
        let attribute = bytes(5, [bytes(1, "body"), bytes(6, inner)].concat());
        inner = graph(&[node("Loop", &[], &[], "", &[attribute])], &[]);
    }
    inner
}

#[test]
fn nothing_nests_or_multiplies_without_bound() {
    refused(&model(&nested(33)), "more than 32 graphs stand within one another");
    refused(&model(&nested(1000)), "more than 32 graphs");
    // It holds no tensor, but is read.
    refused(&model(&nested(30)), "holds no tensors");
    let many = |part: Vec<u8>, count: usize| model(&part.repeat(count));
    refused(&many(bytes(1, []), 1 << 19), "more nodes, names and tensors than are read");
    refused(&many(bytes(5, []), 1 << 19), "more nodes, names and tensors");
    refused(&many(bytes(1, bytes(1, "x").repeat(100)), 1 << 14), "more nodes, names and tensors");
    refused(&one([number(2, 1), bytes(1, vec![1; 3 << 20])].concat()), "more nodes, names and tensors");
    // As many as are read, and more.
    let tensors = |count: usize| (0..count).map(|i| zeros(&format!("t{i}"), &[4])).collect::<Vec<_>>();
    assert_eq!(soon(&model(&graph(&[], &tensors(72_000)))), Ok(72_000));
    refused(&model(&graph(&[], &tensors(75_000))), "more nodes, names and tensors");
}

/// Opens a file in little time, or fails to: what is read of a graph does not grow with its square.
#[track_caller]
fn soon(bytes: &[u8]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let opened = Checkpoint::open(&path, &OpenOptions::default());
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    opened.map(|checkpoint| checkpoint.tensors().len()).map_err(|e| e.to_string())
}

#[test]
fn what_many_weights_share_is_looked_at_once() {
    let weights = |count: usize| -> Vec<Vec<u8>> {
        (0..count).map(|i| tensor(&format!("val_{i}"), 1, &[0, 2], vec![])).collect()
    };
    let names: Vec<String> = (0..30_000).map(|i| format!("val_{i}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    // A node that uses all of them, with a very long name, or long scopes.
    let long = format!("/{}/MatMul", "m".repeat(1_000_000));
    let scopes = bytes(9, [bytes(1, "pkg.torch.onnx.name_scopes"), bytes(2, &long)].concat());
    for more in [&[][..], &[scopes]] {
        let nodes = [node("Gemm", &all, &["y"], &long, more)];
        assert_eq!(soon(&model(&graph(&nodes, &weights(30_000)))), Ok(30_000));
    }
    // Very many settings.
    let settings = vec![integer("a", 1); 129];
    let nodes = [node("Gemm", &all, &["y"], "", &settings)];
    refused(&model(&graph(&nodes, &weights(30_000))), "a node has more than 128 attributes at byte");
    // A function that all of them are passed to, and in which each goes many ways.
    let ways = bytes(7, node("MatMul", &["q", "a"], &["y"], "/m/MatMul", &[])).repeat(200);
    let adds = bytes(7, node("Add", &["y", "c"], &["z"], "", &[])).repeat(200);
    let function = bytes(25, [bytes(1, "F"), bytes(4, "a"), ways, adds].concat());
    let calls = |count: usize| -> Vec<Vec<u8>> {
        all.iter().take(count).map(|name| node("F", &[name], &[], "", &[])).collect()
    };
    let with = |count: usize| [model(&graph(&calls(count), &weights(count))), function.clone()].concat();
    assert_eq!(soon(&with(4_000)), Ok(4_000));
    refused(&with(8_000), "its functions use one another's weights so often");
}

#[test]
fn external_data_are_shared_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(dir.path().join("data"), [0; 96]).unwrap();
    let at = |name: &str, location: &str, offset: &str| {
        let entry = |key: &str, value: &str| bytes(13, [bytes(1, key), bytes(2, value)].concat());
        let place = [entry("location", location), entry("offset", offset), number(14, 1)].concat();
        tensor(name, 1, &[2, 3], place)
    };
    let write = |tensors: &[Vec<u8>]| std::fs::write(&path, model(&graph(&[], tensors))).unwrap();
    for beside in ["data", "./data"] {
        write(&[at("a", "data", "0"), at("b", beside, "24"), at("c", beside, "24")]);
        assert_eq!(use_all(&path, true), Ok(3));
        write(&[at("a", "data", "0"), at("b", beside, "20")]);
        super::refusal::refused(&path, "the external data of the tensors `a` and `b` overlap at byte 20");
    }
    // Very many matrices in a few bytes.
    let many: Vec<Vec<u8>> = (0..65).map(|i| at(&format!("w{i}"), "data", "0")).collect();
    write(&many[..64]);
    assert_eq!(use_all(&path, true), Ok(64));
    write(&many);
    super::refusal::refused(&path, "1560 bytes, more than 16 times those files");
    let both = [at("a", "data", "0"), bytes(9, [0; 24])].concat();
    write(&[both]);
    super::refusal::refused(&path, "the tensor `a` has data in the model and in another file");
    // An empty field is what some writers leave.
    write(&[[at("a", "data", "0"), bytes(9, [])].concat()]);
    assert_eq!(use_all(&path, true), Ok(1));
}

#[test]
fn cycles_and_chains_end() {
    let weight = zeros("onnx::MatMul_1", &[4, 6]);
    let ring = [
        node("Identity", &["b"], &["a"], "", &[]),
        node("Identity", &["a"], &["b"], "", &[]),
        node("Identity", &["onnx::MatMul_1"], &["a"], "", &[]),
        node("MatMul", &["a", "onnx::MatMul_1"], &["a"], "/x/MatMul", &[]),
        node("Add", &["a", "a"], &["a"], "", &[]),
    ];
    assert_eq!(use_bytes(&model(&graph(&ring, std::slice::from_ref(&weight)))), Ok(1));
    // A function that calls itself, and one that calls it.
    let call = node("F", &["w"], &["y"], "", &[]);
    let function = [bytes(1, "F"), bytes(4, "w"), bytes(7, &call)].concat();
    let calls = [node("F", &["onnx::MatMul_1"], &["y"], "", &[])];
    let recursive = [model(&graph(&calls, std::slice::from_ref(&weight))), bytes(25, function)].concat();
    assert_eq!(use_bytes(&recursive), Ok(1));
    // Very many users, and a chain as long.
    let users: Vec<Vec<u8>> =
        (0..70_000).map(|_| node("MatMul", &["x", "onnx::MatMul_1"], &["y"], "/m/MatMul", &[])).collect();
    assert_eq!(use_bytes(&model(&graph(&users, std::slice::from_ref(&weight)))), Ok(1));
    let chain: Vec<Vec<u8>> = (0..70_000)
        .map(|i| {
            node(
                "Identity",
                &[&format!("onnx::MatMul_{}", i + 1)],
                &[&format!("onnx::MatMul_{}", i + 2)],
                "",
                &[],
            )
        })
        .collect();
    assert_eq!(use_bytes(&model(&graph(&chain, std::slice::from_ref(&weight)))), Ok(1));
    // Many weights that all want the same name.
    let same: Vec<Vec<u8>> =
        (0..20_000).map(|i| node("MatMul", &["x", &format!("val_{i}")], &["y"], "/m/MatMul", &[])).collect();
    let weights: Vec<Vec<u8>> = (0..20_000).map(|i| zeros(&format!("val_{i}"), &[1, 2])).collect();
    assert_eq!(use_bytes(&model(&graph(&same, &weights))), Ok(20_000));
}

#[test]
fn absurd_settings_of_quantised_weights_are_left_out() {
    let codes = |dims: &[u64]| tensor("w", 2, dims, bytes(9, vec![7; dims.iter().product::<u64>() as usize]));
    let extremes = [0, 1, 2, 3, -1, -2, -3, 64, i64::MIN, i64::MAX];
    for scale in [&[][..], &[1], &[3], &[4], &[4, 3], &[2, 3], &[0], &[1, 1, 1]] {
        for axis in extremes {
            for block in extremes {
                let settings = [integer("axis", axis), integer("block_size", block)];
                let nodes = [
                    node("DequantizeLinear", &["w", "s", "z"], &["d"], "", &settings),
                    node("MatMul", &["x", "d"], &["y"], "", &[]),
                ];
                let count = scale.iter().product::<u64>() as usize;
                let zero = tensor("z", 2, scale, bytes(9, vec![1; count]));
                for dims in [&[4, 3][..], &[0, 3], &[12], &[]] {
                    let _ =
                        use_bytes(&model(&graph(&nodes, &[codes(dims), zeros("s", scale), zero.clone()])));
                }
            }
        }
    }
    for (k, n, size, bits) in [
        (0, 0, 0, 4),
        (32, 2, 32, 4),
        (i64::MAX, i64::MAX, i64::MAX, 8),
        (-1, 1, 1, 4),
        (1, 1, 2, 3),
        (3, 1, 3, 4),
        (i64::MAX, 1, 2, 4),
        (i64::MAX, 1, 2, 8),
    ] {
        let settings = [integer("K", k), integer("N", n), integer("block_size", size), integer("bits", bits)];
        let nodes = [node("MatMulNBits", &["x", "w", "s", "z"], &["y"], "", &settings)];
        for zeros_of in [&[2, 1][..], &[]] {
            let zero = tensor("z", 2, zeros_of, bytes(9, vec![1; zeros_of.iter().product::<u64>() as usize]));
            let _ = use_bytes(&model(&graph(&nodes, &[codes(&[2, 1, 16]), zeros("s", &[2, 1]), zero])));
        }
    }
    for dims in [&[1, 8, 3][..], &[3, 8, 3], &[1, 7, 3], &[1, 0, 3], &[2, 4, 0], &[8, 3], &[1, 16]] {
        for (op, input) in [("LSTM", 1), ("GRU", 2), ("RNN", 3), ("LSTM", 3)] {
            let inputs: Vec<&str> = (0..=input).map(|i| if i == input { "w" } else { "" }).collect();
            let nodes = [node(op, &inputs, &["y"], "", &[])];
            let _ = use_bytes(&model(&graph(&nodes, &[zeros("w", dims)])));
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let whole = std::fs::read(fixture("onnx/quantised.onnx")).unwrap();
    // The version of the operators comes behind the graph: without it the weights are all there.
    let end = whole.windows(2).rposition(|pair| pair == [0x42, 0x04]).unwrap();
    for length in (1..end.min(600)).chain((600..end).step_by(7)) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let opened = Checkpoint::open(&path, &OpenOptions::default());
        assert!(opened.is_err(), "{length} of {} bytes are accepted", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Changed bytes never panic.
    #[test]
    fn mutated_models_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        file in 0usize..3,
        mmap in any::<bool>(),
    ) {
        let file = ["onnx/quantised.onnx", "onnx/external/model.onnx", "onnx/torch-dynamo.onnx"][file];
        let mut bytes = std::fs::read(fixture(file)).unwrap();
        for (position, value) in changes {
            let length = bytes.len();
            bytes[position.index(length)] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(fixture("onnx/external/model.onnx_data"), dir.path().join("model.onnx_data")).unwrap();
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, &bytes).unwrap();
        let _ = use_all(&path, mmap);
    }
}
