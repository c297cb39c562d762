//! The public listener: one handler for every request, so that every answer is a callback answer. It reads like a callback's
//! way: recognise → decide → record → answer.

mod body;
mod clock;
mod overload;
mod pass;
mod span;
mod tell;
mod unanswered;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{Either, Full};
use importguard_proto::{
    OperationId,
    event::{Cause, Dialect},
};
use importguard_telemetry::propagation;
use tokio::time::Instant;
use tracing::{Span, info};

use self::{
    body::read_body,
    clock::Clock,
    span::{End, publish_span},
    unanswered::Unanswered,
};
use crate::{
    admission::{Admission, Overloaded},
    callback::{
        Answer, BasePath, Command, ImportRequest, Limits, OnMissingOperationId, Reason, Rejection,
        Route, encode_rejection, operation_id, recognise,
    },
    decide::{Deciders, Decision, Fallback, FallbackSettings, OnFailure, Source, Verdict},
    lock::Lock,
    metrics::Metrics,
    record::{EventId, Origin, Record, Recorder},
    serve::{Answers, Fault, Received, Room},
    upstream::{Passed, Upstream},
};

/// An answer: importguard's own, or one that is passed on.
type Answered = Response<AnswerBody>;
type AnswerBody = Either<Full<Bytes>, Passed>;

/// An answer, and what is told of how it came about.
struct Told {
    response: Answered,
    end: End,
}

/// What the handler works with, shared by all requests.
pub(crate) struct Guard {
    /// `https` or `http`: what is spoken on the listener.
    pub(crate) scheme: &'static str,
    pub(crate) base_path: BasePath,
    pub(crate) lock: Lock,
    pub(crate) on_missing_operation_id: OnMissingOperationId,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) body_read_timeout: Duration,
    pub(crate) request_budget: Duration,
    pub(crate) decider_timeout: Duration,
    pub(crate) fallback: FallbackSettings,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) deciders: Deciders,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
}

impl Answers for Guard {
    type Body = AnswerBody;

    async fn answer(self: Arc<Self>, request: Request<Received>, room: Room) -> Answered {
        let clock = Clock::start(self.request_budget);
        let (head, body) = request.into_parts();
        let command = recognise(&self.base_path, head.uri.path(), head.uri.query());
        let operation_id = operation_id(&head.headers, self.on_missing_operation_id);
        let request = span::Request {
            head: &head,
            scheme: self.scheme,
            base: &self.base_path,
            route: Route::of(&command),
            dialect: dialect(&command),
        };
        let served = request.begin(operation_id.as_ref().ok());
        let handled = served.serve(async {
            let handled = self.handle(command, operation_id, &head, body, room, clock);
            match handled.await {
                Ok(answered) => answered,
                Err(rejection) => Told {
                    response: self.reject(&rejection),
                    end: End::from(&rejection),
                },
            }
        });
        let unanswered = Unanswered::new(request, served, &self.metrics, clock);
        let Told { response, end } = handled.await;
        unanswered.answered(end, response.status());
        response
    }

    fn refuse(&self, fault: Fault) -> Answered {
        let reason = match fault {
            Fault::Malformed => {
                Reason::Malformed("the request line and the headers are no HTTP".to_owned())
            }
            Fault::HeadTooLarge => Reason::HeadTooLarge,
            Fault::UriTooLong => Reason::UriTooLong,
            Fault::HeadTooSlow => Reason::HeadTooSlow,
            Fault::NotTls => Reason::Malformed(
                "TLS is spoken here: OpenIM's url must begin with https://".to_owned(),
            ),
        };
        // Where there is no request line, there is no dialect.
        self.reject(&Rejection {
            dialect: Dialect::Server,
            reason,
        })
    }
}

impl Guard {
    async fn handle(
        &self,
        command: Result<Command, Rejection>,
        operation_id: Result<OperationId, Reason>,
        head: &Parts,
        body: Received,
        room: Room,
        clock: Clock,
    ) -> Result<Told, Rejection> {
        if !self.lock.opens(&head.headers) {
            let dialect = dialect(&command);
            let reason = Reason::Unauthorised;
            return Err(Rejection { dialect, reason });
        }
        let command = match (command, self.other(head)) {
            (Ok(command), _) => command,
            (Err(unknown), Some(other)) => return other.pass(unknown, head, body, room).await,
            (Err(unknown), None) => return Err(unknown),
        };
        let dialect = command.dialect();
        let rejection = |reason| Rejection { dialect, reason };
        acceptable(head).map_err(rejection)?;
        let operation_id = operation_id.map_err(rejection)?;
        let place = match room {
            Room::Free => self.admission.enter(clock.left()).await,
            Room::None => Err(Overloaded),
        };
        let Ok(_place) = place else {
            return self
                .overloaded(command, operation_id, head, body, clock)
                .await;
        };
        let request = self.read(command, operation_id, head, body, clock).await;
        let request = request.map_err(rejection)?;
        Ok(match command {
            Command::BeforeImport(dialect) => self.before_import(dialect, &request, clock).await,
            Command::AfterImport => self.after_import(&request, clock).await,
        })
    }

