//! Files changed at random: no panic, no endless work, whatever no longer fits.

use std::path::Path;

use evenkeel::{Checkpoint, OpenOptions, Silent};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

use crate::editable::{Editable, MODULE};
use crate::{LAYOUTS, layout, settings};

/// Everything that can be done with a file that was accepted; must not panic, and must be quick.
fn use_all(path: &Path, mmap: bool) {
    let Ok(checkpoint) = Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }) else {
        return;
    };
    evenkeel::inventory(&checkpoint, &settings()).unwrap();
    for tensor in checkpoint.tensors() {
        let _ = checkpoint.read(tensor, 0..tensor.elements).map(|bytes| {
            assert_eq!(bytes.len(), (tensor.elements * tensor.dtype.bits()).div_ceil(8));
        });
    }
    let _ = evenkeel::analyze(&checkpoint, &settings(), &Silent);
}

/// What is done to a checkpoint whose parts fit together.
#[derive(Clone, Debug)]
enum Change {
    Shape(prop::sample::Index, Vec<usize>),
    Type(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
    Rename(prop::sample::Index, prop::sample::Index),
    Byte(prop::sample::Index, prop::sample::Index, u8),
    Config(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), prop::collection::vec(0usize..70, 0..4)).prop_map(|(t, shape)| Change::Shape(t, shape)),
        (index(), index()).prop_map(|(t, dtype)| Change::Type(t, dtype)),
        index().prop_map(Change::Remove),
        (index(), index()).prop_map(|(from, to)| Change::Rename(from, to)),
        (index(), index(), any::<u8>()).prop_map(|(t, at, byte)| Change::Byte(t, at, byte)),
        (index(), index()).prop_map(|(key, value)| Change::Config(key, value)),
    ]
}

impl Editable {
    fn apply(&mut self, change: Change) {
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        if names.len() < 2 {
            return;
        }
        match change {
            Change::Shape(which, shape) => {
                let tensor = self.tensors.get_mut(which.get(&names)).unwrap();
                let bits = shape.iter().product::<usize>() * tensor.0.bitsize();
                if bits.is_multiple_of(8) && bits < 1 << 22 {
                    tensor.1 = shape;
                    tensor.2.resize(bits / 8, 1);
                }
            }
            Change::Type(which, to) => {
                let types = [
                    Dtype::U8,
                    Dtype::I8,
                    Dtype::I32,
                    Dtype::I64,
                    Dtype::F16,
                    Dtype::BF16,
                    Dtype::F32,
                    Dtype::F8_E4M3,
                    Dtype::F8_E8M0,
                    Dtype::F4,
                ];
                let tensor = self.tensors.get_mut(which.get(&names)).unwrap();
                let bits = tensor.1.iter().product::<usize>() * to.get(&types).bitsize();
                if bits.is_multiple_of(8) {
                    tensor.0 = *to.get(&types);
                    tensor.2.resize(bits / 8, 1);
                }
            }
            Change::Remove(which) => drop(self.tensors.remove(which.get(&names))),
            Change::Rename(from, to) => {
                let parts = [
                    "qweight",
                    "weight",
                    "weight_packed",
                    "weight_scale",
                    "weight_scale_inv",
                    "weight_blocks",
                    "weight_scales",
                    "scales",
                    "g_idx",
                    "weight.absmax",
                    "weight_g_idx",
                    "SCB",
                    "weight_zero_point",
                    "weight_scale_2",
                    "scale_weight",
                    "scale",
                ];
                let tensor = self.tensors.remove(from.get(&names)).unwrap();
                self.tensors.insert(format!("{MODULE}.{}", to.get(&parts)), tensor);
            }
            Change::Byte(which, at, byte) => {
                let tensor = self.tensors.get_mut(which.get(&names)).unwrap();
                if !tensor.2.is_empty() {
                    let at = at.index(tensor.2.len());
                    tensor.2[at] = byte;
                }
            }
            Change::Config(key, value) => {
                let keys = [
                    "quant_method",
                    "bits",
                    "group_size",
                    "weight_block_size",
                    "version",
                    "checkpoint_format",
                    "dynamic",
                    "config_groups",
                    "meta",
                    "sym",
                    "desc_act",
                ];
                let values = [
                    json!(null),
                    json!(0),
                    json!(-1),
                    json!(1),
                    json!(3),
                    json!(u64::MAX),
                    json!(i64::MIN),
                    json!("gptq"),
                    json!("awq"),
                    json!("fp8"),
                    json!("modelopt"),
                    json!("compressed-tensors"),
                    json!(true),
                    json!({"quantizer": ["gptqmodel:7"]}),
                    json!([0, 0]),
                    json!([1, 7]),
                    json!([u64::MAX, 1]),
                    json!({"a": {"weights": {"num_bits": 2, "group_size": 1, "block_structure": [3, 3]}}}),
                ];
                self.config["quantization_config"][*key.get(&keys)] = value.get(&values).clone();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Parts that no longer fit together never panic, and never cost more than the file is worth.
    #[test]
    fn changed_parts_are_skipped_or_read(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..5),
        mmap in any::<bool>(),
    ) {
        let mut editable = Editable::load(which.get(&LAYOUTS).0);
        changes.into_iter().for_each(|change| editable.apply(change));
        use_all(editable.save().path(), mmap);
    }
}

/// A file cut off anywhere is refused before any part of it is used.
#[test]
fn every_truncation_is_refused() {
    let bytes = std::fs::read(layout("bitsandbytes-8bit").join("model.safetensors")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for length in (0..600).chain((600..bytes.len()).step_by(61)) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(Checkpoint::open(&path, &OpenOptions::default()).is_err(), "{length} bytes are accepted");
    }
}
