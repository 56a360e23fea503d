//! Fields on regular grids that develop in time: what neural operators learn from.
//!
//! ```text
//! file ── Source ── Selection (samples, times, strides) ── [samples, times, X(, Y), channels]
//! ```
//!
//! A [`Source`] reads only what is asked for, so that a file may be larger than memory: PDEBench's HDF5 files
//! ([`PdeBench`]) and tensors in torch files ([`TorchFile`]). [`Trajectories`] are samples of one, made coarser by
//! strides, in batches.

mod pdebench;
mod torch_file;
mod trajectories;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use evenkeel::text;

pub use pdebench::PdeBench;
pub use torch_file::TorchFile;
pub use trajectories::{Strides, Trajectories, check, reduced, split};

use crate::error::{Error, Result};

/// Where trajectories come from.
pub trait Source: Send + Sync {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// What there is.
    fn shape(&self) -> &Shape;

    /// The coordinates of the points along each axis; `None` where the file has none.
    fn coordinates(&self) -> Option<&[Vec<f32>]> {
        None
    }

    /// The selected part, [samples, times, X(, Y), channels] in row-major order.
    ///
    /// # Errors
    /// [`Error::Data`] where the selection lies outside the shape ([`Shape::check`]) or a number in it is NaN
    /// or infinite (with its place); those of reading.
    fn read(&self, selection: &Selection) -> Result<Vec<f32>>;
}

/// Opens a file of fields by the ending of its name: `.pt` and `.pth` are torch's, all else is HDF5.
///
/// # Errors
/// Those of [`TorchFile::open`] and [`PdeBench::open`].
pub fn open(path: &Path) -> Result<Arc<dyn Source>> {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    Ok(match ending.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("pt" | "pth") => Arc::new(TorchFile::open(path)?),
        _ => Arc::new(PdeBench::open(path)?),
    })
}

/// The sizes of a set of trajectories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Trajectories.
    pub samples: usize,
    /// Frames of each.
    pub times: usize,
    /// Points along each axis: one or two.
    pub grid: Vec<usize>,
    /// What is known at each point, by name.
    pub channels: Vec<String>,
}

/// Which part of the trajectories is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Trajectories.
    pub samples: Range<usize>,
    /// Frames.
    pub times: Range<usize>,
    /// Every so many of these frames, the first one included.
    pub time_stride: usize,
    /// Every so many points along each axis, the first one included.
    pub space_stride: usize,
}

impl Selection {
    /// Everything.
    pub fn all(shape: &Shape) -> Selection {
        Selection { samples: 0..shape.samples, times: 0..shape.times, time_stride: 1, space_stride: 1 }
    }

    /// The sizes of what it selects of a shape.
    pub fn shape(&self, of: &Shape) -> Shape {
        Shape {
            samples: self.samples.len(),
            times: self.times.len().div_ceil(self.time_stride.max(1)),
            grid: of.grid.iter().map(|points| points.div_ceil(self.space_stride.max(1))).collect(),
            channels: of.channels.clone(),
        }
    }
}

impl Shape {
    /// Numbers in all.
    pub fn elements(&self) -> usize {
        self.samples * self.times * self.grid.iter().product::<usize>() * self.channels.len()
    }

    /// Checks that a selection lies inside, selects something, and at least `frames` frames: as many as a
    /// model is given and has to predict.
    ///
    /// # Errors
    /// [`Error::Data`] with the figures.
    pub fn check(&self, selection: &Selection, frames: usize, path: &Path) -> Result<()> {
        let data = |reason| Err(Error::Data { path: path.to_path_buf(), reason });
        let Selection { samples, times, time_stride, space_stride } = selection;
        if *time_stride == 0 || *space_stride == 0 {
            return data("a stride of 0 selects nothing; strides begin at 1.".to_owned());
        }
        if samples.is_empty() || samples.end > self.samples {
            return data(format!(
                "samples {} to {} are wanted, and there are {}.",
                samples.start, samples.end, self.samples
            ));
        }
        if times.is_empty() || times.end > self.times {
            return data(format!(
                "frames {} to {} are wanted, and there are {}.",
                times.start, times.end, self.times
            ));
        }
        let selected = selection.shape(self);
        if selected.times < frames {
            return data(format!(
                "the time axis is too short: of its {} frames every {}. makes {}, and {frames} are needed.",
                times.len(),
                time_stride,
                selected.times
            ));
        }
        if selected.grid.iter().any(|points| *points < 2) {
            return data(format!(
                "of a grid of {} points every {space_stride}. leaves fewer than two along an axis.",
                text::shape(&self.grid)
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { samples: 3, times: 21, grid: vec![16, 12], channels: vec!["density".to_owned()] }
    }

    #[test]
    fn selections_have_a_shape() {
        let selection = Selection { samples: 1..3, times: 1..21, time_stride: 5, space_stride: 8 };
        let selected = selection.shape(&shape());
        assert_eq!((selected.samples, selected.times, selected.grid.as_slice()), (2, 4, &[2, 2][..]));
        assert_eq!(selected.elements(), 32);
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_figures() {
        let all = Selection::all(&shape());
        let message = |change: &dyn Fn(&mut Selection), frames| {
            let mut selection = all.clone();
            change(&mut selection);
            match shape().check(&selection, frames, Path::new("f.h5")) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(message(&|_| (), 21), "");
        assert_eq!(message(&|s| s.samples = 2..5, 1), "f.h5: samples 2 to 5 are wanted, and there are 3.");
        assert_eq!(message(&|s| s.times = 0..22, 1), "f.h5: frames 0 to 22 are wanted, and there are 21.");
        let short = "f.h5: the time axis is too short: of its 21 frames every 5. makes 5, and 11 are needed.";
        assert_eq!(message(&|s| s.time_stride = 5, 11), short);
        assert!(message(&|s| s.time_stride = 0, 1).contains("a stride of 0"));
        assert!(
            message(&|s| s.space_stride = 12, 1).contains("of a grid of 16×12 points every 12. leaves fewer")
        );
        assert!(message(&|s| s.samples = 2..2, 1).contains("samples 2 to 2"));
    }
}
