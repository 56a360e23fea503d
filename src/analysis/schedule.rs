//! Who computes what: large matrices one after another with all threads inside each, the others
//! one to a thread, the longest first so that no thread is left with a long one at the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::spectrum::Parallelism;

/// Hears how the work goes on. Called from several threads.
pub trait Progress: Sync {
    /// The work is known: so many operations in all.
    fn begin(&self, total: f64);
    /// A matrix is done, and with it this share of the operations.
    fn advance(&self, work: f64);
}

/// Hears nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: f64) {}
    fn advance(&self, _: f64) {}
}

/// One unit of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Floating-point operations, roughly.
    pub work: f64,
    /// How the job uses threads.
    pub parallelism: Parallelism,
}

/// Runs `compute(0..jobs.len())` and returns the results in that order. The first error (in the
/// order of the jobs) wins, after the jobs that had begun are done.
pub(super) fn run<T: Send>(
    jobs: &[Job],
    threads: usize,
    progress: &dyn Progress,
    compute: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::Setting(format!("cannot start the worker threads: {e}.")))?;
    progress.begin(jobs.iter().map(|job| job.work).sum());
    let (large, small): (Vec<usize>, Vec<usize>) = by_size(jobs)
        .into_iter()
        .partition(|i| jobs.get(*i).is_some_and(|job| job.parallelism == Parallelism::Within));
    let results: Vec<Mutex<Option<Result<T>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let failed = AtomicUsize::new(0);
    let one = |index: usize| {
        if failed.load(Ordering::Relaxed) > 0 {
            return;
        }
        let result = compute(index);
        if result.is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(mut slot) = results.get(index).and_then(|slot| slot.lock().ok()) {
            *slot = Some(result);
        }
        progress.advance(jobs.get(index).map_or(0.0, |job| job.work));
    };
    pool.install(|| large.iter().copied().for_each(one));
    let next = AtomicUsize::new(0);
    pool.scope(|scope| {
        for _ in 0..pool.current_num_threads() {
            scope.spawn(|_| {
                while let Some(index) = small.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(*index);
                }
            });
        }
    });
    let mut done = Vec::with_capacity(jobs.len());
    for slot in results {
        match slot.into_inner().ok().flatten() {
            Some(Ok(result)) => done.push(result),
            Some(Err(error)) => return Err(error),
            // Not begun because another one failed: that error comes later in the list.
            None => {}
        }
    }
    Ok(done)
}

/// The jobs' numbers, the most work first; equal ones keep their order.
fn by_size(jobs: &[Job]) -> Vec<usize> {
    let mut order: Vec<(usize, f64)> = jobs.iter().map(|job| job.work).enumerate().collect();
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    order.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(works: &[f64]) -> Vec<Job> {
        let job = |work: &f64| Job {
            work: *work,
            parallelism: if *work > 50.0 { Parallelism::Within } else { Parallelism::Alone },
        };
        works.iter().map(job).collect()
    }

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let jobs = jobs(&[1.0, 100.0, 3.0, 60.0, 2.0]);
        for threads in [1, 4] {
            let found = run(&jobs, threads, &Silent, |i| Ok(i * 10)).unwrap();
            assert_eq!(found, [0, 10, 20, 30, 40]);
        }
    }

    #[test]
    fn an_error_ends_the_run() {
        let jobs = jobs(&[1.0, 2.0, 3.0]);
        let found =
            run(&jobs, 2, &Silent, |i| if i == 0 { Err(Error::Setting("broken".to_owned())) } else { Ok(i) });
        assert_eq!(found.unwrap_err().to_string(), "broken");
    }
}
