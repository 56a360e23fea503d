//! Adapters on disk and in an analysis, exactly as PEFT saves them: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::rebalance::options::Lora;
use evenkeel::source::Held;
use evenkeel::tensors::Dtype;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::directory::Pretrained;
use super::write::{Piece, pretty, save, write_file};
use crate::error::Result;
use crate::torch::to_bytes;
use crate::training::Update;

/// The version of PEFT whose layout this is.
const VERSION: &str = "0.21.2";
/// What PEFT puts before the names of the model that it wraps.
const WRAPPER: &str = "base_model.model.";

impl Pretrained {
    /// Writes the adapter, and what is trained whole beside it, into an empty directory.
    pub(super) fn write_adapter(&self, lora: &Lora, to: &Path) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for parameter in self.model.parameters() {
            let name = format!("{WRAPPER}{}", self.source.config.family.full_name(&parameter.name));
            tensors.insert(name, Piece::trained(&parameter.tensor, Dtype::F32)?);
        }
        save(
            &to.join("adapter_model.safetensors"),
            tensors.iter().map(|(name, piece)| (name.as_str(), piece)),
        )?;
        // The configuration last: without one it is no adapter yet.
        let config = self.adapter_config(lora);
        write_file(&to.join("adapter_config.json"), &pretty(&config)?)?;
        self.source.checkpoint.verify_unchanged()?;
        Ok(())
    }

    /// All entries of PEFT's configuration, in its order.
    fn adapter_config(&self, lora: &Lora) -> Value {
        let saved = &self.model.trained().saved;
        json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": {},
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": self.source.given.to_string_lossy(),
            "bias": "none",
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": null,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": number(lora.alpha),
            "lora_bias": false,
            "lora_dropout": lora.dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": VERSION,
            "qalora_group_size": 16,
            "r": lora.rank,
            "rank_pattern": {},
            "revision": null,
            "target_modules": self.targets(),
            "target_parameters": null,
            "task_type": self.task.peft_type(),
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": false,
            "use_qalora": false,
            "use_rslora": lora.rank_stabilised,
            "velora_config": null,
        })
    }

    /// The names of the adapted modules: the last parts, where these mean no other matrix, or else all of them.
    fn targets(&self) -> Vec<String> {
        let Some(lora) = &self.lora else { return Vec::new() };
        if let Some(names) = lora.targets.named(self.source.config.family.adapted()) {
            let mut names = names;
            names.sort();
            names.dedup();
            return names;
        }
        let module = |update: &Update| {
            let name = self.source.config.family.full_name(&update.weight);
            name.strip_suffix(".weight").map_or(name.clone(), str::to_owned)
        };
        self.model.trained().updates.iter().map(module).collect()
    }

    /// The weights as an analysis sees them, of all tensors or of those with these names: those of the
    /// checkpoint as they lie on the disk, with the adapters as they are now.
    pub(super) fn adapted_checkpoint(&self, lora: &Lora, only: Option<&[&str]>) -> Result<Checkpoint> {
        let mut held: Vec<Held> = Vec::new();
        let wanted = |name: &str| only.is_none_or(|only| only.contains(&name));
        let trained = self.model.trained();
        let factors: HashSet<usize> = trained
            .updates
            .iter()
            .filter(|update| wanted(&update.weight))
            .flat_map(|update| [update.a, update.b])
            .collect();
        for (position, parameter) in trained.parameters.iter().enumerate() {
            if factors.contains(&position) || !is_factor(&parameter.name) && wanted(&parameter.name) {
                let sides = parameter.tensor.size().into_iter().map(|n| usize::try_from(n).unwrap_or(0));
                held.push((
                    parameter.name.clone(),
                    Dtype::F32,
                    sides.collect(),
                    to_bytes(&parameter.tensor)?,
                ));
            }
        }
        if held.is_empty() {
            return Ok(Checkpoint::in_memory(self.source.checkpoint.config().cloned(), held)?);
        }
        let config = self.adapter_config(lora).to_string();
        let checkpoint = &self.source.checkpoint;
        Ok(checkpoint.adapted(config.as_bytes(), held, Some(lora.spectral_scale()), only)?)
    }

    /// W + scale·B·A of a tensor of the checkpoint, in F32; `None` where it has no adapter.
    pub(super) fn merged(
        &self,
        names: &[&str],
        stored: impl Fn() -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        let trained = self.model.trained();
        let found = trained.updates.iter().find(|update| names.contains(&update.weight.as_str()));
        let (Some(update), Some(lora)) = (found, &self.lora) else { return Ok(None) };
        let factor = |at: usize| trained.parameters.get(at).map(|p| p.tensor.f_detach()).transpose();
        let (Some(a), Some(b)) = (factor(update.a)?, factor(update.b)?) else { return Ok(None) };
        let product = b.f_matmul(&a)?.f_mul_scalar(lora.scale())?.f_to_device(Device::Cpu)?;
        Ok(Some(stored()?.f_to_kind(Kind::Float)?.f_add(&product)?))
    }
}

/// Whether a parameter is a factor of an adapter, and no tensor of the model itself.
pub(super) fn is_factor(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}

/// A whole number without a point, as Python writes an integer.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
