//! The public listener: one handler for every request, so that every answer is a callback answer. It reads like a callback's
//! way: recognise → decide → record → answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use importguard_proto::{
    OperationId,
    event::{Cause, Dialect},
};
use importguard_telemetry::propagation;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span, field::Empty, info, info_span, warn};

use crate::{
    callback::{
        Answer, BasePath, Command, ImportRequest, Limits, OnMissingOperationId, Reason, Rejection,
        encode_rejection, operation_id, recognise,
    },
    decide::{Deciders, Decision, Fallback, FallbackSettings, OnFailure, Source, Verdict},
    metrics::Metrics,
    record::{EventId, Origin, Record, Recorder},
};

/// What the handler works with, shared by all requests.
pub(crate) struct Guard {
    pub(crate) base_path: BasePath,
    pub(crate) on_missing_operation_id: OnMissingOperationId,
    pub(crate) limits: Limits,
    pub(crate) request_budget: Duration,
    pub(crate) decider_timeout: Duration,
    pub(crate) fallback: FallbackSettings,
    pub(crate) deciders: Deciders,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
}

/// The public listener's routes: there is one, for everything.
pub(crate) fn routes(guard: Arc<Guard>) -> Router {
    Router::new().fallback(callback).with_state(guard)
}

async fn callback(State(guard): State<Arc<Guard>>, request: Request) -> Response {
    let clock = Clock::start(guard.request_budget);
    let (head, body) = request.into_parts();
    let command = recognise(&guard.base_path, head.uri.path(), head.uri.query());
    let operation_id = operation_id(&head.headers, guard.on_missing_operation_id);
    let span = server_span(&head.method, &command);
    propagation::adopt(&span, &head.headers, operation_id.as_ref().ok());
    async {
        let response = match guard
            .receive(command, operation_id, &head, body, clock)
            .await
        {
            Ok((Command::BeforeImport(dialect), request)) => {
                guard.before_import(dialect, &request, clock).await
            }
            Ok((Command::AfterImport, request)) => guard.after_import(&request, clock).await,
            Err(rejection) => guard.reject(&rejection),
        };
        guard.metrics.answered(clock.elapsed());
        response
    }
    .instrument(span)
    .await
}

impl Guard {
    /// Recognise: everything that can be wrong with a request before anybody decides about it.
    async fn receive(
        &self,
        command: Result<Command, Rejection>,
        operation_id: Result<OperationId, Reason>,
        head: &Parts,
        body: Body,
        clock: Clock,
    ) -> Result<(Command, ImportRequest), Rejection> {
        let command = command?;
        let read = async {
            if head.method != Method::POST {
                return Err(Reason::MethodNotAllowed);
            }
            let operation_id = operation_id?;
            if !ImportRequest::acceptable(&head.headers) {
                return Err(Reason::UnsupportedMediaType);
            }
            let body = read_body(&head.headers, body, self.limits.body_bytes, clock).await?;
            ImportRequest::parse(command, operation_id, &body, &self.limits)
        };
        let dialect = command.dialect();
        let request = read.await.map_err(|reason| Rejection { dialect, reason })?;
        Ok((command, request))
    }

    async fn before_import(
        &self,
        dialect: Dialect,
        request: &ImportRequest,
        clock: Clock,
    ) -> Response {
        let id = EventId::new();
        let decision = self.decide(&id, request, clock).await;
        let decision = self.record(id, request, dialect, decision, clock).await;
        self.tell(request, &decision, clock);
        let answer = match &decision.verdict {
            Verdict::Allow => Answer::Allow,
            Verdict::Modify(kept) => Answer::Modify {
                request,
                kept: kept.indexes(),
            },
            Verdict::Refuse(refusal) => Answer::Refuse {
                code: refusal.code,
                message: &refusal.message,
                detail: &refusal.detail,
                request: Some(request),
            },
        };
        respond(StatusCode::OK, answer.encode(dialect))
    }

    /// Decide: a decider within the deadline, or the operator's fallback.
    async fn decide(&self, id: &EventId, request: &ImportRequest, clock: Clock) -> Decision {
        let asked = Instant::now();
        let within = self.decider_timeout.min(clock.left());
        let (verdict, source) = match self.deciders.decide(id, request, within).await {
            Ok((verdict, evidence)) => (verdict, Source::Policy(evidence)),
            Err(error) => {
                let cause = error.cause();
                let chosen = self.fallback.chosen(cause);
                warn!(
                    cause = Fallback::of(cause).name(),
                    fallback = name(chosen),
                    "{error}; the import was answered by the fallback for this cause: check the deciders and IMPORTGUARD_DECIDER_URL"
                );
                (Fallback::of(cause).verdict(chosen), Source::Fallback(cause))
            }
        };
        Decision {
            verdict,
            source,
            took: asked.elapsed(),
        }
    }

    /// Record: no answer leaves before its event is acknowledged or in the spool. What is returned is what is answered.
    async fn record(
        &self,
        id: EventId,
        request: &ImportRequest,
        dialect: Dialect,
        decision: Decision,
        clock: Clock,
    ) -> Decision {
        let span = publish_span(decision.verdict.subject().as_str(), &id);
        let record = self.origin.decision(
            id,
            request,
            dialect,
            &decision,
            clock.elapsed(),
            propagation::message_headers(&span),
            self.recorder.max_payload(),
        );
        match self.publish(record, span, clock).await {
            Ok(()) => decision,
            Err(OnFailure::Allow) => decision,
            Err(chosen @ OnFailure::Refuse) => Decision {
                verdict: Fallback::of(Cause::Unrecordable).verdict(chosen),
                source: Source::Fallback(Cause::Unrecordable),
                took: decision.took,
            },
        }
    }

