//! The spans of a callback: its own, and the publishing of its event. What they tell is built only where somebody reads it.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use importguard_core::{Cause, EventId};
use importguard_telemetry::{
    Ending, Served,
    span::{KeyValue, SpanKind, child, failed, method, recorded},
};
use tracing::{Span, field::Empty, info_span};

use crate::{
    decide::message,
    openim::Asked,
    recorder::{Recorded, Unrecordable},
};

/// How much of a path is told, in bytes: several times what OpenIM's longest has.
const PATH_BYTES: usize = 256;

/// A request, as its span tells of it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) scheme: &'static str,
    pub(super) asked: Arc<Asked>,
}

/// What became of a request: an extension of its response.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// A verdict, and what went wrong on the way to it or to its event.
    Decided(&'static str, Option<Cause>),
    /// An answer without a decision, with this code.
    Rejected(i32),
    /// Something was passed on, or taken note of, and what went wrong there.
    Done(Option<Cause>),
}

impl End {
    fn cause(self) -> Option<Cause> {
        match self {
            Self::Decided(_, cause) | Self::Done(cause) => cause,
            Self::Rejected(_) => None,
        }
    }
}

impl Seen {
    /// Begins the request's span, or just its part of the trace.
    pub(super) fn begin(&self, headers: &HeaderMap) -> Served {
        Served::begin(headers, self.asked.operation_id.as_ref().ok(), || {
            info_span!("callback", otel.kind = "server")
        })
    }

    /// Ends it. That nobody could decide, or that it is recorded nowhere, is an error, whatever was answered.
    pub(super) fn end(&self, served: Served, end: End, status: StatusCode) {
        let ending = match (end.cause(), end) {
            (Some(cause), _) => Ending::Failed(message(cause)),
            (None, _) if status.is_server_error() => Ending::Failed(""),
            (None, End::Rejected(_)) => Ending::Rejected,
            (None, End::Decided(..) | End::Done(_)) => Ending::Well,
        };
        self.close(served, ending, || {
            let mut attributes = self.asked();
            attributes.extend(answered(end, status));
            attributes
        });
    }

    /// Ends it without an answer.
    pub(super) fn abandon(&self, served: Served, error_type: &'static str) {
        self.close(served, Ending::Failed("never answered"), || {
            let mut attributes = self.asked();
            attributes.push(KeyValue::new("error.type", error_type));
            attributes
        });
    }

    fn close(&self, served: Served, ending: Ending<'_>, attributes: impl Fn() -> Vec<KeyValue>) {
        // Named `{method} {route}`, as OpenTelemetry's conventions have it.
        let route = self.asked.target.route().text();
        let name = || format!("{} {route}", method(&self.method).0);
        served.end(SpanKind::Server, ending, name, attributes);
    }

    fn asked(&self) -> Vec<KeyValue> {
        let target = &self.asked.target;
        let mut attributes = vec![
            KeyValue::new("http.request.method", method(&self.method).1.to_owned()),
            KeyValue::new("http.route", target.route().text()),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new("openim.dialect", target.dialect.as_str()),
        ];
        // What comes before may be a secret; a path that lies elsewhere may be a secret with a mistake in it.
        let below = target.below(self.asked.uri.path());
        if let Some(path) = below.filter(|path| path.len() <= PATH_BYTES) {
            attributes.push(KeyValue::new("url.path", path.to_owned()));
        }
        attributes
    }
}

fn answered(end: End, status: StatusCode) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(
        "http.response.status_code",
        i64::from(status.as_u16()),
    )];
    match end {
        End::Decided(verdict, _) => {
            attributes.push(KeyValue::new("importguard.verdict", verdict));
        }
        End::Rejected(code) => {
            attributes.push(KeyValue::new("importguard.rejection.code", i64::from(code)));
        }
        End::Done(_) => {}
    }
    if let Some(cause) = end.cause() {
        attributes.push(KeyValue::new("importguard.cause", cause.as_str()));
        attributes.push(KeyValue::new("error.type", cause.as_str()));
    } else if status.is_server_error() {
        attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
    }
    attributes
}

/// The span of an event's way to NATS or the spool.
pub(crate) fn publish_span(subject: &'static str, id: EventId) -> Span {
    child(|| {
        info_span!(
            "publish",
            otel.name = format!("publish {subject}"),
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.operation.name = "publish",
            messaging.operation.r#type = "send",
            messaging.destination.name = subject,
            messaging.message.id = %id,
            importguard.recorded = Empty,
        )
    })
}

/// On an event's span: where it went.
pub(crate) fn published(result: &Result<Recorded, Unrecordable>) {
    if !recorded() {
        return;
    }
    let span = Span::current();
    let recorded = match result {
        Ok(Recorded::Streamed) => "streamed",
        Ok(Recorded::Spooled) => "spooled",
        Err(error) => return failed(&span, Cause::Unrecordable.as_str(), error),
    };
    span.record("importguard.recorded", recorded);
}
