//! How much memory a run needs, computed from the sizes of its model before anything is trained.
//!
//! Counted are, in F32 unless said otherwise: weights; gradients; what the optimizer keeps; and what a
//! batch takes: of texts batch.rs has it, of fields trainer/src/pde/. Of a model with adapters most weights are frozen:
//! they have neither gradients nor moments, and take two bytes with bf16. With gradient checkpointing one layer is kept
//! whole, and of the others their inputs. With bf16 matrices' inputs and outputs take two bytes, and matrices that
//! learn are kept a second time in two bytes.
//!
//! The gradients of weights grow while values are given back, so that a step needs the larger of the two
//! rather than their sum, unless gradients of several batches are added up, or values are computed twice.
//! Writing a state copies one file's tensors. Not counted: the data, and what is mapped from files (libtorch, the
//! checkpoint that is read). fixtures/memory.py measures runs; docs/rebalance.md has what it found.

mod batch;
mod heap;

use evenkeel::rebalance::options::{Optimizer, OptimizerKind, Training};
use evenkeel::text::bytes as shown;
use tch::Device;

use crate::error::{Error, Result};
use crate::model::{Config, Pretrained};
use crate::torch;

pub use heap::{give_back, settle, spare};

/// What the program and libtorch take beside the files that they are mapped from.
pub const PROGRAM: u64 = 90_000_000;
/// What texts, their tokenizer, and holes between tensors of many lengths take.
const TEXTS: u64 = 40_000_000;

/// The bytes that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Of the model, frozen ones among them.
    pub weights: u64,
    /// As many again as learn.
    pub gradients: u64,
    /// What the optimizer keeps, and SAM's copy of the weights.
    pub optimizer: u64,
    /// What a batch takes, forward and backward.
    pub batch: u64,
    /// What a batch of an evaluation takes.
    pub evaluation: u64,
    /// Whether gradients are there while a batch passes forward.
    adds_up: bool,
    /// Copies that are made when a state is written.
    saving: u64,
    /// What is there beside the model.
    program: u64,
}

/// What a run's need is made of, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Parameters that learn.
    pub learning: u64,
    /// Those that do not.
    pub frozen: u64,
    /// What a batch takes, forward and backward.
    pub batch: u64,
    /// What a batch of an evaluation takes.
    pub evaluation: u64,
    /// What is there beside the model.
    pub program: u64,
    /// A batch uses each parameter several times: its gradients add up on the way back.
    pub is_repeated: bool,
}

/// What a batch is.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Examples.
    pub examples: usize,
    /// Tokens of the longest.
    pub length: usize,
    /// The rows that a language model gives numbers for the whole vocabulary for.
    pub places: usize,
    /// On a GPU attention keeps no weights.
    pub on_gpu: bool,
}

/// The sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Elements that learn.
    pub learning: u64,
    /// Bytes that do not.
    pub frozen: u64,
    /// Of a token the numbers that go into adapters, of all of them together.
    pub adapted_inputs: u64,
    /// Whether adapters drop some of them.
    pub drops_inputs: bool,
}

