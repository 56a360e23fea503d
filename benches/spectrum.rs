//! Time of one spectrum by size, Gram matrix and eigenvalues, on one thread and on two.
#![allow(clippy::expect_used)]
#![allow(missing_docs)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel::spectrum::{Dense, FaerEngine, Method, flops, spectrum};

#[allow(dead_code)] // the checkpoint is for the other benchmark
mod common;

fn by_size(criterion: &mut Criterion) {
    let sizes = [(384, 384), (768, 768), (3072, 768), (2048, 2048), (4096, 4096), (11008, 4096)];
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut group = criterion.benchmark_group(format!("gram, {threads} threads"));
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        for (rows, cols) in sizes {
            let mut noise = common::Noise(1);
            let mut matrix = Dense::zeros(rows, cols);
            matrix.data.iter_mut().for_each(|value| *value = noise.next());
            group.throughput(Throughput::Elements(flops(rows, cols) as u64));
            group.bench_function(BenchmarkId::from_parameter(format!("{rows}x{cols}")), |bencher| {
                let slice = || std::iter::once(&matrix);
                bencher.iter(|| pool.install(|| spectrum(&FaerEngine, slice(), Method::Gram, false)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, by_size);
criterion_main!(benches);
