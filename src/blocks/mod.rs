//! From tensor names to blocks, and from the matrices' numbers to those of blocks and stacks.
//!
//! [`Naming`] decides by name alone which block a tensor belongs to; [`blocks`] and [`stacks`] average. Neither
//! knows what a matrix is or where the numbers come from.

mod families;
mod naming;
mod stats;

pub use families::FAMILIES;
pub use naming::{Block, Family, Naming, Path, Units};
pub use stats::{Block as BlockStats, Member, Stack as StackStats, Statistics, blocks, mean, stacks};
