//! From the matrices' numbers to the report: blocks, stacks, summary.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::blocks::{Block, BlockStats, Member, Statistics, blocks, mean, stacks};
use crate::matrices::{Matrix, Skip};
use crate::metrics::{METRICS, position as position_of};
use crate::report::{self, Report};
use crate::source::{Checkpoint, Storage};
use crate::tensors::{Survey, Tensor};
use crate::text::natural_cmp;

use super::measure::{Outcome, status};
use super::{Granularity, Layout, Settings, parameters};

/// Stacks in the order in which data passes through a model; unknown ones follow by name.
const STACK_ORDER: [&str; 7] = ["backbone", "vision", "text", "encoder", "joint", "single", "decoder"];

/// One unit of the statistics: a block, or a layer.
struct Unit {
    stack: String,
    name: String,
    index: u64,
    /// The positions of its matrices, scheduled or not.
    matrices: Vec<usize>,
}

pub(super) fn report(
    checkpoint: &Checkpoint,
    settings: &Settings,
    layout: &Layout,
    outcomes: &[Outcome],
    surveys: &[Survey],
) -> Report {
    let matrices = &layout.plan.matrices;
    let scheduled: Vec<bool> = matrices.iter().map(|m| layout.is_scheduled(m, settings)).collect();
    let units = match layout.granularity {
        Granularity::Block => block_units(matrices),
        Granularity::Layer => layer_units(checkpoint.tensors(), matrices, &scheduled),
    };
    let members = members(&units, outcomes, &scheduled);
    let stats = blocks(units.len(), &members);
    let blocks = block_rows(&units, &stats, outcomes, &scheduled);
    let mut report = Report {
        checkpoint: describe(checkpoint, layout),
        settings: settings.describe(layout.granularity),
        summary: summary(&blocks, members.len()),
        stacks: stack_rows(&blocks),
        blocks,
        matrices: matrix_rows(checkpoint.tensors(), matrices, outcomes, &scheduled, &units),
        skipped: skipped(checkpoint, layout, surveys),
        gate: None,
    };
    report.bound_names();
    report
}

/// Every block that some matrix lies in, in natural order.
fn block_units(matrices: &[Matrix]) -> Vec<Unit> {
    let mut groups: HashMap<&Block, Vec<usize>> = HashMap::new();
    for (position, matrix) in matrices.iter().enumerate() {
        if let Some(block) = &matrix.block {
            groups.entry(block).or_default().push(position);
        }
    }
    let unit = |(block, matrices): (&Block, Vec<usize>)| Unit {
        stack: block.stack.clone(),
        name: block.name.clone(),
        index: block.index,
        matrices,
    };
    let mut units: Vec<Unit> = groups.into_iter().map(unit).collect();
    units.sort_by(|a, b| stack_order(&a.stack, &b.stack).then_with(|| natural_cmp(&a.name, &b.name)));
    units
}

/// Every scheduled matrix, in the order of the matrices, stack after stack.
fn layer_units(tensors: &[Tensor], matrices: &[Matrix], scheduled: &[bool]) -> Vec<Unit> {
    let mut stacks: Vec<&str> =
        matrices.iter().filter_map(|m| Some(m.block.as_ref()?.stack.as_str())).collect();
    stacks.sort_unstable();
    stacks.dedup();
    // What lies outside the blocks of the only tower counts with that tower.
    let other = match stacks.as_slice() {
        [only] => *only,
        _ => "model",
    };
    let unit = |(position, matrix): (usize, &Matrix)| Unit {
        stack: matrix.block.as_ref().map_or(other, |b| b.stack.as_str()).to_owned(),
        name: full_name(tensors, matrix),
        index: 0,
        matrices: vec![position],
    };
    let chosen = matrices.iter().enumerate().filter(|(i, _)| scheduled.get(*i) == Some(&true));
    let mut units: Vec<Unit> = chosen.map(unit).collect();
    units.sort_by(|a, b| stack_order(&a.stack, &b.stack));
    let mut counts: HashMap<String, u64> = HashMap::new();
    for unit in &mut units {
        let count = counts.entry(unit.stack.clone()).or_default();
        unit.index = *count;
        *count += 1;
    }
    units
}

fn stack_order(a: &str, b: &str) -> Ordering {
    let rank = |stack: &str| STACK_ORDER.iter().position(|s| *s == stack).unwrap_or(STACK_ORDER.len());
    rank(a).cmp(&rank(b)).then_with(|| natural_cmp(a, b))
}

fn full_name(tensors: &[Tensor], matrix: &Matrix) -> String {
    matrix.name(tensors.get(matrix.tensor).map_or("", |t| t.name.as_str()))
}

/// The scheduled matrices with the number of their unit.
fn members(units: &[Unit], outcomes: &[Outcome], scheduled: &[bool]) -> Vec<Member> {
    let mut members = Vec::new();
    for (block, unit) in units.iter().enumerate() {
        for position in unit.matrices.iter().filter(|i| scheduled.get(**i) == Some(&true)) {
            let outcome = outcomes.get(*position);
            let value = |name| position_of(name).and_then(|p| outcome?.metrics.get(p).copied().flatten());
            members.push(Member {
                block,
                alpha: value("alpha"),
                spectral_norm: value("spectral_norm"),
                stable_rank: value("stable_rank"),
            });
        }
    }
    members
}

