//! torch files: values and names against PyTorch itself (`fixtures/torch_files.py`), reports against
//! the same tensors in safetensors, published files, and files that are hostile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod archive;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
#[path = "../common/refusal.rs"]
mod refusal;

use std::path::Path;
use std::process::Command;

use archive::Pickle;
use common::fixture;
use evenkeel::report::Report;
use evenkeel::{Checkpoint, OpenOptions, Settings};
use serde_json::Value;

fn open(path: &Path, mmap: bool) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture("torch").join(name)).unwrap()).unwrap()
}

#[test]
fn every_tensor_is_the_one_that_torch_saved() {
    for (name, about) in json("expected.json").as_object().unwrap() {
        let reference = open(&fixture("torch").join(about["reference"].as_str().unwrap()), true);
        for mmap in [true, false] {
            let found = open(&fixture("torch").join(name), mmap);
            assert_eq!(found.format(), "torch");
            let names = |c: &Checkpoint| c.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&found), names(&reference), "{name}");
            for (ours, theirs) in found.tensors().iter().zip(reference.tensors()) {
                let what = format!("{name}: {}", ours.name);
                assert_eq!((ours.dtype, &ours.shape), (theirs.dtype, &theirs.shape), "{what}");
                let (left, right) =
                    (found.read(ours, 0..ours.elements), reference.read(theirs, 0..ours.elements));
                assert_eq!(left.unwrap(), right.unwrap(), "{what}");
                let aliases: Vec<&str> = about["aliases"].get(&ours.name).map_or(Vec::new(), |list| {
                    list.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect()
                });
                assert_eq!(ours.aliases, aliases, "{what}");
            }
            let left_out = about["left_out"].as_object().unwrap();
            assert_eq!(found.left_out().len(), left_out.len(), "{name}: {:?}", found.left_out());
            for part in found.left_out() {
                let reason = left_out[&part.name].as_str().unwrap();
                assert!(part.reason.contains(reason), "{name}: {part:?} does not say {reason}");
            }
        }
    }
}

/// A report without what the format itself says.
fn comparable(report: &Report) -> String {
    let mut report = report.clone();
    report.checkpoint.path = String::new();
    report.checkpoint.format = "";
    report.checkpoint.files = Vec::new();
    format!("{report:?}")
}

#[test]
fn reports_do_not_depend_on_the_format() {
    let settings = Settings { min_eigenvalues: Some(4), ..Settings::default() };
    let expected = common::analyze(&fixture("torch/weights.safetensors"), &settings);
    assert!(!expected.matrices.is_empty());
    for name in [
        "bare-protocol-1.pt",
        "bare-protocol-5.pt",
        "bare-legacy.pt",
        "bare-tar.pt",
        "compiled.pt",
        "state-key.pt",
    ] {
        let found = common::analyze(&fixture("torch").join(name), &settings);
        assert_eq!(comparable(&found), comparable(&expected), "{name}");
    }
    let expected = common::analyze(&fixture("torch/views.safetensors"), &settings);
    let found = common::analyze(&fixture("torch/views.pt"), &settings);
    for matrix in &expected.matrices {
        let mut ours = common::matrix(&found, &matrix.name).clone();
        ours.aliases = Vec::new();
        assert_eq!(&ours, matrix);
    }
}

