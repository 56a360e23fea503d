//! Trajectories of a source, made coarser, as batches of tensors.

use std::sync::Arc;

use tch::{Device, Tensor};

use super::{Selection, Shape, Source};
use crate::error::{Error, Result};
use crate::memory;

/// Samples that are read at once.
const AT_ONCE: usize = 64;

/// Every so many points and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Along each axis in space.
    pub space: usize,
    /// In time.
    pub time: usize,
}

/// Some samples of a source.
pub struct Trajectories {
    source: Arc<dyn Source>,
    /// Their numbers there.
    samples: Vec<usize>,
    strides: Strides,
    shape: Shape,
    device: Device,
    /// All of them, where memory has room; else each batch is read when it is needed.
    held: Option<Tensor>,
}

impl Trajectories {
    /// Takes samples of a source, and reads them all at once where they take no more than half of the memory
    /// that there is.
    ///
    /// # Errors
    /// Those of [`Source::read`].
    pub fn new(
        source: Arc<dyn Source>,
        samples: Vec<usize>,
        strides: Strides,
        device: Device,
    ) -> Result<Trajectories> {
        let shape = reduced(source.shape(), strides);
        let shape = Shape { samples: samples.len(), ..shape };
        let mut all = Trajectories { source, samples, strides, shape, device, held: None };
        let bytes = 4 * all.shape.elements() as u64;
        if memory::available().is_none_or(|available| bytes <= available / 2) {
            let everything: Vec<usize> = (0..all.samples.len()).collect();
            all.held = Some(all.read(&everything)?.f_to_device(device)?);
        }
        Ok(all)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Their sizes, after strides.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The coordinates of the points along each axis: the file's, or else i/n of n points.
    pub fn coordinates(&self) -> Vec<Vec<f32>> {
        let even = |points: &usize| (0..*points).map(|point| point as f32 / *points as f32).collect();
        match self.source.coordinates() {
            Some(axes) => {
                axes.iter().map(|axis| axis.iter().copied().step_by(self.strides.space).collect()).collect()
            }
            None => self.shape.grid.iter().map(even).collect(),
        }
    }

    /// The number of a sample in its file.
    pub fn number(&self, place: usize) -> Option<usize> {
        self.samples.get(place).copied()
    }

    /// Whether all are in memory.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Some of them by their places, [samples, times, X(, Y), channels].
    ///
    /// # Errors
    /// Those of [`Source::read`], where they are not held; what libtorch says.
    pub fn batch(&self, places: &[usize]) -> Result<Tensor> {
        match &self.held {
            Some(held) => {
                let places: Vec<i64> = places.iter().map(|place| *place as i64).collect();
                Ok(held.f_index_select(0, &Tensor::f_from_slice(&places)?.f_to_device(self.device)?)?)
            }
            None => Ok(self.read(places)?.f_to_device(self.device)?),
        }
    }

    fn read(&self, places: &[usize]) -> Result<Tensor> {
        let shape = &self.shape;
        let mut numbers = Vec::with_capacity(Shape { samples: places.len(), ..shape.clone() }.elements());
        let mut wanted = places.iter().filter_map(|place| self.samples.get(*place).copied()).peekable();
        while let Some(first) = wanted.next() {
            // Neighbours in the file are read together.
            let mut end = first + 1;
            while end - first < AT_ONCE && wanted.next_if_eq(&end).is_some() {
                end += 1;
            }
            let selection = self.strides.selection(self.source.shape(), first..end);
            numbers.extend(self.source.read(&selection)?);
        }
        let dims = [places.len(), shape.times].into_iter().chain(shape.grid.iter().copied());
        let dims: Vec<i64> = dims.chain([shape.channels.len()]).map(|length| length as i64).collect();
        Ok(Tensor::f_from_slice(&numbers)?.f_view(dims.as_slice())?)
    }
}

impl Strides {
    fn selection(self, shape: &Shape, samples: std::ops::Range<usize>) -> Selection {
        Selection { samples, times: 0..shape.times, time_stride: self.time, space_stride: self.space }
    }
}

/// The sizes of all of a source, after strides.
pub fn reduced(shape: &Shape, strides: Strides) -> Shape {
    strides.selection(shape, 0..shape.samples).shape(shape)
}

/// Checks that what is left after strides has at least so many frames, and a grid.
///
/// # Errors
/// [`Error::Data`] with the figures.
pub fn check(source: &dyn Source, strides: Strides, frames: usize) -> Result<()> {
    let shape = source.shape();
    shape.check(&strides.selection(shape, 0..shape.samples), frames, source.path())
}

/// Which samples are tested on and which are trained on, where one file has both: as PDEBench does, the first
/// min(1000, N/5) are held back.
///
/// # Errors
/// [`Error::Data`] where none can be.
pub fn split(source: &dyn Source, test: Option<usize>) -> Result<(Vec<usize>, Vec<usize>)> {
    let all = source.shape().samples;
    let count = test.unwrap_or_else(|| (all / 5).min(1000));
    if count == 0 || count >= all {
        return Err(Error::Data {
            path: source.path().to_path_buf(),
            reason: format!(
                "of its {all} samples {count} are to be tested on, which leaves nothing to {} on (--test-samples, \
                 --eval).",
                if count == 0 { "test" } else { "train" }
            ),
        });
    }
    Ok(((count..all).collect(), (0..count).collect()))
}