    async fn after_import(&self, request: &ImportRequest, clock: Clock) -> Response {
        let id = EventId::new();
        let span = publish_span(importguard_proto::event::Subject::Imported.as_str(), &id);
        let record = self.origin.imported(
            id,
            request,
            propagation::message_headers(&span),
            self.recorder.max_payload(),
        );
        let answer = match self.publish(record, span, clock).await {
            Ok(()) | Err(OnFailure::Allow) => Answer::Allow.encode(Dialect::Server),
            Err(OnFailure::Refuse) => {
                let refusal = Fallback::of(Cause::Unrecordable).refusal();
                Answer::Refuse {
                    code: refusal.code,
                    message: &refusal.message,
                    detail: "OpenIM's report of this import was not recorded",
                    request: None,
                }
                .encode(Dialect::Server)
            }
        };
        info!(friends = request.friends.len(), "import reported as done");
        respond(StatusCode::OK, answer)
    }

    /// Hands a record to the recorder; where that fails, what the operator wants answered.
    async fn publish(&self, record: Record, span: Span, clock: Clock) -> Result<(), OnFailure> {
        let recorded = self.recorder.record(record, clock.deadline);
        match recorded.instrument(span.clone()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let chosen = self.fallback.on_unrecordable;
                span.record("otel.status_code", "ERROR");
                span.record("otel.status_description", error.to_string());
                warn!(
                    cause = Fallback::of(Cause::Unrecordable).name(),
                    fallback = name(chosen),
                    "{error}; the callback was answered by the fallback for this cause: check NATS and IMPORTGUARD_SPOOL"
                );
                Err(chosen)
            }
        }
    }

    /// Answer, for a request that was not decided upon.
    fn reject(&self, rejection: &Rejection) -> Response {
        let status = rejection.reason.status();
        self.metrics.rejected(rejection);
        Span::current().record("http.response.status_code", status.as_u16());
        info!(
            status = status.as_u16(),
            code = rejection.reason.code(),
            "rejected: {}: {}",
            rejection.reason.message(),
            rejection.reason
        );
        let mut response = respond(status, encode_rejection(rejection));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = HeaderValue::from_static("POST");
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }

    /// One line, one count and one set of span attributes per decision.
    fn tell(&self, request: &ImportRequest, decision: &Decision, clock: Clock) {
        let verdict = decision.verdict.name();
        let cause = decision.source.cause();
        let cause = cause.map(|cause| Fallback::of(cause).name());
        let refusal = match &decision.verdict {
            Verdict::Refuse(refusal) => Some(refusal),
            Verdict::Allow | Verdict::Modify(_) => None,
        };
        let kept = match &decision.verdict {
            Verdict::Allow => request.friends.len(),
            Verdict::Refuse(_) => 0,
            Verdict::Modify(kept) => kept.indexes().len(),
        };
        self.metrics.decided(decision);
        let span = Span::current();
        span.record("http.response.status_code", StatusCode::OK.as_u16());
        span.record("importguard.verdict", verdict);
        span.record("importguard.cause", cause);
        info!(
            verdict,
            cause,
            rule = refusal.and_then(|refusal| refusal.rule.as_deref()),
            code = refusal.map(|refusal| refusal.code),
            friends = request.friends.len(),
            kept,
            micros = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX),
            "decided"
        );
    }
}

/// When a request arrived, and when its answer is due.
#[derive(Clone, Copy)]
struct Clock {
    arrived: Instant,
    deadline: Instant,
}

impl Clock {
    fn start(budget: Duration) -> Self {
        let arrived = Instant::now();
        Self {
            arrived,
            deadline: arrived + budget,
        }
    }

    fn elapsed(self) -> Duration {
        self.arrived.elapsed()
    }

    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

async fn read_body(
    headers: &HeaderMap,
    body: Body,
    max: usize,
    clock: Clock,
) -> Result<Bytes, Reason> {
    let too_large = || Reason::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > max) {
        return Err(too_large());
    }
    match timeout_at(clock.deadline, Limited::new(body, max).collect()).await {
        Err(_) => Err(Reason::TooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_length_limit(error.as_ref()) => Err(too_large()),
        Ok(Err(error)) => Err(Reason::Malformed(format!(
            "the body could not be read: {error}"
        ))),
    }
}

fn is_length_limit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<LengthLimitError>()
        || error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

fn respond(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The request's span, named `{method} {route}` as OpenTelemetry's conventions have it. The route is the command's, never the
/// path: that may hold a secret, or anything.
fn server_span(method: &Method, command: &Result<Command, Rejection>) -> Span {
    let route = command.as_ref().map_or("unknown", |command| command.name());
    let dialect = match command {
        Ok(command) => command.dialect(),
        Err(rejection) => rejection.dialect,
    };
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

fn publish_span(subject: &'static str, id: &EventId) -> Span {
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

fn name(chosen: OnFailure) -> &'static str {
    match chosen {
        OnFailure::Refuse => "refuse",
        OnFailure::Allow => "allow",
    }
}
