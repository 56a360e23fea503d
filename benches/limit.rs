//! How far spectra are from the limit of the machine: times as multiples of
//! T = (m·n² + 4/3·n³) / rate, the rate being that of the double-precision matrix product, measured
//! in the same run on the same threads. `cargo xtask bench --bench limit [-- THREADS]`
#![allow(clippy::expect_used)]
#![allow(missing_docs)]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use evenkeel::spectrum::{Dense, FaerEngine, Method, flops, spectrum};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};

mod common;

fn random(rows: usize, cols: usize, seed: u64) -> Dense {
    let mut noise = common::Noise(seed);
    let mut matrix = Dense::zeros(rows, cols);
    matrix.data.iter_mut().for_each(|value| *value = noise.next());
    matrix
}

/// The shortest of `repeats` runs, in seconds: what the machine can do when nothing disturbs it.
fn best(repeats: usize, mut work: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..repeats).map(run).fold(f64::INFINITY, f64::min)
}

/// Floating-point operations per second of a product of two 4096 × 4096 matrices.
fn product_rate(pool: &rayon::ThreadPool) -> f64 {
    let n = 4096;
    let a = Mat::<f64>::from_fn(n, n, |i, j| ((i * 7 + j * 13) % 17) as f64 - 8.0);
    let mut c = Mat::<f64>::zeros(n, n);
    let threads = pool.current_num_threads();
    let seconds = best(3, || {
        pool.install(|| {
            matmul(c.as_mut(), Accum::Replace, a.as_ref(), a.as_ref(), 1.0, Par::rayon(threads));
        });
    });
    2.0 * (n as f64).powi(3) / seconds
}

/// One matrix with all threads inside it.
fn single(pool: &rayon::ThreadPool, rows: usize, cols: usize) -> f64 {
    let matrix = random(rows, cols, 1);
    let slice = || std::iter::once(&matrix);
    best(2, || {
        pool.install(|| spectrum(&FaerEngine, slice(), Method::Gram, false)).expect("it converges");
    })
}

/// Many matrices, one to a thread: seconds for each.
fn many(pool: &rayon::ThreadPool, rows: usize, cols: usize) -> f64 {
    let count = 8 * pool.current_num_threads();
    let matrix = random(rows, cols, 2);
    let seconds = best(3, || {
        let next = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..pool.current_num_threads() {
                scope.spawn(|_| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        let slice = std::iter::once(&matrix);
                        spectrum(&FaerEngine, slice, Method::Gram, false).expect("it converges");
                    }
                });
            }
        });
    });
    seconds / count as f64
}

fn whole_process(threads: usize) -> f64 {
    let path = common::roberta_shaped();
    best(3, || {
        let status = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["analyze", "--format", "json", "--threads", &threads.to_string()])
            .arg(&path)
            .stdout(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    })
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(2);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let rate = product_rate(&pool);
    println!("{threads} threads, matrix product {:.1} GFLOP/s\n", rate / 1e9);
    println!("| work | seconds | T | seconds / T |");
    println!("| --- | ---: | ---: | ---: |");
    let row = |work: &str, seconds: f64, operations: f64| {
        let limit = operations / rate;
        println!("| {work} | {seconds:.4} | {limit:.4} | {:.2} |", seconds / limit);
    };
    for (rows, cols) in [(4096, 4096), (11008, 4096)] {
        row(&format!("{rows} × {cols}"), single(&pool, rows, cols), flops(rows, cols));
    }
    for (rows, cols) in [(768, 768), (3072, 768), (384, 384)] {
        row(&format!("{rows} × {cols}, one of many"), many(&pool, rows, cols), flops(rows, cols));
    }
    let roberta = 12.0 * (4.0 * flops(768, 768) + 2.0 * flops(3072, 768)) + flops(768, 768);
    row("RoBERTa-base-shaped, whole process", whole_process(threads), roberta);
}
