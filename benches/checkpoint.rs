//! Time of the whole process on whole checkpoints, two threads: start, reading, spectra, report.
#![allow(clippy::expect_used)]
#![allow(missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

#[allow(dead_code)] // the noise alone is for the other benchmark
mod common;

fn whole_process(criterion: &mut Criterion) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let checkpoints = [
        ("silero-vad", fixtures.join("silero-vad")),
        ("MiniLM", fixtures.join("cache/minilm")),
        ("RoBERTa-base-shaped", common::roberta_shaped()),
    ];
    let mut group = criterion.benchmark_group("analyze --threads 2");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(20));
    for (name, path) in checkpoints {
        assert!(path.exists(), "{} is not there: run `cargo xtask setup`", path.display());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let status = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
                    .args(["analyze", "--threads", "2", "--format", "json"])
                    .arg(&path)
                    .stdout(Stdio::null())
                    .status();
                assert!(status.is_ok_and(|status| status.success()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole_process);
criterion_main!(benches);
