//! `evenkeel analyze`.

use std::io::Write;

use anyhow::Result;
use evenkeel::report::Gate;
use evenkeel::text::printable;

use super::args::AnalyzeOptions;
use super::progress::Bar;
use super::{Verdict, output};

pub fn run(options: &AnalyzeOptions) -> Result<Verdict> {
    let settings = options.settings()?;
    let checkpoint = options.input.open()?;
    output::refuse_input(options.destination.output.as_deref(), &checkpoint)?;
    let bar = Bar::new(options.quiet);
    let report = evenkeel::analyze(&checkpoint, &settings, &bar);
    bar.clear();
    let mut report = report?;
    // Before anything is written: a gate that cannot decide leaves nothing on stdout.
    report.gate = options.thresholds.resolve().check(&report)?;
    let rendered = options.destination.exporter()?.report(&report, options.per())?;
    output::write(&rendered, options.destination.output.as_deref())?;
    match &report.gate {
        Some(gate) if !gate.passed => {
            say(gate);
            Ok(Verdict::ThresholdBroken)
        }
        _ => Ok(Verdict::Done),
    }
}

/// Findings go to stderr as well: the report may have gone to a file or into another program.
fn say(gate: &Gate) {
    let mut stderr = anstream::stderr().lock();
    for finding in &gate.findings {
        let subject = printable(&finding.subject);
        let _ = match (finding.value, finding.bound) {
            (Some(value), Some(bound)) => {
                writeln!(stderr, "gate: {}: {subject}: {value:.6} against {bound}", finding.rule)
            }
            _ => writeln!(stderr, "gate: {}: {subject}", finding.rule),
        };
    }
}
