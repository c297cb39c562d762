//! Files that change while the process runs: policies and lists, credentials, keys, certificates.
//!
//! A [`FileWatcher`] reads them again when they have changed and settled, and keeps their [`LastGood`] content: invalid content is
//! reported and replaces nothing. [`FileWatches`] runs all watchers of a process.

mod fingerprint;
mod last_good;
mod watcher;
mod watches;

pub use fingerprint::Fingerprint;
pub use last_good::{Failure, LastGood, Status};
pub use watcher::{FileWatcher, Reload, Snapshot};
pub(crate) use watches::Certificates;
pub use watches::{FileWatches, SharedWatches};
