//! Log lines: formatted here, written to standard error in `writer`.
//!
//! The formats are those of `tracing-subscriber`, plus the operationID and the trace of the callback that a line belongs to, which
//! its formatters cannot add. Text from callers cannot start a new line, and what a reader would not see is escaped: neither an escape
//! sequence of a terminal nor a change of direction may make a line look like another.

mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write},
    io,
    panic::PanicHookInfo,
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use humantime::format_rfc3339_micros;
use opentelemetry::{Context, trace::TraceContextExt};
use serde::ser::{SerializeMap, Serializer as _};
use serde_json::ser::{Compound, Formatter, Serializer};
use tracing::{Event, Level, Subscriber, field::display};
use tracing_serde::SerdeMapVisitor;
use tracing_subscriber::{
    Layer,
    field::{MakeExt, RecordFields},
    fmt::format::{FormatFields, Writer, debug_fn},
    layer,
};

pub use self::writer::flush;
pub(crate) use self::writer::{WRITER, dropped, start};
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

/// Writes text in which control and invisible characters are replaced by their escapes.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        split(text, |seen, unseen| {
            self.0.write_str(seen)?;
            match unseen {
                Some(c) => write!(self.0, "{}", c.escape_default()),
                None => Ok(()),
            }
        })
    }
}

/// Compact JSON with escapes for all control and invisible characters. JSON itself requires them only for those below U+0020.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        split(fragment, |seen, unseen| {
            writer.write_all(seen.as_bytes())?;
            let Some(c) = unseen else { return Ok(()) };
            c.encode_utf16(&mut [0; 2])
                .iter()
                .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }
}

/// Whether a character takes no space on a screen: Unicode's `Default_Ignorable_Code_Point` and the line and paragraph separators.
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Calls `write` with the parts of a text, each with the control or invisible character that follows it.
fn split<E>(
    text: &str,
    mut write: impl FnMut(&str, Option<char>) -> Result<(), E>,
) -> Result<(), E> {
    // Nearly all text is printable ASCII, and checking bytes is faster than checking characters.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return write(text, None);
    }
    let is_unseen = |c: char| c.is_control() || is_invisible(c);
    text.split_inclusive(is_unseen).try_for_each(|part| {
        let last = part.chars().next_back().filter(|c| is_unseen(*c));
        write(&part[..part.len() - last.map_or(0, char::len_utf8)], last)
    })
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

    #[test]
    fn text_stays_on_one_line_and_in_its_direction() {
        for (text, expected) in [
            ("plain a\nb\u{1b}[0m", "plain a\\nb\\u{1b}[0m"),
            (
                "a\u{202e}b\u{2066}\u{200f}é用",
                "a\\u{202e}b\\u{2066}\\u{200f}é用",
            ),
        ] {
            let mut line = String::new();
            OneLine(&mut line).write_str(text).unwrap();
            assert_eq!(line, expected);
        }
    }
}
