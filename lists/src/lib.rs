//! Live lists: lists of user IDs in the JetStream key-value bucket [`BUCKET`], which commands and detectors write and deciders watch.
//!
//! Each entry has one key, `<list>.<id>` ([`Key`]). Its value records who added or removed the ID, when, why and until when ([`Entry`]).
//! A removed entry stays in the bucket, marked as removed, until it is cleared ([`Bucket::clear`]), so that a reader that was disconnected
//! for a while still sees the removal. [`Changes`] reads the bucket from a revision onwards without gaps, and [`Writer`] changes it and
//! publishes each change as an event.

mod bucket;
mod causes;
mod changes;
mod clear;
mod entry;
mod event;
mod key;
mod published;
mod writer;

pub use bucket::{BUCKET, Bucket, BucketError, STREAM, SUBJECTS, State};
pub use causes::LoggedCauses;
pub use changes::{Change, ChangeKind, Changes, LostError};
pub use clear::{Announcement, Cleared, RETENTION};
pub use entry::{Author, Brief, Entry, MAX_TEXT_BYTES, Reason, TextError};
pub use event::{CHANGED_SUBJECT, ChangeMade, ListChangedData, ListChangedEvent};
pub use key::{Key, KeyError, ListName, NameError};
pub use writer::{Added, Addition, Writer, Written};
