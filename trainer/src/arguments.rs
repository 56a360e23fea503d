//! The arguments of `evenkeel-trainer`: what `evenkeel rebalance` starts it with, and sets to generate.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use evenkeel::rebalance::options::PROTOCOL;
use evenkeel_trainer::generate::{self, Burgers, Compressible, DarcyFlow, Frames, GAMMA, Gas, Recipe};

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (protocol {PROTOCOL}, libtorch 2.11.0)", env!("CARGO_PKG_VERSION")));

/// Fine-tunes checkpoints for `evenkeel rebalance`, which starts it with the options it needs, and generates data of
/// partial differential equations
#[derive(Debug, Parser)]
#[command(name = "evenkeel-trainer", version = VERSION.as_str())]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do what a request of `evenkeel rebalance` asks for
    Train {
        /// The request, as JSON
        #[arg(value_name = "REQUEST")]
        request: String,
    },
    /// Generate a small data set in PDEBench's layout (HDF5)
    #[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
    Generate {
        #[command(subcommand)]
        set: Set,
    },
}

const EXAMPLES: &str = "\
Examples:
  # Compressible flow on one axis: 1000 trajectories of 21 frames at 128 points
  evenkeel-trainer generate cfd1d --output cfd1d.h5

  # Compressible flow on two axes, 160 trajectories at 32 × 32 points, computed at 64 × 64
  evenkeel-trainer generate cfd2d --samples 160 --resolution 32 --refine 2 --output cfd2d.h5

  # Darcy flow of another strength
  evenkeel-trainer generate darcy --beta 1 --output darcy.h5

The same seed gives the same file on the same kind of machine, whatever the number of threads.";

#[derive(Debug, Subcommand)]
pub enum Set {
    /// Darcy flow: −∇·(a∇u) = β, u = 0 on the boundary, a of two materials (0.1 and 1)
    Darcy(DarcyArgs),
    /// Burgers' equation: ∂u/∂t + ∂(u²/2)/∂x = (ν/π) ∂²u/∂x², periodic
    Burgers(BurgersArgs),
    /// Compressible viscous flow on one axis, periodic, from random waves
    #[command(name = "cfd1d")]
    Cfd1d(Cfd1dArgs),
    /// Compressible viscous flow on two axes, periodic, from random waves
    #[command(name = "cfd2d")]
    Cfd2d(Cfd2dArgs),
}

#[derive(Debug, Args)]
pub struct DarcyArgs {
    /// The force β
    #[arg(long, value_name = "X", default_value_t = 100.0)]
    beta: f64,
    /// Points along each axis
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(4..=4096))]
    resolution: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct BurgersArgs {
    /// The viscosity ν
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    nu: f64,
    /// Points
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(4..=65536))]
    resolution: u32,
    /// The time of the last frame
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    end: f64,
    #[command(flatten)]
    course: Course,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct Cfd1dArgs {
    #[command(flatten)]
    gas: GasArgs,
    /// The highest velocity at the start, in units of the speed of sound
    #[arg(long, value_name = "M", default_value_t = 1.0)]
    mach: f64,
    /// Points
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(4..=65536))]
    resolution: u32,
    /// The time of the last frame
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    end: f64,
    #[command(flatten)]
    course: Course,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct Cfd2dArgs {
    #[command(flatten)]
    gas: GasArgs,
    /// The highest velocity at the start, in units of the speed of sound
    #[arg(long, value_name = "M", default_value_t = 0.1)]
    mach: f64,
    /// Points along each axis
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=4096))]
    resolution: u32,
    /// The time of the last frame
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    end: f64,
    #[command(flatten)]
    course: Course,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct GasArgs {
    /// The shear viscosity η
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    eta: f64,
    /// The bulk viscosity ζ
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    zeta: f64,
}

/// What develops in time.
#[derive(Debug, Args)]
struct Course {
    /// Frames, the start included
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    frames: u32,
    /// The highest wave number of the initial fields [default: 4; 2 on two axes, where more would not last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    modes: Option<u32>,
}

/// What every set has.
#[derive(Debug, Args)]
struct Common {
    /// The file to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Samples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Compute with so many cells along each axis for each point that is written
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    refine: u32,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 13)]
    seed: u64,
    /// Threads of the CPU [default: what the machine or its container allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

impl Set {
    /// What is to be computed, checked, and how it is written.
    pub fn resolve(&self) -> Result<(Box<dyn Recipe>, generate::Settings)> {
        Ok(match self {
            Set::Darcy(set) => {
                let recipe = DarcyFlow {
                    force: at_least_zero("--beta", set.beta)?,
                    resolution: set.resolution as usize,
                    refine: set.common.refine as usize,
                };
                (Box::new(recipe), set.common.settings())
            }
            Set::Burgers(set) => {
                let recipe = Burgers {
                    viscosity: at_least_zero("--nu", set.nu)?,
                    resolution: set.resolution as usize,
                    refine: set.common.refine as usize,
                    modes: set.course.modes(4, set.resolution)?,
                    frames: set.course.frames(set.end)?,
                };
                (Box::new(recipe), set.common.settings())
            }
            Set::Cfd1d(set) => {
                let recipe =
                    compressible(1, &set.gas, set.mach, set.resolution, set.end, &set.course, &set.common)?;
                (Box::new(recipe), set.common.settings())
            }
            Set::Cfd2d(set) => {
                let recipe =
                    compressible(2, &set.gas, set.mach, set.resolution, set.end, &set.course, &set.common)?;
                (Box::new(recipe), set.common.settings())
            }
        })
    }
}

fn compressible(
    axes: usize,
    gas: &GasArgs,
    mach: f64,
    resolution: u32,
    end: f64,
    course: &Course,
    common: &Common,
) -> Result<Compressible> {
    let (shear, bulk) = (at_least_zero("--eta", gas.eta)?, at_least_zero("--zeta", gas.zeta)?);
    Ok(Compressible {
        axes,
        gas: Gas { gamma: GAMMA, shear, bulk },
        mach: at_least_zero("--mach", mach)?,
        resolution: resolution as usize,
        refine: common.refine as usize,
        modes: course.modes(if axes == 1 { 4 } else { 2 }, resolution)?,
        frames: course.frames(end)?,
    })
}

impl Course {
    fn frames(&self, end: f64) -> Result<Frames> {
        if !(end > 0.0 && end.is_finite()) {
            bail!("--end is a time above 0.");
        }
        Ok(Frames { count: self.frames as usize, end })
    }

    /// A wave needs some points to be one.
    fn modes(&self, default: u32, resolution: u32) -> Result<u64> {
        let modes = self.modes.unwrap_or(default);
        let least = 4 * modes;
        if resolution < least {
            bail!(
                "--modes {modes} needs a --resolution of at least {least}, four points for the shortest wave; \
                 {resolution} is given."
            );
        }
        Ok(u64::from(modes))
    }
}

impl Common {
    fn settings(&self) -> generate::Settings {
        generate::Settings {
            output: self.output.clone(),
            samples: self.samples as usize,
            seed: self.seed,
            threads: self.threads.map_or(0, usize::from),
            quiet: self.quiet,
        }
    }
}

fn at_least_zero(name: &str, value: f64) -> Result<f64> {
    if !(0.0..f64::INFINITY).contains(&value) {
        bail!("{name} is a number of at least 0.");
    }
    Ok(value)
}
