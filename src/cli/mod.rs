//! From the command line to the library and back: arguments, output, exit codes.

mod analyze;
mod args;
mod inspect;
mod output;
mod progress;
mod rebalance;
#[cfg(unix)]
mod sigbus;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

/// How a command ends where nothing went wrong.
enum Verdict {
    /// Exit code 0.
    Done,
    /// Exit code 1: a threshold does not hold.
    ThresholdBroken,
    /// Exit code 1: training did not reach its target. The trainer says so, and is this process where it can be.
    #[cfg(not(unix))]
    TargetMissed,
    /// Exit code 2, and the reason has been printed.
    #[cfg(not(unix))]
    Failed,
}

/// Parses the arguments and runs the command. Exit codes: 0 done, 1 a threshold does not hold,
/// 2 the checkpoint or the command line is not usable.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Analyze(options) => analyze::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Rebalance(options) => rebalance::run(options),
    };
    match result {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::ThresholdBroken) => ExitCode::from(1),
        #[cfg(not(unix))]
        Ok(Verdict::TargetMissed) => ExitCode::from(1),
        #[cfg(not(unix))]
        Ok(Verdict::Failed) => ExitCode::from(2),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            // Nothing is left to be done where even stderr is closed.
            let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {error:#}");
            ExitCode::from(2)
        }
    }
}
