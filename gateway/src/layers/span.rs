//! The spans of a callback: its own, and the publishing of its event.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use importguard_core::{Cause, EventId};
use importguard_telemetry::span::{KeyValue, ServerSpan, child, failed, method, sampled};
use tracing::{Span, field::Empty, info_span};

use crate::{
    decide::message,
    openim::Asked,
    recorder::{Recorded, Unrecordable},
};

/// How much of a path is recorded, in bytes: several times what OpenIM's longest has.
const PATH_BYTES: usize = 256;

/// How much of a method that is not known is recorded, in bytes; HTTP bounds none.
const METHOD_BYTES: usize = 32;

/// A request, as its span describes it.
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
    /// Starts the request's span, named `{method} {route}` as OpenTelemetry's conventions have it.
    pub(super) fn start(&self, headers: &HeaderMap) -> ServerSpan {
        let route = self.asked.target.route().text();
        let name = format!("{} {route}", method(&self.method).0);
        let span = ServerSpan::start(headers, self.asked.operation_id.as_ref().ok(), name);
        span.set(|| self.asked());
        span
    }

    fn asked(&self) -> Vec<KeyValue> {
        let target = &self.asked.target;
        let mut attributes = vec![
            KeyValue::new("http.request.method", method(&self.method).1.to_owned()),
            KeyValue::new("http.route", target.route().text()),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new("openim.dialect", target.dialect.as_str()),
        ];
        if method(&self.method).1 != self.method.as_str() {
            let original = self.method.as_str().chars().take(METHOD_BYTES);
            attributes.push(KeyValue::new(
                "http.request.method_original",
                original.collect::<String>(),
            ));
        }
        // What comes before may be a secret; a path that lies elsewhere may be a secret with a mistake in it.
        let below = target.below(self.asked.uri.path());
        if let Some(path) = below.filter(|path| path.len() <= PATH_BYTES) {
            attributes.push(KeyValue::new("url.path", path.to_owned()));
        }
        attributes
    }
}

/// On a request's span: how it was answered. That nobody could decide, or that it is recorded nowhere, is an error, whatever was
/// answered.
pub(super) fn answered(span: &ServerSpan, end: End, status: StatusCode) {
    span.set(|| {
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
    });
    match end.cause() {
        Some(cause) => span.fail(message(cause)),
        None if status.is_server_error() => span.fail(""),
        None => {}
    }
}

/// On a request's span: nobody got an answer.
pub(super) fn abandoned(span: &ServerSpan) {
    span.set(|| [KeyValue::new("error.type", "abandoned")]);
    span.fail("never answered");
}

/// The span of the publication of an event to `server`, or to the spool.
pub(crate) fn publish_span(
    subject: &'static str,
    id: EventId,
    server: Option<&(String, u16)>,
) -> Span {
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
            server.address = server.map(|(host, _)| host),
            server.port = server.map(|(_, port)| i64::from(*port)),
            importguard.recorded = Empty,
        )
    })
}

/// On an event's span: where it went.
pub(crate) fn published(result: &Result<Recorded, Unrecordable>) {
    if !sampled() {
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
