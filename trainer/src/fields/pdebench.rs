//! HDF5 files in the layout of PDEBench (Takamoto et al. 2022).
//!
//! | set | datasets | trajectories |
//! |---|---|---|
//! | compressible flow | `density`, `pressure`, `Vx`, `Vy` [N, T, X(, Y)] | one channel for each |
//! | Darcy flow | `nu` [N, X, Y], `tensor` [N, 1, X, Y] | two frames: the coefficient, and the solution |
//! | others (Burgers, advection, …) | `tensor` [N, T, X(, Y)] | one channel |

use std::path::{Path, PathBuf};

use evenkeel::source::hdf5::{Array, Hdf5, Span};
use evenkeel::text::{self, printable};

use super::{Selection, Shape, Source};
use crate::error::{Error, Result};

/// The channels of compressible flow; those of one axis are the first three.
const FLOW: [&str; 4] = ["density", "pressure", "Vx", "Vy"];
/// The coefficient of Darcy flow.
const COEFFICIENT: &str = "nu";
/// All else.
const TENSOR: &str = "tensor";

/// The most datasets that a message lists.
const LISTED: usize = 12;

/// A file in one of PDEBench's layouts.
#[derive(Debug)]
pub struct PdeBench {
    path: PathBuf,
    shape: Shape,
    layout: Layout,
    /// Of each axis; those of a file that has them for some axes only are not taken.
    coordinates: Option<Vec<Vec<f32>>>,
}

#[derive(Debug)]
enum Layout {
    /// One array for each channel, [N, T, X(, Y)].
    Channels(Vec<Array>),
    /// The coefficient [N, X, Y] and the solution [N, 1, X, Y].
    Darcy(Box<[Array; 2]>),
}

impl PdeBench {
    /// Opens a file and checks that its datasets have one shape; none of their numbers is read.
    ///
    /// # Errors
    /// [`Error::Data`] where datasets are missing (with a list of those there are) or their shapes disagree;
    /// those of the HDF5 reader.
    pub fn open(path: &Path) -> Result<PdeBench> {
        let file = Hdf5::open(path)?;
        let has = |name: &str| file.names().any(|(found, _)| found == name);
        let opened = Opened { file: &file, path };
        let (shape, layout) = if FLOW.iter().any(|name| has(name)) {
            opened.flow()?
        } else if has(COEFFICIENT) {
            opened.darcy()?
        } else {
            opened.tensor()?
        };
        if shape.elements() == 0 {
            return Err(opened.error("its datasets hold no elements.".to_owned()));
        }
        let coordinates = opened.coordinates(&shape.grid)?;
        Ok(PdeBench { path: path.to_path_buf(), shape, layout, coordinates })
    }
}

/// A file while it is opened.
struct Opened<'a> {
    file: &'a Hdf5,
    path: &'a Path,
}

impl Opened<'_> {
    fn error(&self, reason: String) -> Error {
        Error::Data { path: self.path.to_path_buf(), reason }
    }

    fn array(&self, name: &str) -> Result<Array> {
        if let Some(array) = self.file.array(name)? {
            return Ok(array);
        }
        let mut there: Vec<String> = (self.file.names().take(LISTED))
            .map(|(name, shape)| format!("{} {}", printable(name), text::shape(shape)))
            .collect();
        if self.file.names().count() > LISTED {
            there.push("…".to_owned());
        }
        Err(self.error(format!(
            "it has no dataset `{name}`, but {}. In PDEBench's layout compressible flow has density, pressure, Vx (and \
             Vy), Darcy flow has nu and tensor, and other sets have tensor.",
            if there.is_empty() { "none at all".to_owned() } else { there.join(", ") }
        )))
    }

    /// `x-coordinate` (and `y-coordinate`), a number for each point.
    fn coordinates(&self, grid: &[usize]) -> Result<Option<Vec<Vec<f32>>>> {
        let mut all = Vec::with_capacity(grid.len());
        for (axis, points) in ["x", "y"].into_iter().zip(grid) {
            let Some(array) = self.file.array(&format!("{axis}-coordinate"))? else { return Ok(None) };
            if array.shape() != [*points] {
                return Err(self.error(format!(
                    "`{}` has the shape {}, and the grid {} points along this axis.",
                    array.name(),
                    text::shape(array.shape()),
                    points
                )));
            }
            all.push(array.read(&[Span::every(1, 0..*points)])?);
        }
        Ok(Some(all))
    }

    /// Compressible flow: the arrays' rank says on how many axes.
    fn flow(&self) -> Result<(Shape, Layout)> {
        let density = self.array("density")?;
        let (samples, times, grid) = self.axes(&density)?;
        let mut arrays = vec![density];
        for name in FLOW.iter().take(2 + grid.len()).skip(1) {
            let array = self.array(name)?;
            let agree = arrays.first().is_some_and(|first| first.shape() == array.shape());
            self.agree(agree, &array, &arrays)?;
            arrays.push(array);
        }
        let channels = arrays.iter().map(|array| array.name().to_owned()).collect();
        Ok((Shape { samples, times, grid, channels }, Layout::Channels(arrays)))
    }

    fn tensor(&self) -> Result<(Shape, Layout)> {
        let tensor = self.array(TENSOR)?;
        let (samples, times, grid) = self.axes(&tensor)?;
        let channels = vec![TENSOR.to_owned()];
        Ok((Shape { samples, times, grid, channels }, Layout::Channels(vec![tensor])))
    }

    fn darcy(&self) -> Result<(Shape, Layout)> {
        let (nu, tensor) = (self.array(COEFFICIENT)?, self.array(TENSOR)?);
        let &[samples, x, y] = nu.shape() else {
            return Err(self.error(format!(
                "`{COEFFICIENT}` has the shape {}; Darcy flow has [N, X, Y].",
                text::shape(nu.shape())
            )));
        };
        self.agree(tensor.shape() == [samples, 1, x, y], &tensor, std::slice::from_ref(&nu))?;
        let channels = vec![TENSOR.to_owned()];
        Ok((Shape { samples, times: 2, grid: vec![x, y], channels }, Layout::Darcy(Box::new([nu, tensor]))))
    }

    /// Samples, times and grid of an array [N, T, X(, Y)].
    fn axes(&self, array: &Array) -> Result<(usize, usize, Vec<usize>)> {
        match array.shape() {
            [samples, times, grid @ ..] if matches!(grid.len(), 1 | 2) => {
                Ok((*samples, *times, grid.to_vec()))
            }
            shape => Err(self.error(format!(
                "`{}` has the shape {}; [N, T, X] or [N, T, X, Y] is read.",
                array.name(),
                text::shape(shape)
            ))),
        }
    }

    fn agree(&self, agree: bool, array: &Array, others: &[Array]) -> Result<()> {
        let Some(other) = others.first().filter(|_| !agree) else { return Ok(()) };
        Err(self.error(format!(
            "`{}` has the shape {}, which does not go with {} of `{}`.",
            array.name(),
            text::shape(array.shape()),
            text::shape(other.shape()),
            other.name()
        )))
    }
}

