//! Log lines: formatted here, written to standard error in `writer`.
//!
//! The formats are those of `tracing-subscriber`, plus the operationID and the trace of the callback that a line belongs to, which
//! its formatters cannot add. Text from callers cannot start a new line, and what a reader would not see is escaped.

mod escape;
mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    panic::PanicHookInfo,
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use humantime::format_rfc3339_micros;
use opentelemetry::{Context, trace::TraceContextExt};
use serde::ser::{SerializeMap, Serializer as _};
use serde_json::ser::{Compound, Serializer};
use tracing::{Event, Level, Subscriber, field::display};
use tracing_serde::SerdeMapVisitor;
use tracing_subscriber::{
    Layer,
    field::{MakeExt, RecordFields},
    fmt::format::{FormatFields, Writer, debug_fn},
    layer,
};

use self::escape::{OneLine, Visible};
pub(crate) use self::writer::{WRITER, dropped, start};
pub use self::{escape::is_invisible, writer::flush};
use crate::{LogFormat, propagation};

/// Calls `add` with the operationID and the trace of the current callback, as far as there are any.
fn context_fields<E>(
    mut add: impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
) -> Result<(), E> {
    Context::map_current(|cx| {
        if let Some(id) = propagation::operation_id(cx) {
            add("operationID", format_args!("{id}"))?;
        }
        let span = cx.span();
        let span = span.span_context();
        if span.is_valid() {
            let (trace_id, span_id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
            add(
                "trace_id",
                format_args!("{}", HEXLOWER.encode_display(&trace_id)),
            )?;
            add(
                "span_id",
                format_args!("{}", HEXLOWER.encode_display(&span_id)),
            )?;
        }
        Ok(())
    })
}

/// The fields of a human-readable line.
pub(crate) struct HumanFields;

impl<'w> FormatFields<'w> for HumanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut one_line = OneLine(&mut writer);
        // As the default formatter, which styles each field with escape sequences of no content where colours are off.
        let plain = debug_fn(|writer, field, value| match field.name() {
            "message" => write!(writer, "{value:?}"),
            name => write!(writer, "{name}={value:?}"),
        });
        let plain = plain.delimited(" ");
        plain.format_fields(Writer::new(&mut one_line), fields)?;
        context_fields(|name, value| write!(writer, " {name}={value}"))
    }
}

/// Writes each event as a line with a JSON object.
pub(crate) struct JsonLines;

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let metadata = event.metadata();
        // A library's event may have a name instead of a message.
        let has_message = metadata.fields().field("message").is_some();
        let message = (!has_message).then(|| metadata.name());
        let line = json_line(*metadata.level(), metadata.target(), message, |map| {
            let mut fields = SerdeMapVisitor::new(map);
            event.record(&mut fields);
            fields.take_serializer()
        });
        WRITER.push(&line);
    }
}

type Map<'a> = Compound<'a, &'a mut Vec<u8>, Visible>;

/// A JSON line with `message` and the fields that `fields` adds; empty in the event of an error.
fn json_line(
    level: Level,
    target: &str,
    message: Option<&str>,
    fields: impl for<'a> FnOnce(Map<'a>) -> serde_json::Result<Map<'a>>,
) -> Vec<u8> {
    // A decision's line has some 400 bytes.
    let mut line = Vec::with_capacity(512);
    let mut serializer = Serializer::with_formatter(&mut line, Visible);
    let written = serializer.serialize_map(None).and_then(|mut map| {
        map.serialize_entry("time", &format_args!("{}", now()))?;
        map.serialize_entry("level", level.as_str())?;
        map.serialize_entry("target", target)?;
        context_fields(|name, value| map.serialize_entry(name, &value))?;
        if let Some(message) = message {
            map.serialize_entry("message", message)?;
        }
        fields(map)?.end()
    });
    match written {
        Ok(()) => line.push(b'\n'),
        Err(_) => line.clear(),
    }
    line
}

/// The line of an error that ends the process: human-readable unless the log is in JSON.
pub(crate) fn failure(error: &str) -> Vec<u8> {
    match writer::format() {
        Some(LogFormat::Json) => {
            json_line(Level::ERROR, module_path!(), Some(error), |map| Ok(map))
        }
        _ => format!("error: {error}\n").into_bytes(),
    }
}

/// The line in place of `lines` dropped ones.
fn gap(format: LogFormat, lines: u64) -> Vec<u8> {
    let message = format!("{lines} log lines were dropped: standard error did not take them");
    match format {
        LogFormat::Human => format!("{}  {} {message}\n", now(), Level::WARN).into_bytes(),
        LogFormat::Json => json_line(Level::WARN, module_path!(), Some(&message), |mut map| {
            map.serialize_entry("lines", &lines)?;
            Ok(map)
        }),
    }
}

/// Logs a panic like any other error: in the log's format, with the callback it belongs to, and without blocking on standard error.
pub(crate) fn panicked(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = captured.then(|| display(backtrace));
    tracing::error!(
        location = panic.location().map(display),
        backtrace,
        "panicked: {message}"
    );
}

/// In UTC, with microseconds.
fn now() -> impl fmt::Display {
    format_rfc3339_micros(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_has_escapes_for_what_a_reader_would_not_see() {
        let value = "u\u{202e}1\u{200b}\u{9b}31m\u{7f}\u{e0001}\n\"é用";
        let line = json_line(Level::INFO, "target", Some(value), |mut map| {
            map.serialize_entry("userAgent", &format_args!("{value}"))?;
            Ok(map)
        });
        let line = String::from_utf8(line).unwrap();
        let escaped = r#""u\u202e1\u200b\u009b31m\u007f\udb40\udc01\n\"é用""#;
        let fields = format!(r#""message":{escaped},"userAgent":{escaped}}}"#);
        assert!(line.ends_with(&format!("{fields}\n")), "{line}");
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["userAgent"], value);
    }
}
