//! From the matrices' numbers to the report: blocks, stacks, summary.

use std::collections::HashMap;

use crate::blocks::{BlockStats, Member, Statistics, blocks, mean, stacks};
use crate::matrices::{Matrix, Skip};
use crate::metrics::{METRICS, position};
use crate::report::{self, Report};
use crate::source::{Checkpoint, Storage};
use crate::tensors::Survey;
use crate::text::natural_cmp;

use super::measure::{Outcome, status};
use super::{Granularity, Layout, Settings, parameters};

/// Stacks in the order in which data passes through a model; unknown ones follow by name.
const STACK_ORDER: [&str; 6] = ["backbone", "vision", "text", "encoder", "joint", "decoder"];

/// One unit of the statistics.
struct Unit {
    stack: String,
    name: String,
    index: u64,
}

pub(super) fn report(
    checkpoint: &Checkpoint,
    settings: &Settings,
    layout: &Layout,
    outcomes: &[Outcome],
    surveys: &[Survey],
) -> Report {
    let tensors = checkpoint.tensors();
    let name_of = |m: &Matrix| m.name(tensors.get(m.tensor).map_or("", |t| t.name.as_str()));
    let matrices = &layout.plan.matrices;
    let scheduled: Vec<bool> = matrices.iter().map(|m| layout.is_scheduled(m, settings)).collect();
    let units = units(layout, matrices, &scheduled, &name_of);
    let numbers: HashMap<&str, usize> = units.iter().enumerate().map(|(i, u)| (u.name.as_str(), i)).collect();
    let unit_name = |matrix: &Matrix, scheduled: bool| match layout.granularity {
        Granularity::Block => matrix.block.as_ref().map(|block| block.name.clone()),
        Granularity::Layer => scheduled.then(|| name_of(matrix)),
    };
    let mut rows = Vec::with_capacity(matrices.len());
    let mut members = Vec::new();
    for ((matrix, outcome), scheduled) in matrices.iter().zip(outcomes).zip(&scheduled) {
        let Some(tensor) = tensors.get(matrix.tensor) else { continue };
        let unit = unit_name(matrix, *scheduled);
        let number = unit.as_deref().and_then(|name| numbers.get(name));
        if let (true, Some(&block)) = (*scheduled, number) {
            let value = |name| position(name).and_then(|p| outcome.metrics.get(p).copied().flatten());
            members.push(Member {
                block,
                alpha: value("alpha"),
                spectral_norm: value("spectral_norm"),
                stable_rank: value("stable_rank"),
            });
        }
        rows.push(report::Matrix {
            name: matrix.name(&tensor.name),
            tensors: vec![tensor.name.clone()],
            part: matrix.part.clone(),
            aliases: tensor.aliases.clone(),
            block: unit,
            role: matrix.role.name(),
            rows: matrix.rows(),
            cols: matrix.cols(),
            dtype: matrix.dtype.name(),
            eigenvalues: matrix.eigenvalues(),
            tail: outcome.tail,
            scheduled: *scheduled,
            metrics: METRICS.iter().map(|m| m.name()).zip(outcome.metrics.iter().copied()).collect(),
            status: outcome.status,
            warnings: outcome.warnings.clone(),
        });
    }
    let stats = blocks(units.len(), &members);
    let blocks = block_rows(&units, &stats, &rows);
    Report {
        checkpoint: describe(checkpoint, layout),
        settings: settings.describe(layout.granularity),
        summary: summary(&blocks, members.len()),
        stacks: stack_rows(&blocks),
        blocks,
        matrices: rows,
        skipped: skipped(checkpoint, layout, surveys),
        gate: None,
    }
}

/// The blocks, or the layers, that the statistics are taken over, in their final order.
fn units(
    layout: &Layout,
    matrices: &[Matrix],
    scheduled: &[bool],
    name_of: &dyn Fn(&Matrix) -> String,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    match layout.granularity {
        Granularity::Block => {
            let mut seen = std::collections::HashSet::new();
            for block in matrices.iter().filter_map(|m| m.block.as_ref()) {
                if seen.insert(&block.name) {
                    let (stack, name) = (block.stack.clone(), block.name.clone());
                    units.push(Unit { stack, name, index: block.index });
                }
            }
        }
        Granularity::Layer => {
            let mut stacks: Vec<&str> =
                matrices.iter().filter_map(|m| Some(m.block.as_ref()?.stack.as_str())).collect();
            stacks.sort_unstable();
            stacks.dedup();
            // What lies outside the blocks of the only tower counts with that tower.
            let other = match stacks.as_slice() {
                [only] => *only,
                _ => "model",
            };
            for (matrix, _) in matrices.iter().zip(scheduled).filter(|(_, s)| **s) {
                let stack = matrix.block.as_ref().map_or(other, |b| b.stack.as_str()).to_owned();
                units.push(Unit { stack, name: name_of(matrix), index: 0 });
            }
        }
    }
    let rank = |stack: &str| STACK_ORDER.iter().position(|s| *s == stack).unwrap_or(STACK_ORDER.len());
    units.sort_by(|a, b| {
        let stacks = rank(&a.stack).cmp(&rank(&b.stack)).then_with(|| natural_cmp(&a.stack, &b.stack));
        // Layers stay in the order of the matrices, which keeps the parts of a tensor in theirs.
        match layout.granularity {
            Granularity::Block => stacks.then_with(|| natural_cmp(&a.name, &b.name)),
            Granularity::Layer => stacks,
        }
    });
    if layout.granularity == Granularity::Layer {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for unit in &mut units {
            let count = counts.entry(unit.stack.clone()).or_default();
            unit.index = *count;
            *count += 1;
        }
    }
    units
}