fn matrix_rows(
    tensors: &[Tensor],
    matrices: &[Matrix],
    outcomes: &[Outcome],
    scheduled: &[bool],
    units: &[Unit],
) -> Vec<report::Matrix> {
    let mut unit_of: Vec<Option<&str>> = vec![None; matrices.len()];
    for unit in units {
        for position in &unit.matrices {
            if let Some(slot) = unit_of.get_mut(*position) {
                *slot = Some(&unit.name);
            }
        }
    }
    let row = |(((matrix, outcome), scheduled), unit): (((&Matrix, &Outcome), &bool), &Option<&str>)| {
        let tensor = tensors.get(matrix.tensor)?;
        Some(report::Matrix {
            name: matrix.name(&tensor.name),
            tensors: tensor.sources().to_vec(),
            part: matrix.part.clone(),
            aliases: tensor.aliases.clone(),
            block: unit.map(str::to_owned),
            role: matrix.role.name(),
            rows: matrix.rows(),
            cols: matrix.cols(),
            dtype: tensor.stored_as(),
            eigenvalues: matrix.eigenvalues(),
            tail: outcome.tail,
            scheduled: *scheduled,
            metrics: METRICS.iter().map(|m| m.name()).zip(outcome.metrics.iter().copied()).collect(),
            status: outcome.status,
            precision: outcome.precision,
            alpha_error: outcome.alpha_error,
            eigenvalue_error: outcome.eigenvalue_error,
            warnings: outcome.warnings.clone(),
        })
    };
    matrices.iter().zip(outcomes).zip(scheduled).zip(&unit_of).filter_map(row).collect()
}

fn block_rows(
    units: &[Unit],
    stats: &[BlockStats],
    outcomes: &[Outcome],
    scheduled: &[bool],
) -> Vec<report::Block> {
    let pairs: Vec<(String, Option<f64>)> =
        units.iter().zip(stats).map(|(u, s)| (u.stack.clone(), s.alpha)).collect();
    let means: HashMap<String, Option<f64>> =
        stacks(&pairs).into_iter().map(|s| (s.name, s.alpha.mean)).collect();
    let row = |(unit, stats): (&Unit, &BlockStats)| report::Block {
        name: unit.name.clone(),
        stack: unit.stack.clone(),
        index: unit.index,
        matrices: stats.matrices,
        status: if stats.alpha.is_some() { status::OK } else { why_no_alpha(unit, outcomes, scheduled) },
        alpha: stats.alpha,
        deviation: stats.alpha.zip(means.get(&unit.stack).copied().flatten()).map(|(a, m)| a - m),
        spectral_norm: stats.spectral_norm,
        stable_rank: stats.stable_rank,
    };
    units.iter().zip(stats).map(row).collect()
}

/// Why a block has no alpha: non-finite weights before anything else, else the reason of its first
/// scheduled matrix; a block without any has only matrices that are too small, or of other roles.
fn why_no_alpha(unit: &Unit, outcomes: &[Outcome], scheduled: &[bool]) -> &'static str {
    let chosen = unit.matrices.iter().filter(|i| scheduled.get(**i) == Some(&true));
    let reasons: Vec<&'static str> = chosen.filter_map(|i| outcomes.get(*i)).map(|o| o.status).collect();
    if reasons.contains(&status::NON_FINITE) {
        return status::NON_FINITE;
    }
    reasons.into_iter().find(|reason| *reason != status::OK).unwrap_or(status::TOO_FEW)
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
    let left_out = checkpoint.left_out().iter().map(|part| report::Skipped {
        name: part.name.clone(),
        aliases: Vec::new(),
        reason: part.reason.clone(),
        warnings: Vec::new(),
    });
    // What a skipped tensor would have been computed from is skipped with it.
    let parts = layout.plan.skipped.iter().filter_map(|skip| checkpoint.tensors().get(skip.tensor));
    let parts = parts.flat_map(|tensor| {
        let others = tensor.sources().iter().filter(|source| **source != tensor.name);
        others.map(|source| report::Skipped {
            name: source.clone(),
            aliases: Vec::new(),
            reason: format!("belongs to {}", tensor.name),
            warnings: Vec::new(),
        })
    });
    layout.plan.skipped.iter().zip(surveys).filter_map(row).chain(parts).chain(left_out).collect()
}

pub(super) fn describe(checkpoint: &Checkpoint, layout: &Layout) -> report::Checkpoint {
    let file = |f: &Storage| report::File { name: f.name().to_owned(), bytes: f.len() };
    report::Checkpoint {
        path: checkpoint.path().to_owned(),
        format: checkpoint.format(),
        architecture: layout.naming.architecture().map(str::to_owned),
        parameters: parameters(checkpoint),
        tensors: checkpoint.tensors().len(),
        files: checkpoint.files().iter().map(|f| file(f)).collect(),
        revision: checkpoint.revision().map(str::to_owned),
        adapters: checkpoint.adapters().to_vec(),
    }
}
