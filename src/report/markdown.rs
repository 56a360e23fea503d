//! Markdown: for pull requests and model cards.

use super::rows::{self, Grid};
use super::{Exporter, Inventory, Per, Report};
use crate::error::Result;

/// GitHub's tables.
pub struct Markdown;

impl Exporter for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn report(&self, report: &Report, per: Option<Per>) -> Result<Vec<u8>> {
        let mut text = format!("### {}\n\n", escape(&rows::headline(&report.checkpoint)));
        for stack in &report.stacks {
            text.push_str(&format!("- {}\n", escape(&rows::stack_line(report, stack))));
        }
        text.push('\n');
        text.push_str(&draw(&rows::grid(report, per.unwrap_or(Per::Block))));
        for note in rows::footnotes(report) {
            text.push_str(&format!("\n{}\n", escape(&note)));
        }
        if let Some(gate) = &report.gate {
            let verdict = if gate.passed { "**passed**" } else { "**failed**" };
            text.push_str(&format!("\nGate {verdict}\n\n"));
            for finding in gate.describe() {
                text.push_str(&format!("- {}\n", escape(&finding)));
            }
        }
        Ok(text.into_bytes())
    }

    fn shows_findings(&self) -> bool {
        true
    }

    fn inventory(&self, inventory: &Inventory) -> Result<Vec<u8>> {
        let headline = escape(&rows::headline(&inventory.checkpoint));
        let mut text = format!("### {headline}\n\n{}", draw(&rows::inventory_grid(inventory)));
        for line in rows::left_out(inventory) {
            text.push_str(&format!("\n{}\n", escape(&line)));
        }
        Ok(text.into_bytes())
    }
}

fn draw(grid: &Grid) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(grid.header.iter().map(|h| (*h).to_owned()).collect());
    let rule = |i: usize| if i < grid.text_columns { "---" } else { "---:" }.to_owned();
    text.push_str(&line((0..grid.header.len()).map(rule).collect()));
    for row in &grid.rows {
        text.push_str(&line(row.iter().map(|cell| escape(cell)).collect()));
    }
    text
}

/// A backslash before everything that Markdown or the HTML inside it could take for markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' => {
                safe.push('\\');
                safe.push(c);
            }
            _ => safe.push(c),
        }
    }
    safe
}