impl<'a> Sizes<'a> {
    /// Those of a model that has been read.
    pub fn of(model: &'a Pretrained) -> Sizes<'a> {
        let trained = model.model().trained();
        let inputs = trained.updates.iter().filter_map(|update| update.frozen.size().last().copied());
        Sizes {
            config: model.source().config(),
            learning: trained.parameters.iter().map(|parameter| parameter.tensor.numel() as u64).sum(),
            frozen: trained.frozen,
            adapted_inputs: inputs.filter_map(|inputs| u64::try_from(inputs).ok()).sum(),
            drops_inputs: model.lora().is_some_and(|lora| lora.dropout > 0.0),
        }
    }

    fn is_adapted(&self) -> bool {
        self.adapted_inputs > 0
    }
}

/// What a run of a text model of these sizes needs, with these batches of training and of evaluations.
pub fn need(
    optimizer: &Optimizer,
    training: &Training,
    sizes: &Sizes,
    learned: Batch,
    evaluated: Batch,
) -> Need {
    let parts = Parts {
        learning: 4 * sizes.learning,
        frozen: sizes.frozen,
        batch: batch::learned(training, sizes, learned),
        evaluation: batch::evaluated(training, sizes, evaluated),
        program: PROGRAM + TEXTS,
        is_repeated: false,
    };
    need_for(optimizer, training, parts)
}

/// What a run of these parts needs.
pub fn need_for(optimizer: &Optimizer, training: &Training, parts: Parts) -> Need {
    let Parts { learning, frozen, batch, evaluation, program, is_repeated } = parts;
    let moments = match optimizer.kind {
        OptimizerKind::AdamW | OptimizerKind::Adam => 2 * learning,
        OptimizerKind::Sgd if optimizer.beta1 > 0.0 => learning,
        // Adafactor keeps sums of rows and columns.
        OptimizerKind::Adafactor | OptimizerKind::Sgd => 0,
    };
    Need {
        weights: learning + frozen,
        gradients: learning,
        optimizer: moments + if optimizer.sam.is_some() { learning } else { 0 },
        // New gradients stand beside their sum.
        batch: batch + if is_repeated { learning } else { 0 },
        evaluation,
        adds_up: is_repeated || training.accumulation > 1 || training.checkpointing,
        saving: learning.max(moments),
        program,
    }
}

impl Need {
    /// What is there during the whole run, whatever the batch.
    pub fn fixed(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// The most at any moment.
    pub fn peak(&self) -> u64 {
        let step = if self.adds_up { self.gradients + self.batch } else { self.gradients.max(self.batch) };
        let used = self.weights + self.optimizer + step.max(self.saving).max(self.evaluation);
        self.program + used
    }

    /// Whether little is left beside it, so that what the allocator keeps for speed might not fit: it was seen to be up to
    /// a quarter.
    pub fn is_tight(&self, available: Option<u64>) -> bool {
        available.is_some_and(|available| self.peak() > available / 3 * 2)
    }

    /// For people.
    pub fn sentence(&self) -> String {
        format!(
            "Memory: about {}: weights {}, gradients {}, optimizer {}, a batch {}, one of an evaluation {} (not all at \
             the same moment).",
            shown(self.peak()),
            shown(self.weights),
            shown(self.gradients),
            shown(self.optimizer),
            shown(self.batch),
            shown(self.evaluation)
        )
    }

    /// Compares with what there is, the model's weights included, before anything is trained; gives a warning
    /// where the estimate alone says that it may not be enough.
    ///
    /// # Errors
    /// [`Error::Option`] where not even weights, gradients and the optimizer fit.
    pub fn check(&self, available: Option<u64>) -> Result<Option<String>> {
        let Some(available) = available else { return Ok(None) };
        if self.fixed() > available {
            return Err(Error::Option(format!(
                "too little memory: weights, gradients and the optimizer alone need {}, and {} are available; \
                 --optimizer adafactor keeps no moments, and a run without --sam no second copy of the weights.",
                shown(self.fixed()),
                shown(available)
            )));
        }
        Ok((self.peak() > available).then(|| {
            format!(
                "Memory may not suffice: training needs about {}, and {} are available. A smaller --batch (with \
                 --accumulate for the same steps) needs less; so do, for texts, a smaller --max-length or \
                 --gradient-checkpointing, and for fields larger --reduce-space and --reduce-time.",
                shown(self.peak()),
                shown(available)
            )
        }))
    }
}

/// Checks, before anything of a model's weights is read, that they fit, and with them what training them takes,
/// whatever the batch; a dry run has to hold the weights alone. `bytes` is what they take at least, `learning` whether
/// they are trained and not frozen.
///
/// # Errors
/// [`Error::Option`] where they do not.
pub fn check_model(
    bytes: u64,
    learning: bool,
    optimizer: &Optimizer,
    training: &Training,
    available: Option<u64>,
    dry_run: bool,
) -> Result<()> {
    if let Some(available) = available.filter(|available| *available < bytes) {
        return Err(Error::Option(format!(
            "too little memory: the weights alone need {}, and {} are available; with --lora and --bf16 most of them take \
             two bytes each.",
            shown(bytes),
            shown(available)
        )));
    }
    if dry_run {
        return Ok(());
    }
    let (learning, frozen) = if learning { (bytes, 0) } else { (0, bytes) };
    let parts = Parts { learning, frozen, batch: 0, evaluation: 0, program: 0, is_repeated: false };
    need_for(optimizer, training, parts).check(available).map(drop)
}

/// The bytes that are left for a run on a device, where that is known.
pub fn left(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(number) => torch::free_memory(number),
        _ => available(),
    }
}

/// The bytes that this process may still take: of the machine's, and of each control group that it is in.
/// `None` where the system does not say.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib * 1024);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    groups.lines().flat_map(|line| left_in(line, &read)).chain(machine).min()
}

/// What the groups of a line of /proc/self/cgroup have left, from the process's own upwards.
fn left_in(line: &str, read: &impl Fn(&str) -> Option<String>) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (root, limit, used, cache) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        "memory" => (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
        _ => return Vec::new(),
    };
    let mut left = Vec::new();
    // In a container the path may be that of the host: then only the root is there.
    for group in std::path::Path::new(path).ancestors().filter_map(std::path::Path::to_str) {
        let number = |file: &str| read(&format!("{root}{group}/{file}"))?.trim().parse::<u64>().ok();
        if let (Some(limit), Some(used)) = (number(limit), number(used)) {
            // Files that were read are given back.
            let stat = read(&format!("{root}{group}/memory.stat")).unwrap_or_default();
            let used = used.saturating_sub(field(&stat, cache).unwrap_or(0));
            left.push(limit.saturating_sub(used));
        }
    }
    left
}

