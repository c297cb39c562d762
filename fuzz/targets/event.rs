//! A message on the stream, as subscribers read it: by the contract's types, and as a line of `importguard tail`.
#![no_main]

use importguard_gateway::events::{DecisionEvent, ImportedEvent};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

/// The command's own modules, which no library has.
#[path = "../../src/events/event.rs"]
#[allow(dead_code)]
mod event;
#[path = "../../src/tail/line.rs"]
#[allow(dead_code)]
mod line;
#[path = "../../src/events/matched.rs"]
#[allow(dead_code)]
mod matched;
#[path = "../../src/output.rs"]
#[allow(dead_code)]
mod output;
#[path = "../../src/text.rs"]
#[allow(dead_code)]
mod text;
#[path = "../../src/events/when.rs"]
#[allow(dead_code)]
mod when;

/// As they find each other.
use self::{event::printable, matched::Matched, when::exact_rfc3339};

/// As the line finds them.
mod events {
    pub(crate) use crate::event::{Data, Event, Fired, list_change, printable, to_the_millisecond};
}

fuzz_target!(|payload: &[u8]| {
    stays_the_same::<DecisionEvent<'static>>(payload);
    stays_the_same::<ImportedEvent<'static>>(payload);
    if let Some(line) = told(payload) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
});

/// The event as `importguard tail` prints it.
fn told(payload: &[u8]) -> Option<String> {
    let seen: event::Event = serde_json::from_slice(payload).ok()?;
    seen.data.rules_that_fired().for_each(drop);
    Some(line::Lines::new(false).line(&seen))
}

/// What was read and is written is the same when it is read again.
fn stays_the_same<E: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    let Ok(event) = serde_json::from_slice::<E>(payload) else {
        return;
    };
    let written = serde_json::to_vec(&event).expect("what was read can be written");
    let again: E = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, event);
}
