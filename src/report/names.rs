//! The names in a report come out of the checkpoint, and may be of any length: here they are bounded,
//! once, so that no format writes a name of megabytes many times over.
//!
//! Equal names stay equal and different ones different (see [`bounded`]), so that what refers to a
//! block or a stack by its name still does.

use std::borrow::Cow;

use super::{Inventory, Report};
use crate::text::bounded;

impl Report {
    /// Bounds every text that a checkpoint could make long; what the user gave stays as it is.
    pub(crate) fn bound_names(&mut self) {
        self.checkpoint.architecture.iter_mut().for_each(bound);
        self.stacks.iter_mut().for_each(|stack| bound(&mut stack.name));
        for block in &mut self.blocks {
            bound(&mut block.name);
            bound(&mut block.stack);
        }
        for matrix in &mut self.matrices {
            let lists = matrix.tensors.iter_mut().chain(&mut matrix.aliases);
            let parts = matrix.part.iter_mut().chain(&mut matrix.block);
            lists.chain(parts).for_each(bound);
            bound(&mut matrix.name);
        }
        for skipped in &mut self.skipped {
            skipped.aliases.iter_mut().for_each(bound);
            bound(&mut skipped.name);
            bound(&mut skipped.reason);
        }
    }
}

impl Inventory {
    /// As [`Report::bound_names`].
    pub(crate) fn bound_names(&mut self) {
        self.checkpoint.architecture.iter_mut().for_each(bound);
        for tensor in &mut self.tensors {
            tensor.stack.iter_mut().chain(&mut tensor.block).for_each(bound);
            bound(&mut tensor.name);
            bound(&mut tensor.analysed);
        }
        for part in &mut self.left_out {
            bound(&mut part.name);
            bound(&mut part.reason);
        }
    }
}

fn bound(text: &mut String) {
    if let Cow::Owned(cut) = bounded(text) {
        *text = cut;
    }
}
