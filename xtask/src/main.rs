//! Tasks of the project: `cargo xtask test` sets everything up and runs every test.

mod fuzz;
mod trainer;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask TASK

  setup   install the system's OpenBLAS (for the second engine) and fetch the pinned models and texts
  lint    rustfmt and clippy, warnings as errors
  trainer [--cuda]: fetch libtorch (with what a GPU needs) and build evenkeel-trainer
  test    setup, then every test
  bench   setup, then the benchmarks; further arguments go to cargo bench
  fuzz    [TARGET] [SECONDS]: run the fuzz targets, or one of them, for 10 seconds each";

/// Debian's package of what the second engine links to.
const OPENBLAS_PACKAGE: &str = "libopenblas-dev";

type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let done = match task.as_deref() {
        Some("setup") => setup(),
        Some("lint") => lint(),
        Some("test") => setup().and_then(|()| test(&rest)),
        Some("bench") => setup().and_then(|()| bench(&rest)),
        Some("trainer") => trainer::trainer(&rest),
        Some("fuzz") => fuzz::fuzz(&rest),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn setup() -> Result {
    install_openblas()?;
    run(Command::new(python()).arg("fixtures/fetch.py"))?;
    run(Command::new(python()).arg("fixtures/snippets.py"))
}

fn lint() -> Result {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    for features in [&[][..], &["--features", "lapack"]] {
        let clippy = ["clippy", "--package", "evenkeel", "--package", "xtask", "--all-targets"];
        run(cargo().args(clippy).args(features).args(["--", "-D", "warnings"]))?;
    }
    let clippy = ["clippy", "--package", "evenkeel-trainer", "--all-targets", "--", "-D", "warnings"];
    run(trainer::cargo_with_libtorch()?.args(clippy))?;
    run(cargo().args(["doc", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn test(rest: &[String]) -> Result {
    run(cargo().args(["test", "--features", "lapack"]).args(rest))?;
    run(trainer::cargo_with_libtorch()?.args(["test", "--package", "evenkeel-trainer"]).args(rest))
}

fn bench(rest: &[String]) -> Result {
    run(cargo().arg("bench").args(rest))
}

/// The second engine links the system's OpenBLAS: Debian's package, Homebrew's, or one that is there.
fn install_openblas() -> Result {
    if links_openblas() {
        return Ok(());
    }
    if cfg!(target_os = "linux") && succeeds(Command::new("apt-get").arg("--version")) {
        let sudo =
            if succeeds(Command::new("sh").args(["-c", "[ \"$(id -u)\" = 0 ]"])) { "" } else { "sudo " };
        let install = format!(
            "{sudo}apt-get update -qq && {sudo}apt-get install -y -qq --no-install-recommends {OPENBLAS_PACKAGE}"
        );
        run(Command::new("sh").args(["-c", &install]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    } else if cfg!(target_os = "macos") {
        run(Command::new("brew").args(["install", "openblas"]))?;
    }
    if links_openblas() {
        Ok(())
    } else {
        Err("OpenBLAS is not installed: the tests compare with its LAPACK (Debian: libopenblas-dev)."
            .to_owned())
    }
}

/// Whether the C compiler, which links for cargo, finds the library.
fn links_openblas() -> bool {
    let check = "echo 'int main(void){return 0;}' | cc -x c - -lopenblas -o /dev/null";
    succeeds(Command::new("sh").args(["-c", check]))
}

fn python() -> &'static str {
    if cfg!(windows) { "python" } else { "python3" }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a command in the root of the workspace, its output going where ours goes.
fn run(command: &mut Command) -> Result {
    let status = command
        .current_dir(root())
        .status()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed ({status})", command.get_program().display()))
    }
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
