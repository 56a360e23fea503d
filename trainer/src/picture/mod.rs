//! The picture of a run: what its log says, drawn over the optimizer steps.
//!
//! ```text
//! log.jsonl ── rows.rs ── panels.rs (which, and what is in them) ── draw.rs ── run.svg
//!                                    scale.rs (ranges and ticks)
//! ```
//!
//! It is drawn from the log alone, so that a resumed run has the picture of the whole run.

mod draw;
mod panels;
mod rows;
mod scale;

use std::path::Path;

use evenkeel::text::{number, printable};

use crate::error::{Error, Result};
pub(crate) use panels::colour;
use rows::Row;

/// The picture's file name.
pub const PICTURE: &str = "run.svg";

/// What a picture shows besides the log.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// What was trained on what.
    pub title: &'a str,
    /// The units, in the order of the log.
    pub units: &'a [String],
    /// The scores before the first step, by name.
    pub before: &'a [(String, f64)],
    /// The alpha STD before the first step.
    pub start_std: Option<f64>,
    /// The alpha STD to reach.
    pub target_std: Option<f64>,
    /// Optimizer steps of an epoch.
    pub steps_per_epoch: u64,
}

/// Draws the log of a directory into [`PICTURE`] there: written beside its place, and then into it. Without
/// a logged step there is nothing to draw, and nothing is written.
///
/// # Errors
/// Those of reading and writing.
pub fn draw(directory: &Path, heading: &Heading) -> Result<()> {
    let log = directory.join("log.jsonl");
    let rows = rows::read(&log)?;
    let Some(last) = rows.last() else { return Ok(()) };
    let place = directory.join(PICTURE);
    let panels = panels::panels(heading, &rows);
    let texts = draw::Texts {
        title: printable(heading.title).into_owned(),
        subtitle: subtitle(heading, last, &rows),
        axis: format!("optimizer step (an epoch has {})", heading.steps_per_epoch),
    };
    let svg = draw::svg(&texts, &panels, last.step, heading.steps_per_epoch)
        .map_err(|reason| Error::io("draw", &place)(std::io::Error::other(reason)))?;
    let partial = directory.join("run.svg.partial");
    std::fs::write(&partial, svg).map_err(Error::io("write", &partial))?;
    std::fs::rename(&partial, &place).map_err(Error::io("write", &place))
}

/// What came of it so far, in a line.
fn subtitle(heading: &Heading, last: &Row, rows: &[Row]) -> String {
    let mut parts = vec![format!("{} steps", last.step)];
    let std = rows.iter().rev().find_map(|row| row.alpha_std);
    if let (Some(start), Some(now)) = (heading.start_std, std) {
        let change = 100.0 * (now / start - 1.0);
        parts.push(format!("alpha STD {start:.4} → {now:.4} ({change:+.1} %)"));
    }
    if let Some((name, before)) = heading.before.first() {
        let now = rows.iter().rev().find_map(|row| row.score(name));
        parts.extend(now.map(|now| format!("{} {} → {}", printable(name), number(*before), number(now))));
    }
    parts.join("  ·  ")
}

#[cfg(test)]
mod tests;
