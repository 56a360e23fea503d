//! Last stage: thresholds on a finished report.

use crate::error::{Error, Result};
use crate::report::{Finding, Gate, Matrix, Report};
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
struct Rule {
    name: &'static str,
    bound: Option<f64>,
    is_upper: bool,
}

impl Rule {
    const fn at_most(name: &'static str, bound: Option<f64>) -> Rule {
        Rule { name, bound, is_upper: true }
    }

    const fn at_least(name: &'static str, bound: Option<f64>) -> Rule {
        Rule { name, bound, is_upper: false }
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
            check.findings.push(Finding {
                rule: "non-finite",
                subject: format!("matrix {} ({})", matrix.name, matrix.warnings.join(", ")),
                value: None,
                bound: None,
            });
        }
        for tensor in report.skipped.iter().filter(|s| !s.warnings.is_empty()) {
            check.findings.push(Finding {
                rule: "non-finite",
                subject: format!("tensor {} ({})", tensor.name, tensor.warnings.join(", ")),
                value: None,
                bound: None,
            });
        }
        // Updates have no alpha, but norms and ranks that can be held against bounds.
        let measured = |m: &Matrix| m.is_update() && m.scheduled;
        let updates = report.matrices.iter().any(measured);
        if !updates && !report.blocks.iter().any(|block| block.alpha.is_some()) {
            check.missing.push(no_block(report));
        }
        let std = Rule::at_most("max-alpha-std", self.max_alpha_std);
        for stack in &report.stacks {
            let subject = || format!("stack {}", stack.name);
            check.hold(&std, subject, stack.alpha_std, "has fewer than two blocks with an alpha");
        }
        for rule in [Rule::at_least("min-alpha", self.min_alpha), Rule::at_most("max-alpha", self.max_alpha)]
        {
            for block in &report.blocks {
                let why = format!("has no alpha ({})", block.status);
                check.hold(&rule, || format!("block {}", block.name), block.alpha, &why);
            }
        }
        let norm = Rule::at_most("max-spectral-norm", self.max_spectral_norm);
        let rank = Rule::at_least("min-stable-rank", self.min_stable_rank);
        for matrix in report.matrices.iter().filter(|m| m.scheduled) {
            let subject = || format!("matrix {}", matrix.name);
            let why = format!("has no such number ({})", matrix.status);
            check.hold(&norm, subject, matrix.metric("spectral_norm"), &why);
            check.hold(&rank, subject, matrix.metric("stable_rank"), &why);
        }
        check.verdict()
    }
}

/// What has been found so far.
#[derive(Default)]
struct Check {
    findings: Vec<Finding>,
    missing: Vec<String>,
}

impl Check {
    /// Holds one value against a bound; `why` says why it may be missing.
    fn hold(&mut self, rule: &Rule, subject: impl FnOnce() -> String, value: Option<f64>, why: &str) {
        let Some(bound) = rule.bound else { return };
        let Some(value) = value else {
            let subject = subject();
            let subject = printable(&subject);
            self.missing.push(format!("--{} cannot be decided: {subject} {why}.", rule.name));
            return;
        };
        let holds = if rule.is_upper { value <= bound } else { value >= bound };
        if !holds {
            self.findings.push(Finding {
                rule: rule.name,
                subject: subject(),
                value: Some(value),
                bound: Some(bound),
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
