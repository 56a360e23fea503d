//! TempBalance without training: from spectra to the learning rate of every parameter.
//!
//! "Model Balancing Helps Low-data Training and Fine-tuning" (arXiv 2410.12178) gives blocks whose
//! alpha lies above the mean a larger rate than the others. Everything here is plain data and pure
//! functions, in the order in which a training loop needs them:
//!
//! | module | from → to |
//! |---|---|
//! | `units` | a report and the names of parameters → who shares a rate ([`Plan`]) |
//! | `spectra` | weights, again and again → the newest numbers of every matrix ([`Spectra`]) |
//! | `drift` | how far weights have moved → which alphas are due to be computed again ([`Drift`]) |
//! | `mapping` | the numbers of all units → factors of the base rate ([`Mapping`]) |
//! | `rate` | an optimizer step → the base rate ([`BaseRate`]) |
//! | `controller` | the course of the alpha STD → the gain ([`Controller`]) |
//! | `stop` | an evaluation → whether its state is kept, whether training ends, and why ([`StopRule`]) |
//!
//! What changes during a run is serialisable, so that an interrupted run goes on where it was.

mod controller;
mod drift;
mod mapping;
mod rate;
mod spectra;
mod stop;
mod units;

pub use controller::{Controller, Course, Event, Reason, Target};
pub use drift::{CLOSELY, Drift, InUse, TOLERANCE};
pub use mapping::{Gain, Mapping, Measure, OutOfRange};
pub use rate::{BaseRate, Decay, warmup_steps};
pub use spectra::{Numbers, Spectra};
pub use stop::{Better, StopRule, Stopped, Verdict, number_or_nan};
pub use units::{Plan, Unit, UnitOptions, spread};
