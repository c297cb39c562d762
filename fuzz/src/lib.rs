//! What the fuzz targets have in common: reading answers as OpenIM does, and holding decisions to their promises.

// A target that finds something stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod policies;

pub use answers::{refuses, spoken};
pub use policies::{Asked, decide};
