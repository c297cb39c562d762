//! The detector: reads the events about decisions, and adds owners whose behaviour matches the operator's [`rules`] to live lists.
//!
//! `engine` finds these owners, as a pure function of the events. `follow` and `reader` read the stream, and `act` writes the lists.

mod act;
mod context;
mod decision;
mod deliveries;
mod engine;
mod follow;
mod metrics;
mod reader;
mod recent;
mod replay;
pub mod rules;
mod run;
mod settings;
mod simulation;
mod status;
mod window;

pub use context::DECISIONS;
pub use run::{RunError, run};
pub use settings::Settings;
pub use simulation::{Simulation, Would};