impl Source for PdeBench {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn coordinates(&self) -> Option<&[Vec<f32>]> {
        self.coordinates.as_deref()
    }

    fn read(&self, selection: &Selection) -> Result<Vec<f32>> {
        self.shape.check(selection, 1, &self.path)?;
        let samples = Span::every(1, selection.samples.clone());
        let times = Span::every(selection.time_stride, selection.times.clone());
        let space = self.shape.grid.iter().map(|points| Span::every(selection.space_stride, 0..*points));
        match &self.layout {
            Layout::Channels(arrays) => {
                let spans: Vec<Span> = [samples, times].into_iter().chain(space).collect();
                let selected = selection.shape(&self.shape);
                let mut out = vec![0.0; selected.elements()];
                for (channel, array) in arrays.iter().enumerate() {
                    let numbers = self.finite(array, &spans)?;
                    let places = out.iter_mut().skip(channel).step_by(arrays.len());
                    places.zip(numbers).for_each(|(place, number)| *place = number);
                }
                Ok(out)
            }
            Layout::Darcy(arrays) => {
                let space: Vec<Span> = space.collect();
                self.read_pairs(arrays, samples, times, &space)
            }
        }
    }
}

impl PdeBench {
    /// Frame 0 is the coefficient, frame 1 the solution.
    fn read_pairs(
        &self,
        [nu, tensor]: &[Array; 2],
        samples: Span,
        times: Span,
        space: &[Span],
    ) -> Result<Vec<f32>> {
        let only = Span { start: 0, count: 1, step: 1 };
        let frames: Vec<Vec<f32>> = (0..times.count)
            .map(|n| match times.start + n * times.step {
                0 => self.finite(nu, &[&[samples], space].concat()),
                _ => self.finite(tensor, &[&[samples, only], space].concat()),
            })
            .collect::<Result<_>>()?;
        let points: usize = space.iter().map(|span| span.count).product();
        let mut out = Vec::with_capacity(frames.iter().map(Vec::len).sum());
        for sample in 0..samples.count {
            for frame in &frames {
                out.extend_from_slice(frame.get(sample * points..(sample + 1) * points).unwrap_or_default());
            }
        }
        Ok(out)
    }

    /// A part of an array; none of its numbers may be NaN or infinite.
    fn finite(&self, array: &Array, spans: &[Span]) -> Result<Vec<f32>> {
        let numbers = array.read(spans)?;
        let Some(odd) = numbers.iter().position(|number| !number.is_finite()) else { return Ok(numbers) };
        // Its place in the file.
        let mut rest = odd;
        let mut place: Vec<usize> = Vec::with_capacity(spans.len());
        for span in spans.iter().rev() {
            place.push(span.start + rest % span.count * span.step);
            rest /= span.count;
        }
        place.reverse();
        let count = numbers.iter().filter(|number| !number.is_finite()).count();
        Err(Error::Data {
            path: self.path.clone(),
            reason: format!(
                "`{}` holds NaN or infinity at {place:?} ({} of the {} numbers read); such samples cannot be learned \
                 from.",
                array.name(),
                count,
                numbers.len()
            ),
        })
    }
}
