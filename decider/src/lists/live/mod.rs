//! Live lists: lists in a JetStream key-value bucket, kept up to date by a watch.
//!
//! [`LiveLists`] is their state at one revision, which does not change during an evaluation. [`Watch`] holds the latest state, [`Status`]
//! reports how current it is, and `snapshot` saves it on disk so that a decider can start while NATS is unreachable.

mod leaf;
mod map;
mod metrics;
mod recent;
mod settings;
mod snapshot;
mod state;
mod status;
mod watch;

pub use leaf::Entry;
pub use map::LiveMap;
pub use settings::{LiveSettings, OnStale};
pub use state::{LiveList, LiveLists};
pub use status::Status;
pub use watch::Watch;
