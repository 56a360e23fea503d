//! Last stage: thresholds on a finished report.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::report::{Block, Finding, Gate, Matrix, Precision, Report, Stack};
use crate::text::printable;

/// Bounds that a checkpoint must keep; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// On the STD of alpha across the blocks of every stack.
    pub max_alpha_std: Option<f64>,
    /// On the alpha of every block.
    pub min_alpha: Option<f64>,
    /// On the alpha of every block.
    pub max_alpha: Option<f64>,
    /// On every scheduled matrix.
    pub max_spectral_norm: Option<f64>,
    /// On every scheduled matrix.
    pub min_stable_rank: Option<f64>,
}

/// A threshold: its name on the command line without the dashes, and its bound.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    bound: f64,
    is_upper: bool,
}

impl Rule {
    /// The rule of an option, where it is given.
    fn bound((name, bound, is_upper): (&'static str, Option<f64>, bool)) -> Option<Rule> {
        bound.map(|bound| Rule { name, bound, is_upper })
    }
}

impl Thresholds {
    /// Whether any bound is given.
    pub fn any(&self) -> bool {
        *self != Thresholds::default()
    }

    /// Holds a report against the bounds. Without any there is no gate.
    ///
    /// A weight with NaN or infinite elements is a finding in itself, whatever it is for.
    ///
    /// # Errors
    /// [`Error::Gate`] where a number that a bound needs does not exist, or no block was analysed:
    /// a gate that has nothing to say must not pass. [`Error::Setting`] for a bound that is NaN.
    pub fn check(&self, report: &Report) -> Result<Option<Gate>> {
        if !self.any() {
            return Ok(None);
        }
        let mut check = Check::default();
        for matrix in report.matrices.iter().filter(|m| m.status == "non-finite") {
            check.non_finite("matrix", &matrix.name, &matrix.warnings);
        }
        for tensor in report.skipped.iter().filter(|s| !s.warnings.is_empty()) {
            check.non_finite("tensor", &tensor.name, &tensor.warnings);
        }
        // Updates have no alpha, but norms and ranks that can be held against bounds.
        let measured = |m: &Matrix| m.is_update() && m.scheduled;
        let updates = report.matrices.iter().any(measured);
        if !updates && !report.blocks.iter().any(|block| block.alpha.is_some()) {
            check.missing.push(no_block(report));
        }
        self.claims(report).iter().for_each(|claim| check.hold(claim));
        check.verdict()
    }

    /// The positions in `report.matrices` of those that were computed in single precision and whose
    /// errors leave it open whether some bound is kept.
    pub fn undecided(&self, report: &Report) -> Vec<usize> {
        let fast = |position: usize| {
            report.matrices.get(position).is_some_and(|m| m.scheduled && m.precision == Precision::Fast)
        };
        let mut open: Vec<usize> = self
            .claims(report)
            .iter()
            .filter(|claim| claim.is_open())
            .flat_map(|claim| claim.depends_on(report))
            .filter(|position| fast(*position))
            .collect();
        open.sort_unstable();
        open.dedup();
        open
    }

    /// Everything that the bounds say of this report.
    fn claims<'a>(&self, report: &'a Report) -> Vec<Claim<'a>> {
        let errors = Errors::of(report);
        let mut claims = Vec::new();
        let mut claim = |rule, of, value: Option<f64>, error: f64| {
            claims.extend(Rule::bound(rule).map(|rule| Claim { rule, of, value, error }));
        };
        for stack in &report.stacks {
            let error = errors.of_std(report, stack);
            claim(("max-alpha-std", self.max_alpha_std, true), Subject::Stack(stack), stack.alpha_std, error);
        }
        for rule in [("min-alpha", self.min_alpha, false), ("max-alpha", self.max_alpha, true)] {
            for block in &report.blocks {
                claim(rule, Subject::Block(block), block.alpha, errors.of_block(block));
            }
        }
        for (position, matrix) in report.matrices.iter().enumerate().filter(|(_, m)| m.scheduled) {
            let subject = || Subject::Matrix(position, matrix);
            let norm = matrix.metric("spectral_norm");
            let rank = matrix.metric("stable_rank");
            claim(("max-spectral-norm", self.max_spectral_norm, true), subject(), norm, norm_error(matrix));
            claim(("min-stable-rank", self.min_stable_rank, false), subject(), rank, rank_error(matrix));
        }
        claims
    }
}

/// One number and the bound that it must keep.
struct Claim<'a> {
    rule: Rule,
    of: Subject<'a>,
    value: Option<f64>,
    /// How far the true value may be from `value`; 0 where all of it was computed exactly.
    error: f64,
}