/// MiniLM as `pytorch_model.bin` in two shards with their index, as the hub has larger models.
#[test]
fn minilm_in_torch_shards() {
    let source = common::minilm();
    let original = open(&source, true);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut map = serde_json::Map::new();
    let half = original.tensors().len() / 2;
    for (number, tensors) in [&original.tensors()[..half], &original.tensors()[half..]].iter().enumerate() {
        let shard = format!("pytorch_model-0000{}-of-00002.bin", number + 1);
        let mut pickle = Pickle::new().global("collections", "OrderedDict").raw(b")R(");
        let mut storages = Vec::new();
        for (key, tensor) in tensors.iter().enumerate() {
            let class = if tensor.dtype.name() == "I64" { "LongStorage" } else { "FloatStorage" };
            let shape: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
            let strides: Vec<u64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
            let storage = (class, &*key.to_string(), tensor.elements as u64);
            pickle = pickle.text(&tensor.name).tensor(storage, 0, &shape, &strides);
            storages.push((format!("m/data/{key}"), original.read(tensor, 0..tensor.elements).unwrap()));
            map.insert(tensor.name.clone(), shard.clone().into());
        }
        let pickle = pickle.raw(b"u").stop();
        let mut entries = vec![("m/data.pkl", &*pickle), ("m/byteorder", b"little")];
        entries.extend(storages.iter().map(|(name, data)| (name.as_str(), &**data)));
        std::fs::write(dir.path().join(&shard), archive::zip(&entries)).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    let expected = common::analyze(&source, &Settings::default());
    let found = common::analyze(dir.path(), &Settings::default());
    assert_eq!(found.checkpoint.format, "torch");
    assert_eq!(comparable(&found), comparable(&expected));
    map.insert("missing.weight".into(), "pytorch_model-00001-of-00002.bin".into());
    let index = serde_json::json!({"weight_map": map});
    std::fs::write(dir.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    let error = Checkpoint::open(dir.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("puts the tensor `missing.weight`"), "{error}");
}

/// Which names are wrapped is told from all shards together: their index has the names as they are stored,
/// and one shard alone could look as if all its names had something in front.
#[test]
fn wrapped_names_in_shards() {
    let shard = |names: &[&str]| {
        let mut pickle = Pickle::new().raw(b"}(");
        for (offset, name) in (0..).zip(names) {
            pickle = pickle.text(name).tensor(("FloatStorage", "0", 64), offset, &[7, 8], &[8, 1]);
        }
        archive::zip_of(&pickle.raw(b"u").stop())
    };
    let opened = |first: &[&str], second: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut map = serde_json::Map::new();
        for (file, names) in [("1.bin", first), ("2.bin", second)] {
            std::fs::write(dir.path().join(file), shard(names)).unwrap();
            map.extend(names.iter().map(|name| ((*name).to_owned(), file.into())));
        }
        let index = serde_json::json!({"weight_map": map}).to_string();
        std::fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
        let checkpoint = open(dir.path(), true);
        let names: Vec<String> = checkpoint.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        (names, checkpoint.left_out().to_vec())
    };
    let (names, _) = opened(&["module.a.weight"], &["module._orig_mod.b.weight"]);
    assert_eq!(names, ["a.weight", "b.weight"]);
    let (names, _) = opened(&["module.a.weight"], &["head.weight"]);
    assert_eq!(names, ["head.weight", "module.a.weight"]);
    let (names, left_out) = opened(&["model_ema.a", "a.weight"], &["model_ema.b"]);
    assert_eq!(names, ["a.weight"]);
    assert_eq!(left_out[0].reason, "an averaged copy of the weights (EMA): 2 tensors");
}

/// Published legacy files, against what torch reads in them.
#[test]
fn published_files() {
    for (name, expected) in json("facenet.json").as_object().unwrap() {
        let path = fixture("cache/facenet").join(name);
        assert!(path.is_file(), "run `python3 fixtures/fetch.py` first");
        let checkpoint = open(&path, true);
        assert_eq!(checkpoint.tensors().len(), expected.as_object().unwrap().len());
        for tensor in checkpoint.tensors() {
            let shape: Vec<Value> = tensor.shape.iter().map(|d| (*d).into()).collect();
            let bytes = checkpoint.read(tensor, 0..tensor.elements).unwrap();
            let words = bytes.as_chunks::<4>().0.iter().zip(1u64..);
            let sum = words.fold(0u64, |sum, (word, position)| {
                sum.wrapping_add(u64::from(u32::from_le_bytes(*word)).wrapping_mul(position))
            });
            assert_eq!(
                expected[&tensor.name],
                serde_json::json!([shape, sum.to_string()]),
                "{name}: {}",
                tensor.name
            );
        }
    }
}

#[test]
fn a_directory_is_searched_for_weights() {
    let zip = archive::zip_of(&archive::one_matrix());
    let write = |names: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), &zip).unwrap();
        }
        std::fs::copy(fixture("torch/weights.safetensors"), dir.path().join("kept")).unwrap();
        dir
    };
    let beside = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "optimizer.bin"];
    for name in ["pytorch_model.bin", "model.pt", "last.ckpt", "x.pth"] {
        let dir = write(&[&beside[..], &[name]].concat());
        let checkpoint = open(dir.path(), true);
        assert_eq!(checkpoint.files()[0].name(), name);
        std::fs::rename(dir.path().join("kept"), dir.path().join("model.safetensors")).unwrap();
        assert_eq!(open(dir.path(), true).format(), "safetensors");
    }
    let dir = write(&["pytorch_model.bin", "other.pt"]);
    assert_eq!(open(dir.path(), true).files()[0].name(), "pytorch_model.bin");
    let several = Checkpoint::open(write(&["a.pt", "b.pt"]).path(), &OpenOptions::default()).unwrap_err();
    assert!(several.to_string().contains("several checkpoints"), "{several}");
    let nothing = Checkpoint::open(write(&beside).path(), &OpenOptions::default()).unwrap_err();
    assert!(nothing.to_string().contains("it holds no checkpoint that this version reads"), "{nothing}");
}

