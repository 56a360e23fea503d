//! NumPy's files: `fixtures/numpy_arrays.py` wrote them, and the same numbers as safetensors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "common/formats.rs"]
mod formats;

use common::fixture;
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
        let mut report = comparable(&found);
        let skipped = report["skipped"].as_array_mut().unwrap();
        skipped.retain(|part| left.iter().all(|(name, _)| part["name"] != *name));
        assert_eq!(report, comparable(&open(&expected)), "{file}");
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
