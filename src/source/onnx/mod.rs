//! Reader of ONNX models: the weights in their graphs, under the names of the modules they belong to.
//!
//! The file is one Protocol Buffers message ([`wire`], [`model`]). Its data stay where they are
//! ([`values`], [`external`]); where the graph says how a weight is used ([`flow`]), that decides
//! its name ([`names`]), which way round it is seen, and which scales belong to it ([`scales`]).
//! [`weights`] puts all of this together.

mod encodings;
mod external;
mod flow;
mod model;
mod names;
mod quantised;
mod recurrent;
mod scales;
mod values;
mod weights;
mod wire;

use std::path::Path;

use super::problem::Checked;
use super::{Contents, Files, Format, OpenOptions};
use crate::error::Result;
use flow::Flow;
use values::Places;
use wire::Wire;

/// The ONNX format.
pub struct Onnx;

impl Format for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn usual_name(&self) -> &'static str {
        "model.onnx"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".onnx"]
    }

    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        let by_name = path.extension().is_some_and(|e| e == "onnx");
        begins_like_a_model(head) || by_name && super::foreign(head).is_none()
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let path = files.get(file)?.path().to_path_buf();
        contents(files, file).map_err(|problem| problem.of(&path, "onnx"))
    }
}

fn contents(files: &mut Files, file: usize) -> Checked<Contents> {
    let model = model::read(&Wire::new(files.get(file)?))?;
    let externals = external::open(files, file, &model)?;
    let wire = Wire::new(files.get(file)?);
    let flow = Flow::of(&model)?;
    weights::contents(&flow, &Places { wire: &wire, file, externals })
}

/// There is no magic number. A model begins with its small version number (field 1), and the next
/// field is the producer's name (field 2) of a few printable letters, then another known field.
/// (TensorFlow's SavedModel has the same first fields, but a graph for the second.)
fn begins_like_a_model(head: &[u8]) -> bool {
    let [0x08, 3..=63, 0x12, length, rest @ ..] = head else { return false };
    let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else { return false };
    let letters = name.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    letters && *length < 64 && matches!(rest, [0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
}
