//! `cargo xtask trainer`: libtorch, and the program that trains with it.

use std::ffi::OsString;
use std::process::Command;

use crate::{Result, cargo, python, root, run};

/// Where libtorch lies: what LIBTORCH names, or the user's cache, into which it is brought first.
pub fn libtorch(cuda: bool) -> Result<OsString> {
    if let Some(given) = std::env::var_os("LIBTORCH") {
        return Ok(given);
    }
    let mut command = Command::new(python());
    command.current_dir(root()).arg("trainer/libtorch.py");
    if cuda {
        command.arg("--cuda");
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    if !output.status.success() {
        return Err("libtorch could not be set up.".to_owned());
    }
    let path = String::from_utf8(output.stdout).map_err(|e| format!("libtorch.py: {e}"))?;
    Ok(path.trim_end().into())
}

/// A run of cargo that can build the trainer.
pub fn cargo_with_libtorch() -> Result<Command> {
    let mut command = cargo();
    command.env("LIBTORCH", libtorch(false)?);
    Ok(command)
}

/// Builds the program, optimised, beside `evenkeel`.
pub fn trainer(rest: &[String]) -> Result {
    let cuda = match rest {
        [] => false,
        [flag] if flag == "--cuda" => true,
        _ => return Err("usage: cargo xtask trainer [--cuda]".to_owned()),
    };
    run(cargo().env("LIBTORCH", libtorch(cuda)?).args([
        "build",
        "--release",
        "--package",
        "evenkeel",
        "--package",
        "evenkeel-trainer",
    ]))?;
    println!("The trainer is {}.", root().join("target/release/evenkeel-trainer").display());
    Ok(())
}
