//! Log lines: their form here, their way to standard error in `writer`.
//!
//! The form is that of `tracing-subscriber` with what its formatters have no place for: the operationID and the trace of the
//! callback that a line belongs to. Text from outside cannot begin a line of its own.

mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    fmt,
    panic::PanicHookInfo,
};

use opentelemetry::{Context, trace::TraceContextExt};
use serde::ser::{SerializeMap, Serializer as _};
use serde_json::{
    Serializer,
    ser::{CompactFormatter, Compound},
};
use tracing::{Event, Level, Subscriber, field::display};
use tracing_serde::SerdeMapVisitor;
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

pub use self::writer::flush;
pub(crate) use self::writer::{StandardError, dropped, start};
use crate::{LogFormat, propagation};

/// The fields of a line for a person, on one line and with the operationID and the trace of the callback that it belongs to.
pub(crate) struct HumanFields;

impl<'w> FormatFields<'w> for HumanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut one_line = OneLine(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut one_line), fields)?;
        Context::map_current(|cx| {
            if let Some(id) = propagation::operation_id(cx) {
                write!(writer, " operationID={id}")?;
            }
            let span = cx.span();
            let span = span.span_context();
            if span.is_valid() {
                write!(
                    writer,
                    " trace_id={} span_id={}",
                    span.trace_id(),
                    span.span_id()
                )?;
            }
            Ok(())
        })
    }
}

/// A line as a JSON object, with the operationID and the trace of the callback that it belongs to.
pub(crate) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let line = json_line(*metadata.level(), metadata.target(), |mut map| {
            // A library's event may have a name instead.
            if metadata.fields().field("message").is_none() {
                map.serialize_entry("message", metadata.name())?;
            }
            let mut fields = SerdeMapVisitor::new(map);
            event.record(&mut fields);
            fields.take_serializer()
        });
        writer.write_str(&line.map_err(|_| fmt::Error)?)
    }
}

type Map<'a> = Compound<'a, &'a mut Vec<u8>, CompactFormatter>;

/// A line with what `fields` adds to it.
fn json_line(
    level: Level,
    target: &str,
    fields: impl for<'a> FnOnce(Map<'a>) -> serde_json::Result<Map<'a>>,
) -> serde_json::Result<String> {
    // A decision's line has some 400 bytes.
    let mut line = Vec::with_capacity(512);
    let mut serializer = Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("time", &now())?;
    map.serialize_entry("level", level.as_str())?;
    map.serialize_entry("target", target)?;
    Context::map_current(|cx| {
        if let Some(id) = propagation::operation_id(cx) {
            map.serialize_entry("operationID", id)?;
        }
        let span = cx.span();
        let span = span.span_context();
        if span.is_valid() {
            map.serialize_entry("trace_id", &format_args!("{}", span.trace_id()))?;
            map.serialize_entry("span_id", &format_args!("{}", span.span_id()))?;
        }
        Ok::<_, serde_json::Error>(())
    })?;
    fields(map)?.end()?;
    line.push(b'\n');
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The line of an error that ends the process: for a person, unless the log is for machines.
pub(crate) fn failure(error: &str) -> String {
    match writer::format() {
        Some(LogFormat::Json) => message_line(Level::ERROR, error, None),
        Some(LogFormat::Human) | None => format!("error: {error}\n"),
    }
}

/// The line that stands for `lines` that were dropped.
fn gap(format: LogFormat, lines: u64) -> String {
    let message =
        format!("{lines} log lines were dropped: standard error was not read fast enough");
    match format {
        LogFormat::Human => format!("{}  {} {message}\n", now(), Level::WARN),
        LogFormat::Json => message_line(Level::WARN, &message, Some(lines)),
    }
}

/// A JSON line that no event made.
fn message_line(level: Level, message: &str, lines: Option<u64>) -> String {
    let line = json_line(level, module_path!(), |mut map| {
        map.serialize_entry("message", message)?;
        if let Some(lines) = lines {
            map.serialize_entry("lines", &lines)?;
        }
        Ok(map)
    });
    line.unwrap_or_default()
}

/// Logs a panic as any other error: in the log's form, with the callback it belongs to, and without waiting for a reader of
/// standard error.
pub(crate) fn panicked(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(display);
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = captured.then(|| display(backtrace));
    tracing::error!(location, backtrace, "panicked: {message}");
}

/// In UTC, with microseconds.
fn now() -> String {
    let mut now = String::with_capacity(27);
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    now
}

/// Writes on one line: control characters become their escapes.
struct OneLine<W>(W);

impl<W: fmt::Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&one_line(text))
    }
}

fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_line_break_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(one_line("plain"), "plain");
    }
}
