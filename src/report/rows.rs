//! The columns that tables for people share, whatever they are drawn with.

use super::{
    Block, Checkpoint, Finding, Gate, Inventory, InventoryRow, LeftOut, Matrix, Per, Precision, Report, Stack,
};
use crate::text::{self, bytes, count, printable, shape};

/// A table of text: what terminal and Markdown draw.
pub(super) struct Grid {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// How many of the first columns hold text; the others hold numbers, aligned to the right.
    pub text_columns: usize,
}

/// A number as [`text::number`] shows it, where there is one.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), text::number)
}

/// A statistic with the six decimals that comparisons need.
pub(super) fn statistic(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.6}"))
}

fn signed(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:+.4}"))
}

/// The rows of an analysis.
pub(super) fn grid(report: &Report, per: Per) -> Grid {
    match per {
        Per::Block => Grid {
            header: vec![unit_name(report), "alpha", "from mean", "spectral norm", "stable rank", "matrices"],
            rows: report.blocks.iter().map(block_row).collect(),
            text_columns: 1,
        },
        Per::Matrix => Grid {
            header: vec![
                "matrix",
                "scheduled",
                "role",
                "shape",
                "alpha",
                "spectral norm",
                "stable rank",
                "eff. rank",
                "KS",
                "status",
            ],
            rows: report.matrices.iter().map(matrix_row).collect(),
            text_columns: 4,
        },
    }
}

fn block_row(block: &Block) -> Vec<String> {
    let alpha = match block.alpha {
        Some(_) => number(block.alpha),
        None => block.status.to_owned(),
    };
    vec![
        printable(&block.name).into_owned(),
        alpha,
        signed(block.deviation),
        number(block.spectral_norm),
        number(block.stable_rank),
        block.matrices.to_string(),
    ]
}

fn matrix_row(matrix: &Matrix) -> Vec<String> {
    let mut status = matrix.status.to_owned();
    for warning in &matrix.warnings {
        status.push_str(", ");
        status.push_str(warning);
    }
    // The block's name is the beginning of the matrix' name: saying it twice only takes room.
    let scheduled = match &matrix.block {
        _ if matrix.scheduled => "yes",
        Some(_) => "no",
        None => "outside",
    };
    vec![
        printable(&matrix.name).into_owned(),
        scheduled.to_owned(),
        matrix.role.to_owned(),
        format!("{}×{}", matrix.rows, matrix.cols),
        number(matrix.metric("alpha")),
        number(matrix.metric("spectral_norm")),
        number(matrix.metric("stable_rank")),
        number(matrix.metric("effective_rank")),
        number(matrix.metric("ks_distance")),
        status,
    ]
}

/// The rows of an inventory.
pub(super) fn inventory_grid(inventory: &Inventory) -> Grid {
    let row = |tensor: &InventoryRow| {
        vec![
            printable(&tensor.name).into_owned(),
            tensor.dtype.clone().into_owned(),
            shape(&tensor.shape),
            tensor.block.as_deref().map_or_else(|| "–".to_owned(), |b| printable(b).into_owned()),
            printable(&tensor.analysed).into_owned(),
            bytes(tensor.bytes),
        ]
    };
    Grid {
        header: vec!["tensor", "type", "shape", "block", "analysed as", "size"],
        rows: inventory.tensors.iter().map(row).collect(),
        text_columns: 5,
    }
}

/// What an inventory says below its rows: a line on each part that is no weight of the model.
pub(super) fn left_out(inventory: &Inventory) -> Vec<String> {
    let line = |part: &LeftOut| format!("left out: {}: {}", printable(&part.name), printable(&part.reason));
    inventory.left_out.iter().map(line).collect()
}

/// One line on what was read: `model.safetensors: safetensors, bert, 22.7 M parameters, …`.
pub(super) fn headline(checkpoint: &Checkpoint) -> String {
    let size: u64 = checkpoint.files.iter().map(|f| f.bytes).sum();
    let files = match checkpoint.files.len() {
        1 => String::new(),
        n => format!(" in {n} files"),
    };
    let adapters: String = checkpoint.adapters.iter().map(|name| format!(" + {}", printable(name))).collect();
    let format = match checkpoint.format {
        "peft" => "peft adapter alone (ΔW = scale·B·A, no weights)",
        other => other,
    };
    let architecture = checkpoint.architecture.as_deref().unwrap_or("unknown architecture");
    format!(
        "{}{adapters}: {format}, {}, {} parameters in {}, {}{files}",
        printable(&checkpoint.path),
        printable(architecture),
        parameters(checkpoint.parameters),
        count(checkpoint.tensors, "tensor", "tensors"),
        bytes(size),
    )
}

