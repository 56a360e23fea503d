//! Every format, cut off where a section ends and one byte before: the program refuses each by name.
//! (That the library refuses every other length, too, the formats' own tests show.)

use serde_json::json;

use super::archive::{Member, archive, npy};
use super::protobuf;
use super::refusal::{refused, refused_with};
use super::safetensors::valid;
use super::torch;
use super::writer::{File, Tensor, array, string, text, uint32};

/// Asserts that a file is refused when it ends at a border, or just before.
#[track_caller]
fn cut(name: &str, whole: &[u8], borders: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, whole).unwrap();
    evenkeel::Checkpoint::open(&path, &evenkeel::OpenOptions::default()).unwrap();
    for border in borders {
        for length in [border.saturating_sub(1), *border] {
            assert!(length < whole.len(), "{name}: a border at {border}, where the file ends");
            std::fs::write(&path, &whole[..length]).unwrap();
            refused(&path, name);
        }
    }
}

/// Where something begins in a file, for the `nth` time (from 0 on).
fn at(whole: &[u8], what: &[u8], nth: usize) -> usize {
    (0..whole.len()).filter(|i| whole[*i..].starts_with(what)).nth(nth).unwrap()
}

#[test]
fn the_sections_of_safetensors() {
    let whole = valid(&[("a.weight", &[2, 3]), ("b.weight", &[4])]);
    let data = whole.len() - 40;
    // The length, the first tensor's entry, the header, the first tensor.
    cut("model.safetensors", &whole, &[0, 8, at(&whole, b"},", 0) + 1, data, data + 24]);
}

#[test]
fn the_sections_of_gguf() {
    let metadata = vec![
        ("general.architecture", text("llama")),
        ("llama.block_count", uint32(1)),
        ("tokens", array(8, 2, &[string(b"a"), string(b"bc")].concat())),
    ];
    let tensors =
        vec![Tensor::zeros("blk.0.ffn_up.weight", &[4, 8]), Tensor::zeros("output.weight", &[2, 2])];
    let (whole, mut borders) = File::new(metadata, tensors).write();
    borders.retain(|border| *border < whole.len());
    cut("model.gguf", &whole, &borders);
}

#[test]
fn the_sections_of_onnx() {
    use protobuf::{graph, model, node, zeros};
    let nodes = [node("MatMul", &["x", "a.weight"], &["y"], "/m/MatMul", &[])];
    let whole = model(&graph(&nodes, &[zeros("a.weight", &[2, 3]), zeros("b.weight", &[2, 2])]));
    // The version, the producer, the first node, each tensor's name and data.
    let behind = |what: &[u8], nth| at(&whole, what, nth) + what.len();
    let borders = [
        2,
        behind(b"test", 0),
        behind(b"/m/MatMul", 0),
        behind(b"a.weight", 1),
        at(&whole, b"b.weight", 0) - 4,
        behind(b"b.weight", 0),
    ];
    cut("model.onnx", &whole, &borders);
}

#[test]
fn the_sections_of_numpy() {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }";
    let array = npy(header, &[0; 64]);
    // The signature, the version, the header's length, the header.
    cut("array.npy", &array, &[6, 8, 10, 10 + header.len(), array.len() - 4]);
    for members in [
        [Member::stored("a.npy", &array), Member::stored("b.npy", &array)],
        [Member::deflated("a.npy", &array), Member::deflated("b.npy", &array)],
    ] {
        let whole = archive(&members);
        let (second, directory) = (at(&whole, b"PK\x03\x04", 1), at(&whole, b"PK\x01\x02", 0));
        let (entry, end) = (at(&whole, b"PK\x01\x02", 1), at(&whole, b"PK\x05\x06", 0));
        // A member's header, its name, its data; entries of the directory; the end of it.
        cut(
            "arrays.npz",
            &whole,
            &[4, 30, 35, second, second + 30, directory, entry, end, end + 4, end + 20],
        );
    }
}

#[test]
fn the_sections_of_torch() {
    let whole = torch::zip_of(&torch::one_matrix());
    let (second, directory) = (at(&whole, b"PK\x03\x04", 1), at(&whole, b"PK\x01\x02", 0));
    let (entry, end) = (at(&whole, b"PK\x01\x02", 1), at(&whole, b"PK\x05\x06", 0));
    cut("model.pt", &whole, &[4, 30, 46, 64, second, second + 30, directory, entry, end, end + 4, end + 20]);
    // One pickle after another, then the lengths and the numbers of the storages.
    let storage = torch::legacy_storage(64, &torch::numbers());
    let whole = torch::legacy(&torch::one_matrix(), &["0"], &storage);
    let object = at(&whole, b"}X\x01\0\0\0w", 0);
    let numbers = whole.len() - 256;
    cut(
        "model.pt",
        &whole,
        &[2, 13, object - 2, object, numbers - storage.len() + 256, numbers, numbers + 4],
    );
}

/// An index and an adapter's configuration are JSON: no beginning of it is valid. (At 0 bytes either
/// is still there.)
#[test]
fn indices_and_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("1.safetensors", &valid(&[("a.weight", &[2, 2])]));
    let index = br#"{"metadata":{},"weight_map":{"a.weight":"1.safetensors"}}"#;
    for length in [0, 1, at(index, b",", 0), at(index, b"{", 2), at(index, b"}", 1), index.len() - 1] {
        write("model.safetensors.index.json", &index[..length]);
        refused(&dir.path().join("model.safetensors.index.json"), "is not a valid checkpoint index file");
    }
    let adapter = dir.path().join("lora");
    std::fs::create_dir(&adapter).unwrap();
    let factors = valid(&[("q.lora_A.weight", &[2, 4]), ("q.lora_B.weight", &[6, 2])]);
    write("lora/adapter_model.safetensors", &factors);
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).to_string();
    for length in [0, 1, config.len() / 2, config.len() - 1] {
        write("lora/adapter_config.json", &config.as_bytes()[..length]);
        refused(&adapter, "adapter_config.json");
    }
    write("lora/adapter_config.json", config.as_bytes());
    write("base.safetensors", &valid(&[("q.weight", &[6, 4])]));
    let on_a_base = ["--adapter", adapter.to_str().unwrap()];
    for length in [0, 8, 20, factors.len() - 48, factors.len() - 1] {
        write("lora/adapter_model.safetensors", &factors[..length]);
        refused(&adapter, "adapter_model.safetensors");
        // On a base, too, it is the adapter's file that the message is about.
        let base = dir.path().join("base.safetensors");
        refused_with(&on_a_base, &base, "adapter_model.safetensors", "");
    }
}