/// What a number belongs to.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Stack(&'a Stack),
    Block(&'a Block),
    /// With its position in the report.
    Matrix(usize, &'a Matrix),
}

impl Claim<'_> {
    /// Whether the true value could be on the other side of the bound.
    fn is_open(&self) -> bool {
        self.value.is_some_and(|value| (value - self.rule.bound).abs() <= self.error && self.error > 0.0)
    }

    /// The positions of the matrices that the number was computed from.
    fn depends_on(&self, report: &Report) -> Vec<usize> {
        let of_block = |block: &str, matrix: &Matrix| matrix.block.as_deref() == Some(block);
        let holds = |matrix: &Matrix| match self.of {
            Subject::Stack(stack) => {
                report.blocks.iter().any(|b| b.stack == stack.name && of_block(&b.name, matrix))
            }
            Subject::Block(block) => of_block(&block.name, matrix),
            Subject::Matrix(..) => false,
        };
        match self.of {
            Subject::Matrix(position, _) => vec![position],
            _ => report.matrices.iter().enumerate().filter(|(_, m)| holds(m)).map(|(i, _)| i).collect(),
        }
    }

    fn subject(&self) -> String {
        match self.of {
            Subject::Stack(stack) => format!("stack {}", stack.name),
            Subject::Block(block) => format!("block {}", block.name),
            Subject::Matrix(_, matrix) => format!("matrix {}", matrix.name),
        }
    }

    fn why_missing(&self) -> String {
        match self.of {
            Subject::Stack(_) => "has fewer than two blocks with an alpha".to_owned(),
            Subject::Block(block) => format!("has no alpha ({})", block.status),
            Subject::Matrix(_, matrix) => format!("has no such number ({})", matrix.status),
        }
    }
}

/// The bounds of |Δalpha| by block: the means of those of its matrices.
struct Errors<'a>(HashMap<&'a str, f64>);

impl<'a> Errors<'a> {
    fn of(report: &'a Report) -> Errors<'a> {
        let mut sums: HashMap<&str, (f64, f64)> = HashMap::new();
        for matrix in report.matrices.iter().filter(|m| m.scheduled) {
            if let (Some(block), Some(error)) = (&matrix.block, matrix.alpha_error) {
                // What was computed exactly has no error that a threshold could notice.
                let error = if matrix.precision == Precision::Fast { error } else { 0.0 };
                let (sum, count) = sums.entry(block).or_default();
                (*sum, *count) = (*sum + error, *count + 1.0);
            }
        }
        Errors(sums.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect())
    }

    fn of_block(&self, block: &Block) -> f64 {
        self.0.get(block.name.as_str()).copied().unwrap_or(0.0)
    }

    /// A standard deviation is a norm of the centred vector over √B, and centring shortens: it moves
    /// by ‖Δ‖/√B at most.
    fn of_std(&self, report: &Report, stack: &Stack) -> f64 {
        let blocks = report.blocks.iter().filter(|b| b.stack == stack.name && b.alpha.is_some());
        let (sum, count) = blocks
            .fold((0.0, 0.0f64), |(sum, count), block| (sum + self.of_block(block).powi(2), count + 1.0));
        (sum / count.max(1.0)).sqrt()
    }
}

/// |Δσ| ≤ |Δλ|/σ, twice the first-order bound.
fn norm_error(matrix: &Matrix) -> f64 {
    let norm = matrix.metric("spectral_norm").unwrap_or(0.0);
    fast_error(matrix).filter(|_| norm > 0.0).map_or(0.0, |error| error / norm)
}

/// Relatively, that of Σλ (every eigenvalue moves by the bound at most) and that of λ_max.
fn rank_error(matrix: &Matrix) -> f64 {
    let number = |name| matrix.metric(name).unwrap_or(0.0);
    let (rank, largest) = (number("stable_rank"), number("lambda_max"));
    let error = fast_error(matrix).filter(|_| rank > 0.0 && largest > 0.0);
    error.map_or(0.0, |error| {
        let share = matrix.eigenvalues as f64 / (rank * largest) + 1.0 / largest;
        2.0 * rank * error * share
    })
}

fn fast_error(matrix: &Matrix) -> Option<f64> {
    matrix.eigenvalue_error.filter(|_| matrix.precision == Precision::Fast)
}

/// What has been found so far.
#[derive(Default)]
struct Check {
    findings: Vec<Finding>,
    missing: Vec<String>,
}

impl Check {
    fn non_finite(&mut self, what: &str, name: &str, warnings: &[String]) {
        let subject = format!("{what} {name} ({})", warnings.join(", "));
        self.findings.push(Finding { rule: "non-finite", subject, value: None, bound: None });
    }

    fn hold(&mut self, claim: &Claim) {
        let rule = &claim.rule;
        let Some(value) = claim.value else {
            let (subject, why) = (claim.subject(), claim.why_missing());
            let subject = printable(&subject);
            self.missing.push(format!("--{} cannot be decided: {subject} {why}.", rule.name));
            return;
        };
        let holds = if rule.is_upper { value <= rule.bound } else { value >= rule.bound };
        if !holds {
            self.findings.push(Finding {
                rule: rule.name,
                subject: claim.subject(),
                value: Some(value),
                bound: Some(rule.bound),
            });
        }
    }

    fn verdict(self) -> Result<Option<Gate>> {
        let non_finite = self.findings.iter().any(|f| f.rule == "non-finite");
        match self.missing.into_iter().next() {
            // NaN weights are why a number is missing, and they are a finding already.
            Some(missing) if !non_finite => Err(Error::Gate(missing)),
            _ => Ok(Some(Gate { passed: self.findings.is_empty(), findings: self.findings })),
        }
    }
}

fn no_block(report: &Report) -> String {
    let path = printable(&report.checkpoint.path);
    match report.why_nothing() {
        Some(reason) => {
            format!("no tensor of {path} could be analysed, so that the thresholds decide nothing: {reason}.")
        }
        None => format!(
            "no block of {path} could be analysed, so that the thresholds decide nothing; see `evenkeel inspect`, --min-eigenvalues and --block-pattern."
        ),
    }
}
