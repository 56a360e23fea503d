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

/// What is done for a job, by its number.
pub(super) struct Work<C, P> {
    /// Does it.
    pub compute: C,
    /// Called some time before, so that what the job reads is there when it begins. It returns at once.
    pub prepare: P,
}

/// Runs `compute(0..jobs.len())` and returns the results in that order. The first error (in the
/// order of the jobs) wins, after the jobs that had begun are done.
pub(super) fn run<T: Send>(
    jobs: &[Job],
    threads: usize,
    progress: &dyn Progress,
    work: Work<impl Fn(usize) -> Result<T> + Sync, impl Fn(usize) + Sync>,
) -> Result<Vec<T>> {
    let Work { compute, prepare } = work;
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
    // One job ahead of every thread: while it computes, the system reads.
    let ahead = |queue: &[usize], position: usize| {
        if let Some(index) = queue.get(position) {
            prepare(*index);
        }
    };
    ahead(&large, 0);
    pool.install(|| {
        for (position, index) in large.iter().enumerate() {
            ahead(&large, position + 1);
            one(*index);
        }
    });
    let threads = pool.current_num_threads();
    (0..threads).for_each(|position| ahead(&small, position));
    let next = AtomicUsize::new(0);
    pool.scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|_| {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(index) = small.get(position) else { break };
                    ahead(&small, position + threads);
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
            let found =
                run(&jobs, threads, &Silent, Work { compute: |i| Ok(i * 10), prepare: |_| {} }).unwrap();
            assert_eq!(found, [0, 10, 20, 30, 40]);
        }
    }

    #[test]
    fn an_error_ends_the_run() {
        let jobs = jobs(&[1.0, 2.0, 3.0]);
        let compute = |i| if i == 0 { Err(Error::Setting("broken".to_owned())) } else { Ok(i) };
        let found = run(&jobs, 2, &Silent, Work { compute, prepare: |_| {} });
        assert_eq!(found.unwrap_err().to_string(), "broken");
    }

    #[test]
    fn every_job_is_prepared_once_and_before_it_is_computed() {
        let jobs = jobs(&[1.0, 100.0, 3.0, 60.0, 2.0, 5.0, 4.0]);
        for threads in [1, 3] {
            let prepared = Mutex::new(Vec::new());
            let compute = |i: usize| {
                assert!(prepared.lock().unwrap().contains(&i), "{i} was not prepared");
                Ok(i)
            };
            let prepare = |i| prepared.lock().unwrap().push(i);
            run(&jobs, threads, &Silent, Work { compute, prepare }).unwrap();
            let mut all = prepared.into_inner().unwrap();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
        }
    }
}
