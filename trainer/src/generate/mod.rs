//! Small sets of fields in PDEBench's layout, computed here: nobody needs a download of 50 GB to begin.
//!
//! ```text
//! Recipe (darcy, burgers, flow) ── a sample from its own random numbers ──> Writer (hdf5)
//! ```
//!
//! | module | what |
//! |---|---|
//! | `elliptic` | the equations of Darcy flow, and their solution |
//! | `flow` | compressible flow: `riemann` between two states, `solver` on a grid |
//! | `burgers` | Burgers' equation |
//! | `waves` | random fields to begin with |
//! | `hdf5` | the file |
//!
//! A sample depends on the seed and its number alone and is written where it belongs, so that a set has the same bytes
//! whatever the number of threads.

mod burgers;
mod darcy;
mod elliptic;
mod flow;
mod hdf5;
mod waves;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;

pub use burgers::Burgers;
pub use darcy::DarcyFlow;
pub use flow::{Compressible, GAMMA, Gas};
pub use hdf5::Value;

use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};
use crate::training::INTERRUPTED;
use hdf5::{Declared, Writer};

/// A kind of data set.
pub trait Recipe: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What the file holds of each sample.
    fn arrays(&self) -> Vec<Array>;

    /// Where the points and frames lie, once for all samples.
    fn coordinates(&self) -> Vec<Coordinate>;

    /// The equation's parameters, which the file carries as attributes.
    fn parameters(&self) -> Vec<(&'static str, Value)>;

    /// One sample: the elements of each of its arrays.
    ///
    /// # Errors
    /// Why it could not be computed; a sentence without its end.
    fn sample(&self, draws: Draws) -> Result<Vec<Vec<f32>>, String>;
}

/// An array with a first axis over the samples.
#[derive(Clone, Debug)]
pub struct Array {
    name: String,
    /// The shape of one sample.
    shape: Vec<usize>,
}

impl Array {
    fn new(name: &str, shape: &[usize]) -> Array {
        Array { name: name.to_owned(), shape: shape.to_vec() }
    }
}

/// Coordinates along an axis.
#[derive(Clone, Debug)]
pub struct Coordinate {
    name: String,
    values: Vec<f32>,
}

impl Coordinate {
    /// The middles of cells of [0, 1].
    fn cells(axis: &str, count: usize) -> Coordinate {
        let values = (0..count).map(|cell| ((cell as f64 + 0.5) / count as f64) as f32).collect();
        Coordinate { name: format!("{axis}-coordinate"), values }
    }
}

/// When frames are written: `count` of them, evenly from 0 to `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames {
    /// How many, the start included; at least 2.
    pub count: usize,
    /// The time of the last one.
    pub end: f64,
}

impl Frames {
    fn times(self) -> impl Iterator<Item = f64> {
        (0..self.count).map(move |frame| self.end * frame as f64 / (self.count - 1).max(1) as f64)
    }

    fn coordinate(self) -> Coordinate {
        Coordinate { name: "t-coordinate".to_owned(), values: self.times().map(|time| time as f32).collect() }
    }
}

/// The next step of an explicit scheme, where so much time is left. `advection` is how many cells the fastest wave
/// crosses in a unit of time, of which at most 0.4 in a step; `diffusion` is Σ 2ν/h² over the axes, whose inverse bounds
/// a step, too, of which 0.9 is taken.
fn step(rest: f64, advection: f64, diffusion: f64) -> f64 {
    let limit = 1.0 / (advection / 0.4 + diffusion / 0.9);
    // No last step of nearly no length.
    if rest <= limit { rest } else { limit.min(0.5 * rest) }
}

/// How a set is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file to write; it must not exist.
    pub output: PathBuf,
    /// How many samples.
    pub samples: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Threads; 0 for as many as the machine allows.
    pub threads: usize,
    /// No progress bar.
    pub quiet: bool,
}

/// Computes a set and writes it beside its place, and then into it.
///
/// # Errors
/// [`Error::Option`] where the file exists; [`Error::Sample`] for a sample that cannot be computed;
/// [`Error::Stopped`] after Ctrl-C; those of writing. None of them leaves a file.
pub fn generate(recipe: &dyn Recipe, settings: &Settings) -> Result<()> {
    let output = &settings.output;
    if output.symlink_metadata().is_ok() {
        return Err(Error::Option(format!(
            "{} exists, and nothing is written over; name another file with --output.",
            output.display()
        )));
    }
    let mut partial = output.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let done = write(recipe, settings, &partial)
        .and_then(|()| std::fs::rename(&partial, output).map_err(Error::io("write", output)));
    if done.is_err() {
        // What went wrong is said; that half a file stays would be no more than untidy.
        let _ = std::fs::remove_file(&partial);
    }
    done
}

fn write(recipe: &dyn Recipe, settings: &Settings, path: &Path) -> Result<()> {
    let (arrays, coordinates) = (recipe.arrays(), recipe.coordinates());
    let with_samples = |array: &Array| Declared {
        name: array.name.clone(),
        shape: std::iter::once(settings.samples).chain(array.shape.iter().copied()).collect(),
    };
    let alone = |axis: &Coordinate| Declared { name: axis.name.clone(), shape: vec![axis.values.len()] };
    let declared: Vec<Declared> =
        arrays.iter().map(with_samples).chain(coordinates.iter().map(alone)).collect();
    let mut attributes = recipe.parameters();
    attributes.push(("seed", Value::Whole(settings.seed)));
    let by = format!("evenkeel-trainer {} generate {}", env!("CARGO_PKG_VERSION"), recipe.name());
    attributes.push(("generator", Value::Text(by)));

    let io = || Error::io("write", path);
    let writer = Writer::create(path, &attributes, &declared).map_err(io())?;
    for (number, axis) in coordinates.iter().enumerate() {
        writer.write(arrays.len() + number, 0, &axis.values).map_err(io())?;
    }
    let bar = bar(settings);
    let one = |sample: usize| -> Result<()> {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let draws = Draws::new(settings.seed, Purpose::Field, sample as u64);
        let blocks = recipe.sample(draws).map_err(|reason| Error::Sample { sample, reason })?;
        for (array, block) in blocks.iter().enumerate() {
            writer.write(array, sample * block.len(), block).map_err(io())?;
        }
        bar.inc(1);
        Ok(())
    };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).build();
    let threads = threads.map_err(|e| Error::Option(format!("threads could not be started: {e}.")))?;
    // Of several samples that fail, the first is named whatever the threads do.
    let done = threads.install(|| {
        let failed =
            (0..settings.samples).into_par_iter().with_max_len(1).map(one).find_first(Result::is_err);
        failed.unwrap_or(Ok(()))
    });
    bar.finish_and_clear();
    done.and_then(|()| writer.finish().map_err(io()))
}

fn bar(settings: &Settings) -> ProgressBar {
    let target = if settings.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(settings.samples as u64), target);
    if let Ok(style) = ProgressStyle::with_template("[{bar:24}] sample {pos}/{len} · {eta} left") {
        bar.set_style(style.progress_chars("█▌ "));
    }
    bar
}
