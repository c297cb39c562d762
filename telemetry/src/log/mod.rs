//! Log lines: their form here, their way to standard error in `writer`, a panic as a line in `panic`.

mod panic;
mod writer;

use std::{
    fmt::{self, Write},
    num::NonZeroU8,
};

use opentelemetry::{Context, trace::TraceContextExt};
use serde::ser::{SerializeMap, Serializer as _};
use time::{
    OffsetDateTime,
    format_description::well_known::{
        Iso8601,
        iso8601::{Config, EncodedConfig, TimePrecision},
    },
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

pub use self::writer::finish;
pub(crate) use self::{
    panic::panicked,
    writer::{Stderr, left_out, start},
};
use crate::{LogFormat, propagation};

/// Writes an event as one line, with the operationID and the trace of the callback it belongs to.
pub(crate) struct Lines {
    format: LogFormat,
}

impl Lines {
    pub(crate) fn new(format: LogFormat) -> Self {
        Self { format }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Context::map_current(|cx| match self.format {
            LogFormat::Human => human(writer, event, cx),
            LogFormat::Json => json(writer, event, cx),
        })
    }
}

fn human(mut writer: Writer<'_>, event: &Event<'_>, cx: &Context) -> fmt::Result {
    let ansi = writer.has_ansi_escapes();
    let level = event.metadata().level();
    if ansi {
        write!(writer, "\x1b[2m{}\x1b[0m ", now())?;
        write!(writer, "\x1b[{}m{level:>5}\x1b[0m ", colour(*level))?;
    } else {
        write!(writer, "{} {level:>5} ", now())?;
    }
    for part in [Part::Message, Part::Fields] {
        let mut words = Words {
            writer: OneLine(&mut writer),
            part,
            written: Ok(()),
        };
        event.record(&mut words);
        words.written?;
    }
    if let Some(id) = propagation::operation_id(cx) {
        write!(writer, " operationID={id}")?;
    }
    let span = cx.span();
    let span = span.span_context();
    if span.is_valid() {
        let (trace, span) = (span.trace_id(), span.span_id());
        write!(writer, " trace_id={trace} span_id={span}")?;
    }
    writeln!(writer)
}

fn json(mut writer: Writer<'_>, event: &Event<'_>, cx: &Context) -> fmt::Result {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let line = json_line(event, &fields, cx).map_err(|_| fmt::Error)?;
    writeln!(writer, "{line}")
}

fn json_line(event: &Event<'_>, fields: &Fields, cx: &Context) -> serde_json::Result<String> {
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("time", &now())?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    map.serialize_entry("target", event.metadata().target())?;
    map.serialize_entry("message", &fields.message)?;
    if let Some(id) = propagation::operation_id(cx) {
        map.serialize_entry("operationID", id)?;
    }
    let span = cx.span();
    let span = span.span_context();
    if span.is_valid() {
        map.serialize_entry("trace_id", &span.trace_id().to_string())?;
        map.serialize_entry("span_id", &span.span_id().to_string())?;
    }
    for (name, value) in &fields.rest {
        match value {
            Value::Text(text) => map.serialize_entry(name, text)?,
            Value::Json(value) => map.serialize_entry(name, value)?,
        }
    }
    map.end()?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The line that tells what a process ends with: for a person, unless its log is for machines.
pub(crate) fn failure(error: &str) -> String {
    match writer::format() {
        Some(LogFormat::Json) => json_alone(Level::ERROR, error, None),
        Some(LogFormat::Human) | None => format!("error: {error}\n"),
    }
}

/// The line that stands for `lines` that were left out.
fn gap(format: LogFormat, lines: u64) -> String {
    let message = format!("{lines} log lines were left out: standard error did not take them");
    match format {
        LogFormat::Human => format!("{}  {} {message}\n", now(), Level::WARN),
        LogFormat::Json => json_alone(Level::WARN, &message, Some(lines)),
    }
}

/// A line that no event made.
fn json_alone(level: Level, message: &str, lines: Option<u64>) -> String {
    let mut line = serde_json::json!({
        "time": now(), "level": level.as_str(), "target": module_path!(), "message": message,
    });
    if let Some(lines) = lines {
        line["lines"] = lines.into();
    }
    format!("{line}\n")
}

/// Microseconds are enough, and with all their digits lines stand below each other.
const TIME: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second {
        decimal_digits: NonZeroU8::new(6),
    })
    .encode();

fn now() -> String {
    text(OffsetDateTime::now_utc())
}

fn text(time: OffsetDateTime) -> String {
    // Fails only for years that have more than four digits.
    time.format(&Iso8601::<TIME>).unwrap_or_default()
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Which part of an event is written: the message comes first, wherever it was recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Message,
    Fields,
}

/// Writes a part of an event for a person, field by field.
struct Words<W> {
    writer: OneLine<W>,
    part: Part,
    written: fmt::Result,
}

impl<W: fmt::Write> Words<W> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let part = match field.name() {
            MESSAGE => Part::Message,
            _ => Part::Fields,
        };
        if self.written.is_err() || part != self.part {
            return;
        }
        self.written = match part {
            Part::Message => self.writer.write_fmt(value),
            Part::Fields => write!(self.writer, " {field}={value}"),
        };
    }
}

impl<W: fmt::Write> Visit for Words<W> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE && value.contains([' ', '"', '=']) {
            self.write(field, format_args!("{value:?}"));
        } else {
            self.write(field, format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.write(field, format_args!("{value:?}"));
        } else {
            // Whether it wants quotes is known when it is there.
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// Writes on one line: somebody else's text must not be able to begin a log line of its own.
struct OneLine<W>(W);

impl<W: fmt::Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((end, control)) if control.is_control() => {
                    self.0.write_str(&piece[..end])?;
                    write!(self.0, "{}", control.escape_default())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

/// The name that tracing gives an event's message.
const MESSAGE: &str = "message";

/// An event's message, and its other fields in the order in which they were written.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    Json(serde_json::Value),
}

impl Fields {
    fn push(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.rest.push((field.name(), Value::Json(value.into())));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.message = one_line(value);
        } else {
            self.rest.push((field.name(), Value::Text(one_line(value))));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    // Writing to a String cannot fail.
    let _ = OneLine(&mut line).write_str(text);
    line
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::*;

    #[test]
    fn a_time_has_all_its_digits() {
        let time = OffsetDateTime::parse("2026-11-24T09:12:44.31Z", &Rfc3339).unwrap();
        assert_eq!(text(time), "2026-11-24T09:12:44.310000Z");
    }

    #[test]
    fn a_text_with_a_line_break_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(one_line("plain"), "plain");
    }
}
