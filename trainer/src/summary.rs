//! What a run says at its end, or before its start: tables for people, `report.json` for programs.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use evenkeel::Report;
use evenkeel::balance::{Plan, Stopped};
use evenkeel::rebalance::options::Options;
use evenkeel::text::{number, printable};
use serde::Serialize;
use serde_json::Value;

use crate::training::{Finished, Score};

/// The content of `report.json`.
#[derive(Serialize)]
pub struct Summary<'a> {
    /// The version of this layout.
    pub schema: u32,
    /// Why training ended, as data.
    pub stopped: Stopped,
    /// The same as a sentence.
    pub why: String,
    /// Whether the target was reached; `null` without one.
    pub target_reached: Option<bool>,
    /// Optimizer steps done.
    pub steps: u64,
    /// Seconds in training steps.
    pub seconds: f64,
    /// Of these, waiting for spectra.
    pub seconds_spectra: f64,
    /// Scores before the first step.
    pub before: &'a [Score],
    /// Scores of the result.
    pub after: &'a [Score],
    /// What a problem has to say of its result beside the scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// The alpha STD of the model that was started from.
    pub alpha_std_before: Option<f64>,
    /// The alpha STD of the result.
    pub alpha_std_after: Option<f64>,
    /// What was asked for.
    pub options: &'a Options,
    /// The spectra that the run started from.
    pub spectra_before: &'a Report,
    /// The spectra of the result: what `evenkeel analyze` says of the output directory.
    pub spectra_after: &'a Report,
}

impl<'a> Summary<'a> {
    /// Puts the report together.
    pub fn new(
        options: &'a Options,
        finished: &'a Finished,
        details: Option<Value>,
        before: &'a Report,
        after: &'a Report,
    ) -> Summary<'a> {
        Summary {
            schema: 1,
            stopped: finished.stopped,
            why: finished.stopped.sentence(),
            target_reached: options.stop.target.map(|_| finished.stopped.reached_target()),
            steps: finished.steps,
            seconds: finished.seconds.0,
            seconds_spectra: finished.seconds.1,
            before: &finished.before,
            after: &finished.result,
            details,
            alpha_std_before: before.summary.alpha_std,
            alpha_std_after: after.summary.alpha_std,
            options,
            spectra_before: before,
            spectra_after: after,
        }
    }

    /// For the terminal.
    pub fn table(&self) -> String {
        let mut table = new_table(&["", "before", "after", "change"]);
        let after = &self.spectra_after.blocks;
        for block in &self.spectra_before.blocks {
            // Names may have gained a prefix with the head.
            let same =
                |other: &&evenkeel::report::Block| other.stack == block.stack && other.index == block.index;
            let now = after.iter().find(same).and_then(|other| other.alpha);
            row(&mut table, &printable(&block.name), block.alpha, now, 4);
        }
        row(&mut table, "alpha STD", self.alpha_std_before, self.alpha_std_after, 6);
        for score in self.after {
            let before = self.before.iter().find(|other| other.name == score.name).map(|other| other.value);
            let change = before.map_or_else(String::new, |before| signed(score.value - before));
            let shown = [
                score.name.clone(),
                before.map_or_else(|| "–".to_owned(), number),
                number(score.value),
                change,
            ];
            table.add_row(shown);
            align(&mut table);
        }
        let spectra = if self.seconds > 0.0 { 100.0 * self.seconds_spectra / self.seconds } else { 0.0 };
        format!(
            "{table}\n{}\n{} steps in {}, {spectra:.1} % of it for spectra.",
            self.why,
            self.steps,
            duration(self.seconds)
        )
    }
}

/// The units with their alphas and the rates that they would get: `--dry-run`.
pub fn rates(plan: &Plan, alphas: &[Option<f64>], factors: &[f64], peak: f64) -> Table {
    let mut table = new_table(&["unit", "tensors", "alpha", "factor", "highest rate"]);
    for (position, unit) in plan.units.iter().enumerate() {
        let tensors = plan.of_parameter.iter().filter(|of| **of == Some(position)).count();
        let alpha = alphas.get(position).copied().flatten();
        let factor = factors.get(position).copied().unwrap_or(1.0);
        table.add_row([
            printable(&unit.name).into_owned(),
            tensors.to_string(),
            alpha.map_or_else(|| "–".to_owned(), |a| format!("{a:.4}")),
            if unit.excluded { "excluded".to_owned() } else { format!("{factor:.4}") },
            format!("{:.3e}", peak * factor),
        ]);
    }
    let outside = plan.of_parameter.iter().filter(|of| of.is_none()).count();
    table.add_row(["all others", &outside.to_string(), "", "1", &format!("{peak:.3e}")]);
    align(&mut table);
    table
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    align(&mut table);
    table
}

/// Numbers stand to the right.
fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A change as [`number`] shows it, with its sign.
fn signed(change: f64) -> String {
    format!("{}{}", if change < 0.0 { "" } else { "+" }, number(change))
}

fn row(table: &mut Table, name: &str, before: Option<f64>, after: Option<f64>, digits: usize) {
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"));
    let change = before.zip(after).map(|(before, after)| format!("{:+.digits$}", after - before));
    table.add_row([name.to_owned(), show(before), show(after), change.unwrap_or_default()]);
    align(table);
}

/// `1 h 02 min`, `3 min 20 s`, `4.2 s`.
pub fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        3600.. => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        60.. => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(
            ["4.2 s", "3 min 20 s", "1 h 02 min"],
            [4.24, 200.0, 3725.0].map(duration).each_ref().map(String::as_str)
        );
    }
}
