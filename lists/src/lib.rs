//! Live lists: lists of user IDs in the JetStream key-value bucket [`BUCKET`], which commands and detectors write and deciders watch.
//!
//! One key per entry, `<list>.<id>` ([`Key`]); its value says who added or removed the ID, when, why and until when ([`Entry`]).
//! A removed entry stays as a value that says so, until it is cleared away ([`Bucket::clear`]): a reader that was away for a while
//! then learns of the removal. [`Changes`] reads the bucket from a revision on without a gap, and [`Writer`] changes it and publishes
//! each change as an event.

mod bucket;
mod changes;
mod clear;
mod entry;
mod event;
mod key;
mod writer;

pub use bucket::{BUCKET, Bucket, BucketError, BucketSettings, STREAM, SUBJECTS, State};
pub use changes::{Change, ChangeKind, Changes, LostError};
pub use clear::{Announcement, Cleared, RETENTION};
pub use entry::{Author, Brief, Entry, MAX_TEXT_BYTES, Reason, TextError};
pub use event::{CHANGED_SUBJECT, ChangeMade, ListChangedData, ListChangedEvent};
pub use key::{Key, KeyError, ListName, NameError};
pub use writer::{Added, Addition, Writer, Written};
