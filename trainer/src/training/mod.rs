//! The loop, and what it asks of a model and its data. It knows nothing of text.

mod problem;

pub use problem::{Mode, Parameter, Problem, Score};