fn block_rows(units: &[Unit], stats: &[BlockStats], rows: &[report::Matrix]) -> Vec<report::Block> {
    let pairs: Vec<(String, Option<f64>)> =
        units.iter().zip(stats).map(|(u, s)| (u.stack.clone(), s.alpha)).collect();
    let means: HashMap<String, Option<f64>> =
        stacks(&pairs).into_iter().map(|s| (s.name, s.alpha.mean)).collect();
    let statuses = block_statuses(rows);
    let row = |(unit, stats): (&Unit, &BlockStats)| report::Block {
        name: unit.name.clone(),
        stack: unit.stack.clone(),
        index: unit.index,
        matrices: stats.matrices,
        status: match stats.alpha {
            Some(_) => status::OK,
            None => statuses.get(unit.name.as_str()).copied().unwrap_or(status::TOO_FEW),
        },
        alpha: stats.alpha,
        deviation: stats.alpha.zip(means.get(&unit.stack).copied().flatten()).map(|(a, m)| a - m),
        spectral_norm: stats.spectral_norm,
        stable_rank: stats.stable_rank,
    };
    units.iter().zip(stats).map(row).collect()
}

/// Why a block has no alpha: non-finite weights before anything else, else its first matrix' reason.
fn block_statuses(rows: &[report::Matrix]) -> HashMap<&str, &'static str> {
    let mut statuses: HashMap<&str, &'static str> = HashMap::new();
    for row in rows.iter().filter(|row| row.scheduled && row.status != status::OK) {
        let Some(block) = row.block.as_deref() else { continue };
        let known = statuses.entry(block).or_insert(row.status);
        if row.status == status::NON_FINITE {
            *known = row.status;
        }
    }
    statuses
}

fn stack_rows(blocks: &[report::Block]) -> Vec<report::Stack> {
    let pairs: Vec<(String, Option<f64>)> = blocks.iter().map(|b| (b.stack.clone(), b.alpha)).collect();
    let row = |stack: crate::blocks::StackStats| report::Stack {
        name: stack.name,
        blocks: stack.blocks,
        alpha_mean: stack.alpha.mean,
        alpha_std: stack.alpha.std,
        alpha_min: stack.alpha.min,
        alpha_max: stack.alpha.max,
    };
    stacks(&pairs).into_iter().map(row).collect()
}

fn summary(blocks: &[report::Block], scheduled: usize) -> report::Summary {
    let alpha = Statistics::of(blocks.iter().map(|b| b.alpha));
    report::Summary {
        blocks: blocks.len(),
        matrices: scheduled,
        alpha_mean: alpha.mean,
        alpha_std: alpha.std,
        alpha_min: alpha.min,
        alpha_max: alpha.max,
        spectral_norm_mean: mean(blocks.iter().map(|b| b.spectral_norm)),
        stable_rank_mean: mean(blocks.iter().map(|b| b.stable_rank)),
    }
}

fn skipped(checkpoint: &Checkpoint, layout: &Layout, surveys: &[Survey]) -> Vec<report::Skipped> {
    let row = |(skip, survey): (&Skip, &Survey)| {
        let tensor = checkpoint.tensors().get(skip.tensor)?;
        Some(report::Skipped {
            name: tensor.name.clone(),
            aliases: tensor.aliases.clone(),
            reason: skip.reason.clone(),
            warnings: survey.describe().into_iter().collect(),
        })
    };
    layout.plan.skipped.iter().zip(surveys).filter_map(row).collect()
}

pub(super) fn describe(checkpoint: &Checkpoint, layout: &Layout) -> report::Checkpoint {
    let file = |f: &Storage| report::File { name: f.name().to_owned(), bytes: f.len() };
    report::Checkpoint {
        path: checkpoint.path().to_owned(),
        format: checkpoint.format(),
        architecture: layout.naming.architecture().map(str::to_owned),
        parameters: parameters(checkpoint.tensors()),
        tensors: checkpoint.tensors().len(),
        files: checkpoint.files().iter().map(file).collect(),
        revision: checkpoint.revision().map(str::to_owned),
        adapters: Vec::new(),
    }
}
