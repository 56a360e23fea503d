//! How far spectra are from the limit of the machine: times as multiples of
//! T = (m·n² + 4/3·n³) / rate, the rate being that of the best double-precision matrix product at
//! hand (faer's; with `--features lapack` the system's BLAS, too), measured in the same run on the
//! same threads. `cargo xtask bench --bench limit [--features lapack] [-- THREADS]`
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

/// Side of the matrices whose product gives the rate.
const SIDE: usize = 4096;

/// Floating-point operations per second of faer's product.
fn faer_rate(pool: &rayon::ThreadPool) -> f64 {
    let n = SIDE;
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

/// The same of the system's BLAS, on as many threads.
#[cfg(feature = "lapack")]
fn blas_rate(threads: usize) -> Option<f64> {
    use std::ffi::{c_char, c_int};

    // OpenBLAS, which the crate's engine links.
    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
        #[rustfmt::skip]
        fn dgemm_(
            transa: *const c_char,
            transb: *const c_char,
            m: *const c_int,
            n: *const c_int,
            k: *const c_int,
            alpha: *const f64,
            a: *const f64,
            lda: *const c_int,
            b: *const f64,
            ldb: *const c_int,
            beta: *const f64,
            c: *mut f64,
            ldc: *const c_int,
        );
    }
    let side = c_int::try_from(SIDE).ok()?;
    let a: Vec<f64> = (0..SIDE * SIDE).map(|i| (i % 17) as f64 - 8.0).collect();
    let mut c = vec![0.0; SIDE * SIDE];
    let plain = b'N' as c_char;
    let seconds = best(3, || {
        // SAFETY: the signatures are those of the Fortran interface with 32-bit integers; the three
        // matrices are SIDE × SIDE, column-major, and c is borrowed by nothing else.
        unsafe {
            openblas_set_num_threads(c_int::try_from(threads).unwrap_or(1));
            dgemm_(
                &plain,
                &plain,
                &side,
                &side,
                &side,
                &1.0,
                a.as_ptr(),
                &side,
                a.as_ptr(),
                &side,
                &0.0,
                c.as_mut_ptr(),
                &side,
            );
        }
    });
    Some(2.0 * (SIDE as f64).powi(3) / seconds)
}

#[cfg(not(feature = "lapack"))]
fn blas_rate(_: usize) -> Option<f64> {
    None
}

/// One matrix with all threads inside it, both ways in turn, so that both see the same machine.
fn large(pool: &rayon::ThreadPool, matrix: &Dense) -> [f64; 2] {
    let mut shortest = [f64::INFINITY; 2];
    for _ in 0..3 {
        for (seconds, method) in shortest.iter_mut().zip([Method::Gram, Method::Single]) {
            let slice = std::iter::once(matrix);
            let work = || pool.install(|| spectrum(&FaerEngine, slice, method, false)).expect("it converges");
            let start = Instant::now();
            work();
            *seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    shortest
}

/// Adds a direction that stands out far above the noise, as in trained weights.
fn spiked(mut matrix: Dense) -> Dense {
    let rows = matrix.rows;
    for (index, value) in matrix.data.iter_mut().enumerate() {
        *value += 0.5 * ((index % rows) as f64).sin() * ((index / rows) as f64).cos();
    }
    matrix
}

/// Many matrices, one to a thread: seconds for each.
fn many(pool: &rayon::ThreadPool, rows: usize, cols: usize, method: Method) -> f64 {
    let count = 8 * pool.current_num_threads();
    let matrix = random(rows, cols, 2);
    let seconds = best(3, || {
        let next = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..pool.current_num_threads() {
                scope.spawn(|_| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        let slice = std::iter::once(&matrix);
                        spectrum(&FaerEngine, slice, method, false).expect("it converges");
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
    let (faer, blas) = (faer_rate(&pool), blas_rate(threads));
    let rate = blas.unwrap_or(0.0).max(faer);
    let blas = blas.map_or("not asked (--features lapack)".to_owned(), |r| format!("{:.1}", r / 1e9));
    println!("{threads} threads, matrix product in GFLOP/s: faer {:.1}, system's BLAS {blas}\n", faer / 1e9);
    println!("| work | seconds | T | seconds / T |");
    println!("| --- | ---: | ---: | ---: |");
    let row = |work: &str, seconds: f64, operations: f64| {
        let limit = operations / rate;
        println!("| {work} | {seconds:.4} | {limit:.4} | {:.2} |", seconds / limit);
    };
    let both = |what: &str, matrix: Dense| {
        let [exact, fast] = large(&pool, &matrix);
        let operations = flops(matrix.rows, matrix.cols);
        row(&format!("{what}, exact"), exact, operations);
        row(&format!("{what}, fast: {:.2} times faster", exact / fast), fast, operations);
    };
    both("4096 × 4096", random(4096, 4096, 1));
    both("4096 × 4096, a direction standing out", spiked(random(4096, 4096, 1)));
    both("11008 × 4096", random(11008, 4096, 1));
    for (rows, cols) in [(768, 768), (3072, 768), (384, 384)] {
        for (name, method) in [("exact", Method::Gram), ("fast", Method::Single)] {
            let seconds = many(&pool, rows, cols, method);
            row(&format!("{rows} × {cols}, one of many, {name}"), seconds, flops(rows, cols));
        }
    }
    let roberta = 12.0 * (4.0 * flops(768, 768) + 2.0 * flops(3072, 768)) + flops(768, 768);
    row("RoBERTa-base-shaped, whole process", whole_process(threads), roberta);
}
