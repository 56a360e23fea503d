//! NumPy's files: `fixtures/numpy_arrays.py` wrote them, and the same numbers as safetensors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "common/archive.rs"]
mod archive;
mod common;
#[path = "common/formats.rs"]
mod formats;

use archive::{Member, archive, npy};
use common::{fixture, minilm};
use evenkeel::{Checkpoint, OpenOptions};
use formats::{comparable, open, same_values};

#[test]
fn archives_have_the_numbers_of_the_same_arrays_in_safetensors() {
    let expected = fixture("numpy/arrays.safetensors");
    for file in ["numpy/stored.npz", "numpy/deflated.npz"] {
        let found = same_values(&fixture(file), &expected);
        assert_eq!(found.tensors().len(), open(&expected).tensors().len());
        assert_eq!(found.format(), "npz");
        let left: Vec<(&str, &str)> =
            found.left_out().iter().map(|p| (p.name.as_str(), p.reason.as_str())).collect();
        assert_eq!(left[0], ("words", "elements of NumPy's type `<U1`, which is not read"));
        assert!(left[1].0 == "bfloat16" && left[1].1.contains("save it as float32"), "{left:?}");
        assert_eq!(left[2], ("objects", "Python objects, which are a pickle and never read"));
        assert_eq!(comparable(&found), comparable(&open(&expected)), "{file}");
    }
}

#[test]
fn a_single_array_is_a_checkpoint() {
    let found = same_values(&fixture("numpy/one.npy"), &fixture("numpy/one.safetensors"));
    assert_eq!(found.format(), "npy");
}

#[test]
fn pickled_objects_are_refused_by_name() {
    let error = Checkpoint::open(&fixture("numpy/objects.npy"), &OpenOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("objects.npy is not a valid npy file: it holds Python objects"),
        "{error}"
    );
}

#[test]
fn minilm_gives_the_same_report() {
    let expected = open(&minilm());
    let member = |tensor: &evenkeel::tensors::Tensor| {
        let descr = if tensor.dtype.name() == "F32" { "<f4" } else { "<i8" };
        let shape: String = tensor.shape.iter().map(|dim| format!("{dim}, ")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
        let header = header.replace(", )", ",)");
        let data = expected.read(tensor, 0..tensor.elements).unwrap();
        // One of them compressed; all would take a minute.
        let name = format!("{}.npy", tensor.name);
        let array = npy(&header, &data);
        if name.contains("layer.3.output.dense.weight") {
            Member::deflated(&name, &array)
        } else {
            Member::stored(&name, &array)
        }
    };
    let members: Vec<Member> = expected.tensors().iter().map(member).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(minilm().join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("model.npz"), archive(&members)).unwrap();
    assert_eq!(comparable(&open(dir.path())), comparable(&expected));
}
