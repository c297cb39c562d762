//! What the commands that read events share: the stream as a source, the fields of an event, times and messages.

mod console;
mod event;
mod source;
mod when;

pub(crate) use self::{
    console::Console,
    event::{Data, Event, printable, to_the_millisecond},
    source::{Begin, Consumed, Delivered, Durable, Range, Source},
    when::{rfc3339, time},
};