/// The number behind a name that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need {
        weights: 100_000_000,
        gradients: 100_000_000,
        optimizer: 200_000_000,
        batch: 500_000_000,
        evaluation: 50_000_000,
        adds_up: false,
        saving: 200_000_000,
        program: PROGRAM,
    };

    #[test]
    fn gradients_and_a_batch_share_their_room() {
        let peak = |need: Need| (need.peak() - PROGRAM) / 1_000_000;
        assert_eq!((NEED.fixed(), peak(NEED)), (400_000_000, 800));
        assert_eq!(peak(Need { adds_up: true, ..NEED }), 900);
        assert_eq!(peak(Need { batch: 10, ..NEED }), 500);
        assert_eq!(peak(Need { evaluation: 600_000_000, ..NEED }), 900);
    }

    const ADAMW: Optimizer = Optimizer {
        kind: OptimizerKind::AdamW,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        sam: None,
    };

    fn training(bf16: bool, checkpointing: bool) -> Training {
        Training {
            epochs: 1,
            batch: 1,
            accumulation: 1,
            clip: 1.0,
            checkpointing,
            bf16,
            seed: 0,
            device: "cuda".to_owned(),
            threads: 0,
            save_steps: None,
        }
    }

    /// The numbers of LLaMA-7B's configuration, with adapters of rank 8 on queries and values.
    #[test]
    fn a_model_of_seven_billion_fits_one_gpu() {
        let config = Config::of(serde_json::json!({
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        }));
        let (layers, hidden, inner) = (32u64, 4096u64, 11008u64);
        let matrices = layers * (4 * hidden * hidden + 3 * hidden * inner) + 2 * 32000 * hidden;
        let norms = (2 * layers + 1) * hidden;
        assert_eq!(matrices + norms, 6_738_415_616);
        let sizes = |bytes: u64| Sizes {
            config: &config,
            learning: layers * 2 * 8 * 2 * hidden,
            frozen: bytes * matrices + 4 * norms,
            adapted_inputs: layers * 2 * hidden,
            drops_inputs: true,
        };
        let batch = Batch { examples: 1, length: 256, places: 1, on_gpu: true };
        let evaluated = Batch { examples: 4, places: 4, ..batch };
        let gigabytes = |need: Need| need.peak() as f64 / 1e9;
        let small = need(&ADAMW, &training(true, true), &sizes(2), batch, evaluated);
        assert!(small.check(Some(24_000_000_000)).unwrap().is_none(), "{small:?}");
        assert!((13.5..15.5).contains(&gigabytes(small)), "{small:?}");
        // Weights in F32 do not fit, and without checkpointing a batch takes far more.
        assert!(
            need(&ADAMW, &training(false, true), &sizes(4), batch, evaluated)
                .check(Some(24_000_000_000))
                .is_err()
        );
        let kept = need(&ADAMW, &training(true, false), &sizes(2), batch, evaluated);
        assert!(kept.batch > 5 * small.batch, "{kept:?}");
    }

    #[test]
    fn what_cannot_fit_is_refused_and_what_may_not_fit_is_said() {
        let message = NEED.check(Some(399_000_000)).unwrap_err().to_string();
        for part in ["400.0 MB", "399.0 MB", "--optimizer adafactor"] {
            assert!(message.contains(part), "{message}");
        }
        let warning = NEED.check(Some(889_000_000)).unwrap().unwrap();
        for part in ["890.0 MB", "889.0 MB", "--batch", "--max-length", "--gradient-checkpointing"] {
            assert!(warning.contains(part), "{warning}");
        }
        assert_eq!(NEED.check(Some(890_000_000)).unwrap(), None);
        assert_eq!(NEED.check(None).unwrap(), None);
        let tight =
            [Some(1_334_000_000), Some(1_335_000_000), None].map(|available| NEED.is_tight(available));
        assert_eq!(tight, [true, false, false]);
    }

    #[test]
    fn a_model_that_does_not_fit_is_not_even_read() {
        let check = |learning, available, dry_run| {
            check_model(100, learning, &ADAMW, &training(false, false), Some(available), dry_run)
                .map_err(|error| error.to_string())
        };
        // Weights, gradients and two moments; frozen ones alone.
        assert!(check(true, 399, false).unwrap_err().contains("the optimizer alone need 400 B"));
        assert_eq!((check(true, 400, false), check(false, 100, false)), (Ok(()), Ok(())));
        // What a run would need is shown.
        assert_eq!(check(true, 100, true), Ok(()));
        assert!(check(true, 99, true).unwrap_err().contains("the weights alone need 100 B"));
    }

    #[test]
    fn control_groups_are_asked_up_to_the_root() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max"),
            ("/sys/fs/cgroup/a/b/memory.current", "10"),
            ("/sys/fs/cgroup/a/memory.max", "5000\n"),
            ("/sys/fs/cgroup/a/memory.current", "1500\n"),
            ("/sys/fs/cgroup/a/memory.stat", "anon 100\ninactive_file 500\n"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "700"),
            ("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "800"),
        ];
        let read = |path: &str| {
            let path = path.replace("//", "/");
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(left_in("0::/a/b", &read), [4000]);
        assert_eq!(left_in("4:memory:/x", &read), [0]);
        assert!(left_in("3:cpuset:/x", &read).is_empty() && left_in("nonsense", &read).is_empty());
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
