//! How much memory a run needs, computed from the sizes of its model before anything is trained.
//!
//! Counted are, in F32 unless said otherwise: weights; gradients; what the optimizer keeps; and what a
//! batch takes. Of a batch of texts (of fields: trainer/src/pde/) these are the values that the backward pass wants, for each token and layer
//!
//! - 10 × hidden: the matrices' inputs, query, key, value, the inputs of two norms, two dropouts;
//! - 2 × intermediate: on both sides of the nonlinearity;
//! - 3 × heads × length: attention's weights, its dropout, their product (on a CPU with dropout; other
//!   kernels keep none of them);
//!
//! and the gradients of one layer's values while it is being differentiated. With gradient checkpointing
//! one layer is kept whole, and of the others their inputs. With bf16 matrices' inputs and outputs take two
//! bytes, and the matrices are kept a second time in two bytes.
//!
//! The gradients of weights grow while values are given back, so that a step needs the larger of the two
//! rather than their sum, unless gradients of several batches are added up, or values are computed twice.
//! Writing a state copies one file's tensors. Not counted: libtorch itself and the program (about 0.3 GB, of
//! which 0.1 GB are its own), the data, the checkpoint that is read.
//! fixtures/memory.py measures runs: of MiniLM this is what they take, to about a tenth.

use evenkeel::rebalance::options::{OptimizerKind, Options};
use evenkeel::text::bytes as shown;

use crate::error::{Error, Result};
use crate::model::Config;

/// Of so many bytes the allocator loses one, between those in use.
const ALLOCATOR_LOSS: u64 = 20;

/// The bytes that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Of the model.
    pub weights: u64,
    /// As many again.
    pub gradients: u64,
    /// What the optimizer keeps, and SAM's copy of the weights.
    pub optimizer: u64,
    /// What a batch takes, forward and backward.
    pub batch: u64,
    /// Whether gradients are there while a batch passes forward.
    adds_up: bool,
    /// Copies that are made when a state is written.
    saving: u64,
}

/// What a batch is.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Examples.
    pub examples: usize,
    /// Tokens of the longest.
    pub length: usize,
    /// On a GPU attention keeps no weights.
    pub on_gpu: bool,
}

/// What a run of a text model with so many parameters needs.
pub fn need(options: &Options, config: &Config, parameters: usize, batch: Batch) -> Need {
    need_for(options, parameters, batch_bytes(options, config, batch))
}

/// What a run needs whose model has so many parameters, and a batch of which takes so many bytes.
pub fn need_for(options: &Options, parameters: usize, batch: u64) -> Need {
    let weights = 4 * parameters as u64;
    let moments = match options.optimizer.kind {
        OptimizerKind::AdamW | OptimizerKind::Adam => 2 * weights,
        OptimizerKind::Sgd if options.optimizer.beta1 > 0.0 => weights,
        // Adafactor keeps sums of rows and columns.
        OptimizerKind::Adafactor | OptimizerKind::Sgd => 0,
    };
    Need {
        weights,
        gradients: weights,
        optimizer: moments + if options.optimizer.sam.is_some() { weights } else { 0 },
        batch,
        adds_up: options.training.accumulation > 1 || options.training.checkpointing,
        saving: weights.max(moments),
    }
}

fn batch_bytes(options: &Options, config: &Config, batch: Batch) -> u64 {
    let (hidden, inner) = (config.hidden as u64, config.intermediate as u64);
    let (heads, length) = (config.heads as u64, batch.length as u64);
    let tokens = batch.examples as u64 * length;
    let attention = if config.attention_dropout > 0.0 && !batch.on_gpu { 3 * heads * length } else { hidden };
    let masks = if config.hidden_dropout > 0.0 { 2 * hidden } else { 0 };
    let layer = match options.training.bf16 {
        false => 4 * (8 * hidden + masks + 2 * inner + attention),
        // In F32 the norms and attention stay.
        true => 4 * (7 * hidden + attention) + 2 * (3 * hidden + masks + 2 * inner),
    };
    // Gradients of a layer's values, while its own are still there.
    let scores = if batch.on_gpu { hidden } else { 3 * heads * length };
    let transient = 4 * (scores + 2 * inner);
    let layers = config.layers as u64;
    let kept = if options.training.checkpointing { layer + 4 * hidden * layers } else { layer * layers };
    let embeddings = 4 * 4 * hidden;
    let cast =
        if options.training.bf16 { 2 * layers * (4 * hidden * hidden + 2 * hidden * inner) } else { 0 };
    tokens * (kept + transient + embeddings) + cast
}

impl Need {
    /// What is there during the whole run, whatever the batch.
    pub fn fixed(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// The most at any moment.
    pub fn peak(&self) -> u64 {
        let step = if self.adds_up { self.gradients + self.batch } else { self.gradients.max(self.batch) };
        let used = self.weights + self.optimizer + step.max(self.saving);
        used + used / ALLOCATOR_LOSS
    }

    /// For people.
    pub fn sentence(&self) -> String {
        format!(
            "Memory: about {}: weights {}, gradients {}, optimizer {}, a batch {} (not all at the same moment).",
            shown(self.peak()),
            shown(self.weights),
            shown(self.gradients),
            shown(self.optimizer),
            shown(self.batch)
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

    const NEED: Need =
        Need { weights: 100, gradients: 100, optimizer: 200, batch: 500, adds_up: false, saving: 200 };

    #[test]
    fn gradients_and_a_batch_share_their_room() {
        assert_eq!((NEED.fixed(), NEED.peak()), (400, 840));
        assert_eq!(Need { adds_up: true, ..NEED }.peak(), 945);
        assert_eq!(Need { batch: 10, ..NEED }.peak(), 525);
    }

    #[test]
    fn what_cannot_fit_is_refused_and_what_may_not_fit_is_said() {
        let message = NEED.check(Some(399)).unwrap_err().to_string();
        for part in ["400", "399", "--optimizer adafactor"] {
            assert!(message.contains(part), "{message}");
        }
        let warning = NEED.check(Some(839)).unwrap().unwrap();
        for part in ["840", "839", "--batch", "--max-length", "--gradient-checkpointing"] {
            assert!(warning.contains(part), "{warning}");
        }
        assert_eq!(NEED.check(Some(840)).unwrap(), None);
        assert_eq!(NEED.check(None).unwrap(), None);
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
