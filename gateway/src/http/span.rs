//! The spans of a callback: its own, and the publishing of its event.

use http::Method;
use importguard_proto::event::Dialect;
use tracing::{Span, field::Empty, info_span};

use super::dialect;
use crate::{
    callback::{Command, Rejection},
    record::EventId,
};

/// The request's span, named `{method} {route}` as OpenTelemetry's conventions have it. The route is the command's, never the
/// path: that may hold a secret, or anything.
pub(super) fn server_span(method: &Method, command: &Result<Command, Rejection>) -> Span {
    let route = command.as_ref().map_or("other", |command| command.name());
    let dialect = dialect(command);
    info_span!(
        "callback",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method.as_str(),
        http.route = route,
        http.response.status_code = Empty,
        openim.dialect = match dialect {
            Dialect::Documented => "documented",
            Dialect::Server => "server",
        },
        importguard.verdict = Empty,
        importguard.cause = Empty,
    )
}

/// The span of an event's way to NATS or the spool.
pub(super) fn publish_span(subject: &'static str, id: &EventId) -> Span {
    info_span!(
        "publish",
        otel.name = format!("publish {subject}"),
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.operation.name = "publish",
        messaging.operation.r#type = "send",
        messaging.destination.name = subject,
        messaging.message.id = %id,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}
