//! Tensors in a torch file, as neuraloperator's package brings its data sets.
//!
//! | set | tensors | trajectories |
//! |---|---|---|
//! | pairs, such as Darcy flow | `x`, `y` [N, X(, Y)] | two frames: the input, and what is to be found |
//! | Burgers' equation | `output` [N, T, X(, Y)], beside its first frame `input` | one channel |
//! | others | `tensor` [N, T, X(, Y)] | one channel |

use std::path::{Path, PathBuf};

use evenkeel::tensors::{Dtype, Tensor as Stored};
use evenkeel::text::{self, printable};
use evenkeel::{Checkpoint, OpenOptions};
use tch::{Kind, Tensor};

use super::{Selection, Shape, Source};
use crate::error::{Error, Result};
use crate::model::lengths;

/// The most tensors that a message lists.
const LISTED: usize = 12;

/// A torch file with fields.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    checkpoint: Checkpoint,
    shape: Shape,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// The positions of input and target, [N, X(, Y)] each.
    Pairs([usize; 2]),
    /// The position of the trajectories, [N, T, X(, Y)].
    Trajectories(usize),
}

impl TorchFile {
    /// Opens a file by the library's own reader of torch files, which runs nothing in it.
    ///
    /// # Errors
    /// [`Error::Data`] where the tensors are not there (with a list of those there are) or have other shapes;
    /// those of the reader.
    pub fn open(path: &Path) -> Result<TorchFile> {
        let checkpoint = Checkpoint::open(path, &OpenOptions::default())?;
        let wrong = |reason: String| Error::Data { path: path.to_path_buf(), reason };
        let position = |name: &str| checkpoint.tensors().iter().position(|tensor| tensor.name == name);
        let found = |position: usize| checkpoint.tensors().get(position);
        let (name, layout) = match (position("x"), position("y"), position("output").or(position("tensor"))) {
            (Some(x), Some(y), _) => (y, Layout::Pairs([x, y])),
            (_, _, Some(all)) => (all, Layout::Trajectories(all)),
            _ => {
                return Err(wrong(format!(
                    "it has neither `x` and `y` nor `output` or `tensor`, but {}.",
                    listed(&checkpoint)
                )));
            }
        };
        let dims = found(name).map_or(&[][..], |tensor| &tensor.shape);
        let (samples, times, grid) = match (&layout, dims) {
            (Layout::Pairs(_), [samples, grid @ ..]) => (*samples, 2, grid),
            (Layout::Trajectories(_), [samples, times, grid @ ..]) => (*samples, *times, grid),
            _ => (0, 0, &[][..]),
        };
        let name = found(name).map_or("", |tensor| tensor.name.as_str());
        if !(1..=2).contains(&grid.len()) || dims.contains(&0) {
            return Err(wrong(format!(
                "`{}` has the shape {}; {} is read.",
                printable(name),
                text::shape(dims),
                if times == 2 { "[N, X] or [N, X, Y]" } else { "[N, T, X] or [N, T, X, Y]" }
            )));
        }
        if let Layout::Pairs([x, _]) = layout
            && let Some(x) = found(x).filter(|x| x.shape != dims)
        {
            return Err(wrong(format!(
                "`x` has the shape {}, which does not go with {} of `y`.",
                text::shape(&x.shape),
                text::shape(dims)
            )));
        }
        let shape = Shape { samples, times, grid: grid.to_vec(), channels: vec![name.to_owned()] };
        Ok(TorchFile { path: path.to_path_buf(), shape, layout, checkpoint })
    }

    /// Some samples of a tensor in single precision, [samples, all other dimensions].
    fn rows(&self, position: usize, samples: &std::ops::Range<usize>) -> Result<Tensor> {
        let wrong = |reason: String| Error::Data { path: self.path.clone(), reason };
        let tensor: &Stored = (self.checkpoint.tensors().get(position))
            .ok_or_else(|| wrong("a tensor is no longer there.".to_owned()))?;
        let kind = match tensor.dtype {
            Dtype::Bool => Kind::Bool,
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let name = printable(&tensor.name);
                return Err(wrong(format!("`{name}` is of type {}; fields are real numbers.", other.name())));
            }
        };
        let row: usize = tensor.shape.iter().skip(1).product();
        let bytes = self.checkpoint.read(tensor, samples.start * row..samples.end * row)?;
        let shape: Vec<usize> =
            std::iter::once(samples.len()).chain(tensor.shape.iter().skip(1).copied()).collect();
        let values = Tensor::f_from_data_size(&bytes, &lengths(&shape), kind)?.f_to_kind(Kind::Float)?;
        let finite = values.f_isfinite()?;
        let odd = values.numel() as i64 - finite.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        if odd > 0 {
            let all = finite.f_view([samples.len() as i64, -1])?.f_all_dim(1, false)?;
            let sample =
                samples.start as i64 + all.f_to_kind(Kind::Int64)?.f_argmin(0, false)?.f_int64_value(&[])?;
            return Err(wrong(format!(
                "`{}` holds NaN or infinity, first in sample {sample} ({odd} of the {} numbers read); such samples \
                 cannot be learned from.",
                printable(&tensor.name),
                values.numel()
            )));
        }
        Ok(values)
    }
}

/// The tensors of a file, for a message.
fn listed(checkpoint: &Checkpoint) -> String {
    let all = checkpoint.tensors();
    let mut there: Vec<String> = (all.iter().take(LISTED))
        .map(|tensor| format!("{} {}", printable(&tensor.name), text::shape(&tensor.shape)))
        .collect();
    if all.len() > LISTED {
        there.push("…".to_owned());
    }
    there.join(", ")
}

impl Source for TorchFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn read(&self, selection: &Selection) -> Result<Vec<f32>> {
        self.shape.check(selection, 1, &self.path)?;
        let Selection { samples, times, time_stride, space_stride } = selection;
        let frames = match self.layout {
            Layout::Pairs([x, y]) => Tensor::f_stack(&[self.rows(x, samples)?, self.rows(y, samples)?], 1)?,
            Layout::Trajectories(all) => self.rows(all, samples)?,
        };
        let (from, to) = (times.start as i64, times.end as i64);
        let mut part = frames.f_slice(1, from, to, *time_stride as i64)?;
        for axis in (2..).take(self.shape.grid.len()) {
            part = part.f_slice(axis, 0, None, *space_stride as i64)?;
        }
        Ok(Vec::<f32>::try_from(part.f_reshape([-1])?.f_contiguous()?)?)
    }
}