    /// Recognise: from here on the request is known to be one.
    async fn read(
        &self,
        command: Command,
        operation_id: OperationId,
        head: &Parts,
        body: Received,
        clock: Clock,
    ) -> Result<ImportRequest, Reason> {
        let due = clock.deadline.min(clock.arrived + self.body_read_timeout);
        let body = read_body(&head.headers, body, self.limits.body_bytes, due).await?;
        ImportRequest::parse(command, operation_id, &body, &self.limits)
    }

    async fn before_import(&self, dialect: Dialect, request: &ImportRequest, clock: Clock) -> Told {
        let id = EventId::new();
        let decision = self.decide(&id, request, clock).await;
        let (decision, cause) = self.record(id, request, dialect, decision, clock).await;
        self.metrics.decided(&decision);
        tell::decided(request, &decision, clock);
        verdict(dialect, request, &decision, cause)
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
                tell::undecided(&error, chosen);
                (Fallback::of(cause).verdict(chosen), Source::Fallback(cause))
            }
        };
        let took = asked.elapsed();
        self.metrics.asked(&source, took);
        Decision {
            verdict,
            source,
            took,
        }
    }

    /// Record: no answer leaves before its event is acknowledged or in the spool. What is returned is what is answered, and what went
    /// wrong up to there.
    async fn record(
        &self,
        id: EventId,
        request: &ImportRequest,
        dialect: Dialect,
        decision: Decision,
        clock: Clock,
    ) -> (Decision, Option<Cause>) {
        let span = publish_span(decision.verdict.subject().as_str(), &id);
        let record = self.origin.decision(
            id,
            request,
            dialect,
            &decision,
            clock.elapsed(),
            span.in_scope(propagation::message_headers),
            self.recorder.max_payload(),
        );
        match self.publish(record, span, clock).await {
            Ok(()) => {
                let cause = decision.source.cause();
                (decision, cause)
            }
            Err(OnFailure::Allow) => (decision, Some(Cause::Unrecordable)),
            Err(chosen @ OnFailure::Refuse) => {
                let decision = Decision {
                    verdict: Fallback::of(Cause::Unrecordable).verdict(chosen),
                    source: Source::Fallback(Cause::Unrecordable),
                    took: decision.took,
                };
                (decision, Some(Cause::Unrecordable))
            }
        }
    }

    async fn after_import(&self, request: &ImportRequest, clock: Clock) -> Told {
        let id = EventId::new();
        let span = publish_span(importguard_proto::event::Subject::Imported.as_str(), &id);
        let record = self.origin.imported(
            id,
            request,
            span.in_scope(propagation::message_headers),
            self.recorder.max_payload(),
        );
        let published = self.publish(record, span, clock).await;
        let answer = match published {
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
        Told {
            response: respond(StatusCode::OK, answer),
            end: End::Done(published.err().map(|_| Cause::Unrecordable)),
        }
    }

    /// Hands a record to the recorder; where that fails, what the operator wants answered.
    async fn publish(&self, record: Record, span: Span, clock: Clock) -> Result<(), OnFailure> {
        let recorded = self.recorder.record(record, clock.deadline).await;
        span.in_scope(|| span::published(&recorded));
        match recorded {
            Ok(_) => Ok(()),
            Err(error) => {
                let chosen = self.fallback.on_unrecordable;
                tell::unrecorded(&error, chosen);
                Err(chosen)
            }
        }
    }

    /// Answer, for a request that was not decided upon.
    fn reject(&self, rejection: &Rejection) -> Answered {
        let status = rejection.reason.status();
        self.metrics.rejected(rejection);
        // An overload would flood the log; that counter tells of it.
        if !matches!(rejection.reason, Reason::Overloaded) {
            tell::rejected(rejection);
        }
        let mut response = respond(status, encode_rejection(rejection));
        let headers = response.headers_mut();
        match rejection.reason {
            Reason::MethodNotAllowed => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            Reason::Unauthorised => {
                let challenges = self.lock.challenges();
                headers.extend(challenges.map(|value| (header::WWW_AUTHENTICATE, value)));
            }
            _ => {}
        }
        response
    }
}

/// Answer.
fn verdict(
    dialect: Dialect,
    request: &ImportRequest,
    decision: &Decision,
    cause: Option<Cause>,
) -> Told {
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
    Told {
        response: respond(StatusCode::OK, answer.encode(dialect)),
        end: End::Decided(decision.verdict.name(), cause),
    }
}

/// How a request line is answered, whether it names a callback or not.
fn dialect(command: &Result<Command, Rejection>) -> Dialect {
    match command {
        Ok(command) => command.dialect(),
        Err(rejection) => rejection.dialect,
    }
}

/// What a callback must be, body aside.
fn acceptable(head: &Parts) -> Result<(), Reason> {
    if head.method != Method::POST {
        return Err(Reason::MethodNotAllowed);
    }
    if !ImportRequest::acceptable(&head.headers) {
        return Err(Reason::UnsupportedMediaType);
    }
    Ok(())
}

fn respond(status: StatusCode, body: Bytes) -> Answered {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