/// What stands beside the model is said by `inspect`, in the table and in JSON.
#[test]
fn inspect_says_what_is_left_out() {
    let run = |format: &str| {
        let done = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["inspect", "fixtures/torch/lightning.ckpt", "--format", format])
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let line = "left out: optimizer_states: an optimizer's state: 21 tensors";
    assert!(run("table").contains(line), "{}", run("table"));
    assert!(run("markdown").contains("left out: optimizer\\_states"));
    let inventory: Value = serde_json::from_str(&run("json")).unwrap();
    let names: Vec<&str> =
        inventory["left_out"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["loops", "callbacks", "optimizer_states", "lr_schedulers"]);
}

/// Lightning's files name classes of their callbacks: refused, and read with the option, which makes
/// a placeholder of each, whatever the file does with it. Nothing is ever run.
#[test]
fn ignored_globals_are_inert() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("it-ran");
    let command = format!("touch {}", marker.display());
    let pickle = Pickle::new().raw(b"}(").text("state_dict").raw(b"}").text("w");
    let pickle = pickle.tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"s");
    // A call, an instance, its state, its items and its entries.
    let pickle = pickle.text("a").global("os", "system").raw(b"(").text(&command).raw(b"tR");
    let pickle = pickle.text("b").global("my.code", "Class").raw(b")\x81}").text("k").raw(b"Nsb");
    let pickle = pickle.text("c").global("my.code", "Class").raw(b")R(NNe(NNuNa");
    let pickle = pickle.raw(b"u").stop();
    let path = dir.path().join("last.ckpt");
    for bytes in [
        archive::zip_of(&pickle),
        archive::legacy(&pickle, &["0"], &archive::legacy_storage(64, &archive::numbers())),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let run = |extra: &[&str]| {
            let base =
                Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("inspect").arg(&path).args(extra).output();
            let done = base.unwrap();
            (done.status.code(), String::from_utf8(done.stderr).unwrap())
        };
        let (code, message) = run(&[]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains("`my.code.Class`, `os.system`"), "{message}");
        assert!(message.contains("--ignore-global my.code.Class"), "{message}");
        let (code, message) = run(&["--ignore-global", "my.code.Class"]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains("--ignore-global os.system`"), "{message}");
        let (code, message) = run(&["--ignore-global", "my.code.Class", "--ignore-global", "os.system"]);
        assert_eq!(code, Some(0), "{message}");
        assert!(!marker.exists(), "something in a pickle was run");
    }
}
