//! Live lists: those in a JetStream key-value bucket, kept up to date by a watch.
//!
//! [`LiveLists`] is their state at one revision, which an evaluation takes as it is. [`Watch`] keeps the newest state, [`Status`] says
//! how current that is, and `snapshot` keeps it on disk for a start while NATS is away.

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
pub use watch::{StartError, Watch};
