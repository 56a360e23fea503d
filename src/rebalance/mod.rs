//! `evenkeel rebalance`, as far as it needs no libtorch: the options of a run, the settings of known
//! tasks, and where the trainer program is.

pub mod fields;
pub mod locate;
pub mod options;
pub mod presets;
