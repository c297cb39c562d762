//! Shared code of the commands that read events: the stream as a source, the fields of an event, times and messages.

mod console;
mod durable;
mod event;
mod matched;
mod nats_error;
mod range;
mod source;
mod when;

pub(crate) use self::{
    console::Console,
    durable::Durable,
    event::{
        Data, Event, Fired, friends, list_change, printable, printable_json, to_the_millisecond,
        with_pseudonyms,
    },
    matched::Matched,
    nats_error::{forbidden, with_remedy},
    range::{Begin, Range},
    source::{Delivered, Source},
    when::{TimeError, exact_rfc3339, past, rfc3339, time},
};
