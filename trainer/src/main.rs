//! The program that `evenkeel rebalance` starts: `evenkeel-trainer train REQUEST`, REQUEST being JSON. It also
//! generates data (`evenkeel-trainer generate`), for which nobody starts it but the user.

mod arguments;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use evenkeel::rebalance::options::{Options, PROTOCOL, Request};
use evenkeel_trainer::training::INTERRUPTED;
use evenkeel_trainer::{generate, rebalance, torch};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            // Nothing is left to be done where even stderr is closed.
            let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    evenkeel_trainer::memory::settle();
    let arguments = Arguments::parse();
    // One Ctrl-C ends a run after its step, with its state saved; a second one ends it at once.
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    match arguments.command {
        Command::Train { request } => {
            let options = options(&request)?;
            torch::load_cuda();
            let reached = rebalance::rebalance(&options)?;
            Ok(if reached { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Generate { set } => {
            let (recipe, settings) = set.resolve()?;
            generate::generate(recipe.as_ref(), &settings)?;
            println!("The data are {}.", settings.output.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads a request: first its protocol, so that one of another version is refused for what it is.
fn options(request: &str) -> Result<Options> {
    #[derive(serde::Deserialize)]
    struct Version {
        protocol: u32,
        version: String,
    }
    let unreadable = |e: serde_json::Error| anyhow!("the request cannot be read: {e}.");
    let Version { protocol, version } = serde_json::from_str(request).map_err(unreadable)?;
    if protocol != PROTOCOL {
        bail!(
            "evenkeel {version} speaks protocol {protocol}, and this trainer ({}) speaks {PROTOCOL}: build both \
             from the same source with `cargo xtask trainer`.",
            env!("CARGO_PKG_VERSION")
        );
    }
    let Request { options, .. } = serde_json::from_str(request).map_err(unreadable)?;
    Ok(options)
}
