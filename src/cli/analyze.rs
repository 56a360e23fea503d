//! `evenkeel analyze`.

use std::io::Write;

use anyhow::Result;
use evenkeel::analyze_gated;
use evenkeel::report::Gate;

use super::args::AnalyzeOptions;
use super::progress::Bar;
use super::{Verdict, output};

pub fn run(options: &AnalyzeOptions) -> Result<Verdict> {
    let settings = options.settings()?;
    let checkpoint = options.input.open()?;
    output::refuse_input(options.destination.output.as_deref(), &checkpoint)?;
    let bar = Bar::new(options.quiet);
    // The gate comes before anything is written: one that cannot decide leaves nothing on stdout.
    let report = analyze_gated(&checkpoint, &settings, &options.thresholds.resolve(), &bar);
    bar.clear();
    let report = report?;
    let exporter = options.destination.exporter()?;
    let target = options.destination.output.as_deref();
    let rendered = exporter.report(&report, options.per())?;
    let broken = report.gate.as_ref().filter(|gate| !gate.passed);
    // Where the report does not show them: in a log the reason must be seen all the same.
    if let Some(gate) = broken.filter(|_| target.is_some() || !exporter.shows_findings()) {
        say(gate);
    }
    // The verdict stands even if nobody reads the report to its end.
    match output::write(&rendered, target) {
        Err(error) if !output::is_broken_pipe(&error) => Err(error),
        _ if broken.is_some() => Ok(Verdict::ThresholdBroken),
        _ => Ok(Verdict::Done),
    }
}

fn say(gate: &Gate) {
    let mut stderr = anstream::stderr().lock();
    for finding in gate.describe() {
        // The exit code says it as well; a closed stderr must not hide that.
        let _ = writeln!(stderr, "gate: {finding}");
    }
}
