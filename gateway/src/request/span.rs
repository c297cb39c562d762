//! The spans of a callback: the server span, and the span that publishes its event.

use std::time::SystemTime;

use axum::extract::Request;
use http::{Method, StatusCode};
use importguard_core::{Cause, EventId};
use importguard_telemetry::span::{KeyValue, ServerSpan, child, failed, method, sampled};
use tracing::{Span, field::Empty, info_span};

use super::RequestHead;
use crate::{
    decide::code_and_message,
    openim::Rejection,
    recorder::{RecordError, Recorded},
};

/// Maximum length of a recorded path, in bytes: several times OpenIM's longest.
const PATH_BYTES: usize = 256;

/// Maximum length of a recorded unknown method, in bytes; HTTP has no limit.
const METHOD_BYTES: usize = 32;

/// A response extension: how the request was handled.
#[derive(Clone, Debug)]
pub(crate) enum RequestResult {
    /// Decided with this verdict; the cause of a fallback or of a missing event, if any.
    Decided(&'static str, Option<Cause>),
    /// Rejected without a decision.
    Rejected(Rejection),
    /// Forwarded or only recorded; the cause of a failure, if any.
    Done(Option<Cause>),
}

impl RequestResult {
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Decided(_, cause) | Self::Done(cause) => *cause,
            Self::Rejected(_) => None,
        }
    }
}

/// Starts a request's span, named `{method} {route}` by OpenTelemetry's conventions. `scheme` is `https` or `http`.
pub(crate) fn start(request: &Request, scheme: &'static str, head: &RequestHead) -> ServerSpan {
    let route = head.target.route().text();
    let name = format!("{} {route}", method(request.method()).0);
    let operation_id = head.operation_id.as_ref().ok();
    let began = SystemTime::now() - head.clock.elapsed();
    let span = ServerSpan::start(request.headers(), operation_id, name, began);
    span.set(|| attributes(request.method(), scheme, head));
    span
}

fn attributes(requested: &Method, scheme: &'static str, head: &RequestHead) -> Vec<KeyValue> {
    let target = &head.target;
    let known = method(requested).1;
    let mut attributes = vec![
        KeyValue::new("http.request.method", known.to_owned()),
        KeyValue::new("http.route", target.route().text()),
        KeyValue::new("url.scheme", scheme),
        KeyValue::new("openim.dialect", target.dialect.into_str()),
    ];
    if known != requested.as_str() {
        let original = requested.as_str().chars().take(METHOD_BYTES);
        attributes.push(KeyValue::new(
            "http.request.method_original",
            original.collect::<String>(),
        ));
    }
    if let Some(replaced) = &head.replaced_operation_id {
        attributes.push(KeyValue::new(
            "openim.replaced_operation_id",
            replaced.clone(),
        ));
    }
    // The base path may be a secret; a path outside it may be a mistyped secret.
    let below = target.below(head.url.path());
    if let Some(path) = below.filter(|path| path.len() <= PATH_BYTES) {
        attributes.push(KeyValue::new("url.path", path.to_owned()));
    }
    attributes
}

/// Records the result on a request's span. A failed decision or recording is an error, whatever the response.
pub(crate) fn answered(span: &ServerSpan, result: &RequestResult, status: StatusCode) {
    span.set(|| {
        let mut attributes = vec![KeyValue::new(
            "http.response.status_code",
            i64::from(status.as_u16()),
        )];
        match result {
            RequestResult::Decided(verdict, _) => {
                attributes.push(KeyValue::new("importguard.verdict", *verdict));
            }
            RequestResult::Rejected(rejection) => {
                let code = i64::from(rejection.code());
                attributes.push(KeyValue::new("importguard.rejection.code", code));
            }
            RequestResult::Done(_) => {}
        }
        if let Some(cause) = result.cause() {
            attributes.push(KeyValue::new("importguard.cause", cause.into_str()));
            attributes.push(KeyValue::new("error.type", cause.into_str()));
        } else if status.is_server_error() {
            attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
        }
        attributes
    });
    match result.cause() {
        Some(cause) => span.fail(code_and_message(cause).1),
        None if status.is_server_error() => span.fail(""),
        None => {}
    }
}

/// Records on a request's span that it was abandoned.
pub(crate) fn abandoned(span: &ServerSpan) {
    span.set(|| [KeyValue::new("error.type", "abandoned")]);
    span.fail("never answered");
}

/// The span for publishing an event to `server`, or to the spool.
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

/// Records on the current span where the event was stored.
pub(crate) fn published(result: &Result<Recorded, RecordError>) {
    if !sampled() {
        return;
    }
    let span = Span::current();
    let recorded = match result {
        Ok(Recorded::Streamed) => "streamed",
        Ok(Recorded::Spooled) => "spooled",
        Err(error) => return failed(&span, Cause::Unrecordable.into_str(), error),
    };
    span.record("importguard.recorded", recorded);
}
