//! The program that `evenkeel rebalance` starts: `evenkeel-trainer train REQUEST`, REQUEST being JSON.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow, bail};
use evenkeel::rebalance::options::{Options, PROTOCOL, Request};
use evenkeel_trainer::training::INTERRUPTED;
use evenkeel_trainer::{rebalance, torch};

const USAGE: &str = "\
evenkeel-trainer fine-tunes checkpoints for `evenkeel rebalance`, which starts it with the options it needs.

usage: evenkeel-trainer train REQUEST
       evenkeel-trainer --version";

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let request = match arguments.as_slice() {
        ["train", request] => *request,
        ["--version" | "-V"] => {
            println!("evenkeel-trainer {} (protocol {PROTOCOL}, libtorch 2.11.0)", env!("CARGO_PKG_VERSION"));
            return Ok(ExitCode::SUCCESS);
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => bail!("{USAGE}"),
    };
    let options = options(request)?;
    // One Ctrl-C ends the run after its step, with its state saved; a second one ends it at once.
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    torch::load_cuda();
    let reached = rebalance::rebalance(&options)?;
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::from(1) })
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
