//! A fixture whose tensors and configuration can be changed before it is analysed.

use std::collections::BTreeMap;

use evenkeel::Settings;
use evenkeel::matrices::Selection;
use evenkeel::report::Report;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::common::analyze;
use crate::{layout, settings};

/// The tensors of a fixture, to be changed.
pub struct Editable {
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    pub config: Value,
}

pub const MODULE: &str = "model.layers.0.self_attn.q_proj";

impl Editable {
    pub fn load(name: &str) -> Editable {
        let bytes = std::fs::read(layout(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let own = |(name, view): (String, TensorView)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let tensors = file.tensors().into_iter().map(own).collect();
        let config = std::fs::read(layout(name).join("config.json")).unwrap();
        Editable { tensors, config: serde_json::from_slice(&config).unwrap() }
    }

    /// The tensor of the first module with this ending.
    pub fn key(&self, part: &str) -> String {
        self.tensors.keys().find(|name| name.ends_with(part)).unwrap_or_else(|| panic!("no {part}")).clone()
    }

    pub fn get(&mut self, part: &str) -> &mut (Dtype, Vec<usize>, Vec<u8>) {
        let key = self.key(part);
        self.tensors.get_mut(&key).unwrap()
    }

    pub fn set(mut self, part: &str, dtype: Dtype, shape: &[usize]) -> Editable {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        *self.get(part) = (dtype, shape.to_vec(), vec![1; bytes]);
        self
    }

    pub fn without(mut self, part: &str) -> Editable {
        let key = self.key(part);
        self.tensors.remove(&key);
        self
    }

    /// A tensor of ones beside the first module's.
    pub fn with(mut self, part: &str, dtype: Dtype, shape: &[usize]) -> Editable {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        self.tensors.insert(format!("{MODULE}.{part}"), (dtype, shape.to_vec(), vec![1; bytes]));
        self
    }

    pub fn configured(mut self, key: &str, value: Value) -> Editable {
        self.config["quantization_config"][key] = value;
        self
    }

    pub fn save(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        dir
    }

    pub fn report(&self) -> Report {
        analyze(self.save().path(), &settings())
    }

    /// Asserts that the packed tensor `part` is skipped for a reason that says `why`, whatever the user
    /// assumes, and that no other matrix appears in its place.
    #[track_caller]
    pub fn skipped(&self, part: &str, why: &str) {
        let name = self.key(part);
        let selection = Selection { assume_unscaled: true, ..Selection::default() };
        for settings in [settings(), Settings { selection, ..settings() }] {
            let report = analyze(self.save().path(), &settings);
            let skipped = report.skipped.iter().find(|s| s.name == name);
            let reason = &skipped.unwrap_or_else(|| panic!("{name} is not skipped")).reason;
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
            assert!(report.matrices.iter().all(|m| !m.tensors.contains(&name)), "{name} is read");
        }
    }
}
