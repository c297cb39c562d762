//! The events that subscribers receive: CloudEvents, with pseudonyms instead of user IDs if so configured.

mod cloud_event;
mod fired;
mod origin;
mod pseudonym;
mod size;

pub use cloud_event::{
    CONTENT_TYPE, CloudEvent, DecisionData, DecisionEvent, EventType, ImportedData, ImportedEvent,
    Micros, Removed, SpecVersion, Subject,
};
pub(crate) use fired::expiry;
pub use fired::{Fired, Matched};
pub use origin::{Event, EventContext, Origin, Timings};
pub use pseudonym::{
    PseudonymFileError, PseudonymKey, PseudonymKeyError, PseudonymSettings, Pseudonyms,
};
pub(crate) use size::fit;
