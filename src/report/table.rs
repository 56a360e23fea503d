//! The terminal table: blocks with a bar each, so that an imbalance is seen at a glance.

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::rows::{self, Grid};
use super::{Block, Exporter, Inventory, Per, Report};
use crate::error::Result;
use crate::text::printable;

/// Half the width of a bar, in characters.
const HALF: usize = 12;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
/// Below the mean: heavier tail, further trained.
const LOW: Style = AnsiColor::Cyan.on_default();
/// Above the mean: lighter tail, less trained.
const HIGH: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The default format, for people at a terminal.
pub struct Table;

impl Exporter for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn report(&self, report: &Report, per: Option<Per>) -> Result<Vec<u8>> {
        let mut text = format!("{}\n\n", styled(BOLD, &rows::headline(&report.checkpoint)));
        match per.unwrap_or(Per::Block) {
            Per::Block => text.push_str(&blocks(report)),
            Per::Matrix => text.push_str(&draw(&rows::grid(report, Per::Matrix))),
        }
        text.push('\n');
        for stack in &report.stacks {
            text.push_str(&format!("{}\n", styled(BOLD, &rows::stack_line(report, stack))));
        }
        if per != Some(Per::Matrix) && !report.blocks.is_empty() {
            let scale = format!("a full bar is {:.4} from its stack's mean", full_bar(report));
            text.push_str(&format!("{}\n", styled(DIM, &scale)));
        }
        for note in rows::footnotes(report) {
            text.push_str(&format!("{}\n", styled(DIM, &note)));
        }
        if let Some(gate) = &report.gate {
            let verdict = if gate.passed { styled(GOOD, "gate passed") } else { styled(BAD, "gate failed") };
            text.push_str(&format!("\n{verdict}\n"));
            for finding in gate.describe() {
                text.push_str(&format!("  {finding}\n"));
            }
        }
        Ok(text.into_bytes())
    }

    fn shows_findings(&self) -> bool {
        true
    }

    fn inventory(&self, inventory: &Inventory) -> Result<Vec<u8>> {
        let headline = styled(BOLD, &rows::headline(&inventory.checkpoint));
        let mut text = format!("{headline}\n\n{}", draw(&rows::inventory_grid(inventory)));
        for (position, line) in rows::left_out(inventory).iter().enumerate() {
            let gap = if position == 0 { "\n" } else { "" };
            text.push_str(&format!("{gap}{}\n", styled(DIM, line)));
        }
        Ok(text.into_bytes())
    }
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// One table a stack: bars are comparable within it, and on one scale across stacks.
fn blocks(report: &Report) -> String {
    let grid = rows::grid(report, Per::Block);
    let full = full_bar(report);
    let mut text = String::new();
    // The blocks stand stack after stack, in the stacks' order.
    let mut rows = report.blocks.iter().zip(&grid.rows);
    for stack in &report.stacks {
        let mut table = new_table();
        let mut header: Vec<String> = grid.header.iter().map(|h| (*h).to_owned()).collect();
        header.insert(3, axis_label());
        table.set_header(header);
        for (block, row) in rows.by_ref().take(stack.blocks) {
            let mut row = row.clone();
            row.insert(3, bar(block, full));
            table.add_row(row);
        }
        for (column, settings) in table.column_iter_mut().enumerate() {
            let right = column > 0 && column != 3;
            settings.set_cell_alignment(if right { CellAlignment::Right } else { CellAlignment::Left });
        }
        if report.stacks.len() > 1 {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(gap);
            text.push_str(&format!("{}\n", styled(BOLD, &printable(&stack.name))));
        }
        text.push_str(&colour_bars(&table.to_string()));
    }
    text
}

/// Says which way is which: the paper's reading of a smaller and a larger alpha.
fn axis_label() -> String {
    format!("{:<w$}│{:>w$}", "◂ heavier tail", "lighter ▸", w = HALF + 2)
}

/// The deviation that fills half of the picture: the largest one, but no less than 0.1, so that a
/// balanced model looks balanced.
fn full_bar(report: &Report) -> f64 {
    report.blocks.iter().filter_map(|b| b.deviation).fold(0.1, |max: f64, d| max.max(d.abs()))
}

/// A bar from the mean to the block's alpha: to the left below it, to the right above it.
fn bar(block: &Block, full: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let width = HALF + 2;
    let deviation = block.deviation.unwrap_or(0.0);
    let eighths = (deviation.abs() / full * (HALF * 8) as f64).round() as usize;
    if deviation < 0.0 {
        // There are no glyphs that fill a cell from the right, so the left side rounds to halves.
        let (full, half) = (eighths / 8, eighths % 8 >= 4);
        let bar = format!("{}{}", if half { "▐" } else { "" }, "█".repeat(full));
        format!("{bar:>width$}│{:width$}", "")
    } else {
        let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).unwrap_or(&""));
        format!("{:width$}│{bar:<width$}", "")
    }
}

/// Colours the halves of the bars after the table is laid out: styles would count as width.
fn colour_bars(table: &str) -> String {
    let glyph = |c: char| matches!(c, '█' | '▐' | '▏' | '▎' | '▍' | '▌' | '▋' | '▊' | '▉');
    let colour = |line: &str| -> String {
        let Some((left, right)) = line.split_once('│') else { return line.to_owned() };
        let paint = |text: &str, style: Style| match (text.find(glyph), text.rfind(glyph)) {
            (Some(start), Some(last)) => {
                let end = last + text.get(last..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
                let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or("").to_owned();
                format!("{}{}{}", part(0..start), styled(style, &part(start..end)), part(end..text.len()))
            }
            _ => text.to_owned(),
        };
        format!("{}│{}", paint(left, LOW), paint(right, HIGH))
    };
    table.lines().map(colour).map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn new_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn draw(grid: &Grid) -> String {
    let mut table = new_table();
    table.set_header(grid.header.clone());
    for row in &grid.rows {
        table.add_row(row.clone());
    }
    let last = grid.header.len().saturating_sub(1);
    for (column, settings) in table.column_iter_mut().enumerate() {
        let text = column < grid.text_columns || grid.header.get(last) == Some(&"status") && column == last;
        settings.set_cell_alignment(if text { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
