//! `evenkeel inspect`.

use anyhow::Result;
use evenkeel::{Settings, inventory};

use super::args::InspectOptions;
use super::{Verdict, output};

pub fn run(options: &InspectOptions) -> Result<Verdict> {
    let checkpoint = options.input.open()?;
    output::refuse_input(options.destination.output.as_deref(), &checkpoint)?;
    let settings = Settings {
        selection: options.selection.resolve(),
        min_eigenvalues: options.selection.min_eigenvalues,
        block_pattern: options.selection.block_pattern.clone(),
        ..Settings::default()
    };
    let inventory = inventory(&checkpoint, &settings)?;
    let rendered = options.destination.exporter()?.inventory(&inventory)?;
    output::write(&rendered, options.destination.output.as_deref())?;
    Ok(Verdict::Done)
}
