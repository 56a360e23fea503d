//! `evenkeel rebalance`: the options go to the trainer, which takes over from here.

mod args;
mod lora;
mod training;
mod values;

use std::process::Command;

use anyhow::Result;
use evenkeel::rebalance::locate;
use evenkeel::rebalance::options::{PROTOCOL, Request};

pub use args::RebalanceOptions;

use super::Verdict;

/// Finds the trainer and hands over to it.
pub fn run(arguments: &RebalanceOptions) -> Result<Verdict> {
    let options = arguments.resolve()?;
    let trainer = locate::trainer(arguments.trainer.as_deref())?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let request = serde_json::to_string(&Request { protocol: PROTOCOL, version, options })?;
    let mut command = Command::new(&trainer);
    command.arg("train").arg(request);
    hand_over(command).map_err(|error| error.context(format!("cannot run {}", trainer.display())))
}

/// The trainer takes this process's place: terminal, signals and exit code are its own.
#[cfg(unix)]
fn hand_over(mut command: Command) -> Result<Verdict> {
    use std::os::unix::process::CommandExt;

    Err(command.exec().into())
}

/// The trainer is waited for.
#[cfg(not(unix))]
fn hand_over(mut command: Command) -> Result<Verdict> {
    let status = command.status()?;
    match status.code() {
        Some(0) => Ok(Verdict::Done),
        Some(1) => Ok(Verdict::TargetMissed),
        Some(2) => Ok(Verdict::Failed),
        _ => anyhow::bail!("it ended unexpectedly ({status})"),
    }
}