fn parameters(count: u64) -> String {
    let count = count as f64;
    match count {
        1e9.. => format!("{:.2} B", count / 1e9),
        1e6.. => format!("{:.1} M", count / 1e6),
        1e3.. => format!("{:.1} k", count / 1e3),
        _ => format!("{count}"),
    }
}

/// What the statistics are taken over.
fn unit_name(report: &Report) -> &'static str {
    match report.settings.granularity {
        "layer" => "layer",
        _ => "block",
    }
}

/// One line on a stack: its spread and what it is taken over.
pub(super) fn stack_line(report: &Report, stack: &Stack) -> String {
    format!(
        "{}: alpha {} ± {} (STD across {}), {} to {}",
        printable(&stack.name),
        statistic(stack.alpha_mean),
        statistic(stack.alpha_std),
        count(
            stack.blocks,
            unit_name(report),
            if unit_name(report) == "layer" { "layers" } else { "blocks" }
        ),
        number(stack.alpha_min),
        number(stack.alpha_max),
    )
}

/// How alpha was estimated, and what was left out.
pub(super) fn footnotes(report: &Report) -> Vec<String> {
    let settings = &report.settings;
    let estimator = match (settings.estimator, settings.tail_fraction, settings.xmin_pos) {
        ("hill", Some(fraction), _) => {
            format!("Hill, tail of {:.3}% of the eigenvalues", 100.0 * fraction).replace(".000%", "%")
        }
        ("reference", _, Some(pos)) => format!("reference code, tail from eigenvalue n/{pos} on"),
        (other, ..) => other.to_owned(),
    };
    let mut notes = vec![format!(
        "estimator: {estimator}; {} of {} matrices scheduled (at least {} eigenvalues each), {} skipped",
        report.summary.matrices,
        report.matrices.len(),
        settings.min_eigenvalues,
        count(report.skipped.len(), "tensor", "tensors"),
    )];
    let fast = || report.matrices.iter().filter(|m| m.precision == Precision::Fast);
    if let Some(error) = fast().filter_map(|m| m.alpha_error).reduce(f64::max) {
        let matrices = count(fast().count(), "matrix", "matrices");
        notes.push(format!("single precision for {matrices}: alpha right to {error:.0e} (a probable bound)"));
    }
    if report.matrices.is_empty() {
        let reason = report.why_nothing().unwrap_or("every tensor is one-dimensional");
        notes.push(format!("nothing was analysed: {}", printable(reason)));
    }
    if report.matrices.iter().any(Matrix::is_update) {
        notes.push(
            "no alpha: these are an adapter's updates, of low rank and no weights (--adapter adds them to the base checkpoint)"
                .to_owned(),
        );
    }
    let unexpected = |m: &&Matrix| m.scheduled && m.status != "ok" && !m.is_update();
    let without: Vec<&Matrix> = report.matrices.iter().filter(unexpected).collect();
    const MOST: usize = 8;
    for matrix in without.iter().take(MOST) {
        let detail = if matrix.warnings.is_empty() {
            String::new()
        } else {
            format!(" ({})", matrix.warnings.join(", "))
        };
        notes.push(format!("no alpha: {}: {}{detail}", printable(&matrix.name), matrix.status));
    }
    if without.len() > MOST {
        notes.push(format!("no alpha: {} more matrices (--per matrix lists all)", without.len() - MOST));
    }
    let poisoned = report.skipped.iter().filter(|skipped| !skipped.warnings.is_empty());
    for skipped in poisoned.take(MOST) {
        notes.push(format!("not finite: {}: {}", printable(&skipped.name), skipped.warnings.join(", ")));
    }
    let fused = report.matrices.iter().filter(|m| m.warnings.iter().any(|w| w == "fused-not-split"));
    let fused = fused.count();
    if fused > 0 {
        notes.push(format!(
            "{} several matrices whose layout is not known (no config.json beside the file?), analysed whole",
            if fused == 1 { "1 tensor holds".to_owned() } else { format!("{fused} tensors hold") }
        ));
    }
    notes
}

impl Gate {
    /// One line on each threshold that does not hold, with what was measured and the bound.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        self.findings.iter().map(finding)
    }
}

fn finding(finding: &Finding) -> String {
    let subject = printable(&finding.subject);
    match (finding.value, finding.bound) {
        (Some(value), Some(bound)) => {
            let relation = if value > bound { "above" } else { "below" };
            format!("{}: {subject} has {value:.6}, {relation} the bound {bound}", finding.rule)
        }
        _ => format!("{}: {subject}", finding.rule),
    }
}
