//! The spans of a callback: its own, and the publishing of its event. What they tell is set only where they are recorded.

use http::{Method, StatusCode, request::Parts};
use importguard_proto::{OperationId, event::Dialect};
use importguard_telemetry::{
    metrics::Label,
    propagation,
    span::{recorded, rename},
};
use tracing::{Span, field::Empty, info_span};

use crate::{
    callback::{BasePath, Rejection, Route},
    decide::{Decision, Fallback},
    record::{EventId, Recorded, Unrecordable},
};

/// How much of a path is told, in bytes: several times what OpenIM's longest has.
const PATH_BYTES: usize = 256;

/// The request's span, named `{method} {route}` as OpenTelemetry's conventions have it.
pub(super) fn server_span(
    head: &Parts,
    base: &BasePath,
    route: Route,
    dialect: Dialect,
    operation_id: Option<&OperationId>,
) -> Span {
    let span = info_span!(
        "callback",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.r#type = Empty,
        http.request.method = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
        url.path = Empty,
        openim.dialect = Empty,
        importguard.verdict = Empty,
        importguard.cause = Empty,
        importguard.rejection.code = Empty,
    );
    propagation::adopt(&span, &head.headers, operation_id);
    span.in_scope(|| {
        if !recorded() {
            return;
        }
        let (known, method) = known(&head.method);
        let route = route.text();
        rename(format!("{known} {route}"));
        span.record("http.request.method", method);
        span.record("http.route", route);
        // What comes before may be a secret; a path that lies elsewhere may be a secret with a mistake in it.
        let below = base.below(head.uri.path());
        span.record("url.path", below.filter(|path| path.len() <= PATH_BYTES));
        span.record("openim.dialect", dialect.as_str());
    });
    span
}

/// The method in a span's name and in its attribute: a caller can make up any.
fn known(method: &Method) -> (&str, &str) {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => (method.as_str(), method.as_str()),
        _ => ("HTTP", "_OTHER"),
    }
}

/// On the request's span: how it was answered.
pub(super) fn answered(status: StatusCode) {
    if !recorded() {
        return;
    }
    let span = Span::current();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}

/// On the request's span: what was decided. That nobody could is an error, whatever was answered.
pub(super) fn decided(decision: &Decision) {
    if !recorded() {
        return;
    }
    let span = Span::current();
    span.record("importguard.verdict", decision.verdict.name());
    if let Some(cause) = decision.source.cause() {
        let fallback = Fallback::of(cause);
        span.record("importguard.cause", fallback.name());
        span.record("error.type", fallback.name());
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", fallback.refusal().message);
    }
}

/// On the request's span: that it was answered without a decision.
pub(super) fn rejected(rejection: &Rejection) {
    if recorded() {
        Span::current().record("importguard.rejection.code", rejection.reason.code());
    }
}

/// The span of an event's way to NATS or the spool.
pub(super) fn publish_span(subject: &'static str, id: &EventId) -> Span {
    let span = info_span!(
        "publish",
        otel.kind = "producer",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.r#type = Empty,
        messaging.system = Empty,
        messaging.operation.name = Empty,
        messaging.operation.r#type = Empty,
        messaging.destination.name = Empty,
        messaging.message.id = Empty,
        importguard.recorded = Empty,
    );
    span.in_scope(|| {
        if !recorded() {
            return;
        }
        rename(format!("publish {subject}"));
        span.record("messaging.system", "nats");
        span.record("messaging.operation.name", "publish");
        span.record("messaging.operation.type", "send");
        span.record("messaging.destination.name", subject);
        span.record("messaging.message.id", id.to_string());
    });
    span
}

/// On an event's span: where it went.
pub(super) fn published(result: &Result<Recorded, Unrecordable>) {
    if !recorded() {
        return;
    }
    let span = Span::current();
    match result {
        Ok(Recorded::Streamed) => span.record("importguard.recorded", "streamed"),
        Ok(Recorded::Spooled) => span.record("importguard.recorded", "spooled"),
        Err(error) => span
            .record("error.type", "unrecordable")
            .record("otel.status_code", "ERROR")
            .record("otel.status_description", error.to_string()),
    };
}
