//! The loop, and what it asks of a model and its data. It knows nothing of text.

mod anchors;
mod asked;
mod balancer;
mod events;
mod log;
mod models;
mod problem;
mod progress;
mod run;
mod state;
mod worker;

pub use balancer::{Balancer, Setting, report};
pub(crate) use problem::in_memory;
pub use problem::{Mode, Parameter, Problem, Score, Update, evaluation_batch};
pub use run::{Finished, INTERRUPTED, Run, Settings, steps_per_epoch};
