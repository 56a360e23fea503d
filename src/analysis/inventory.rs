//! What a checkpoint holds, without reading a single weight.

use crate::error::Result;
use crate::report::{self, Inventory, InventoryRow};
use crate::source::{Checkpoint, LeftOut};

use super::{Layout, Settings, assemble};

/// Lists the tensors of a checkpoint, the block of each, and what an analysis would do with it.
///
/// # Errors
/// [`crate::Error::Setting`] where the settings have no meaning, [`crate::Error::Changed`] where a
/// file is not what it was when it was opened.
pub fn inventory(checkpoint: &Checkpoint, settings: &Settings) -> Result<Inventory> {
    settings.check()?;
    let settings = &settings.for_model(checkpoint);
    let layout = Layout::of(checkpoint, settings)?;
    let mut uses: Vec<String> = vec![String::new(); checkpoint.tensors().len()];
    for skip in &layout.plan.skipped {
        if let Some(text) = uses.get_mut(skip.tensor) {
            *text = format!("skipped: {}", skip.reason);
        }
    }
    for (tensor, text) in uses.iter_mut().enumerate() {
        // The matrices of one tensor stand together, in the order of the tensors.
        let first = layout.plan.matrices.partition_point(|m| m.tensor < tensor);
        let end = layout.plan.matrices.partition_point(|m| m.tensor <= tensor);
        let parts = layout.plan.matrices.get(first..end).unwrap_or_default();
        if let Some(matrix) = parts.first() {
            let role = matrix.role.name();
            let (rows, cols) = (matrix.rows(), matrix.cols());
            *text = match (parts.len(), matrix.pooled) {
                (1, 1) => role.to_owned(),
                (1, pooled) => format!("{role}: {pooled} × {rows}×{cols} pooled"),
                (count, _) => format!("{role}: {count} parts"),
            };
            if matrix.eigenvalues() < settings.least() {
                text.push_str(&format!(" (fewer than {} eigenvalues)", settings.least()));
            }
            if matrix.unsplit {
                text.push_str(" (fused, not split)");
            }
        }
    }
    let row = |(tensor, analysed): (&crate::tensors::Tensor, String)| {
        let block = layout.naming.block_of(&tensor.name);
        InventoryRow {
            name: tensor.name.clone(),
            dtype: tensor.stored_as(),
            shape: tensor.shape.clone(),
            bytes: tensor.stored_bytes(),
            file: checkpoint.files().get(tensor.file()).map_or(String::new(), |f| f.name().to_owned()),
            stack: block.as_ref().map(|b| b.stack.clone()),
            block: block.map(|b| b.name),
            analysed,
        }
    };
    let left_out = |part: &LeftOut| report::LeftOut { name: part.name.clone(), reason: part.reason.clone() };
    let mut inventory = Inventory {
        checkpoint: assemble::describe(checkpoint, &layout),
        tensors: checkpoint.tensors().iter().zip(uses).map(row).collect(),
        left_out: checkpoint.left_out().iter().map(left_out).collect(),
    };
    inventory.bound_names();
    checkpoint.verify_unchanged()?;
    Ok(inventory)
}
