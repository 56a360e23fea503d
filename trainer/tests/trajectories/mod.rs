//! What tests of runs on fields share.

use std::path::{Path, PathBuf};

use evenkeel::Settings;
use evenkeel::balance::{Decay, Gain, Mapping, Measure};
use evenkeel::rebalance::fields::Fields;
use evenkeel::rebalance::options::*;

/// A short run on fields.
pub fn options(model: Option<PathBuf>, output: &Path, data: Fields) -> Options {
    Options {
        model,
        output: output.to_path_buf(),
        data: Data::Fields(data),
        lora: None,
        balance: Balance {
            mapping: Mapping::Sigmoid { tau: 10.0 },
            gain: Gain::Fixed { below: 1.0, above: 1.0 },
            measure: Measure::Alpha,
            exclude: Vec::new(),
            exclude_last: false,
            analysis: Settings::default(),
            interval: Interval::Epoch,
            wait: Some(true),
        },
        rate: Rate { peak: 1e-3, decay: Decay::Step { every_epochs: 2, gamma: 0.5 }, warmup: 0.0 },
        optimizer: Optimizer {
            kind: OptimizerKind::Adam,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            sam: None,
        },
        training: Training {
            epochs: 3,
            batch: 2,
            accumulation: 1,
            clip: 0.0,
            checkpointing: false,
            bf16: false,
            seed: 13,
            device: "cpu".to_owned(),
            threads: 1,
            save_steps: None,
        },
        stop: Stop { target: None, patience: None, max_metric_drop: None },
        result: Keep::Last,
        resume: false,
        dry_run: false,
        quiet: true,
    }
}
