use std::{sync::Arc, time::Duration};

use futures_util::future::select_all;
use importguard_core::{Evaluation, EventId, ImportRequest};
use importguard_proto::decider::DecideRequest;
use importguard_runtime::Runtime;
use importguard_telemetry::{
    propagation,
    span::{child, failed},
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Extensions, Request, metadata::MetadataMap};
use tracing::{
    Span,
    field::{Empty, display},
    info_span,
};

use super::{
    Balancer, DecideError, DecideSettings, DeciderTlsError,
    discovery::Discovery,
    endpoint::Decider,
    error::code_name,
    metrics::{Metrics, Retry},
    tls::watch,
};

/// The method's full name, for spans.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Maximum number of friends in a request that is sent to a second decider: a more expensive one might block that decider too. At
/// about 10 ns per friend and rule (docs/policy.md), it takes a millisecond with a hundred rules, a hundredth of the default retry time.
const RETRY_MAX_FRIENDS: usize = 1_000;

/// The deciders. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Deciders {
    balancer: Arc<Balancer>,
    retry_after: Duration,
    metrics: Metrics,
}

/// A decider's evaluation, and the decider's name.
type Decided = Result<(Evaluation, String), DecideError>;

/// A request and its deadline.
#[derive(Clone, Copy)]
struct Call<'a> {
    id: EventId,
    request: &'a ImportRequest,
    within: Duration,
    deadline: Instant,
}

impl Deciders {
    /// Discovers deciders; there need not be any yet. The balancer's [`run`](Balancer::run) keeps them current. Must be called inside a
    /// tokio runtime.
    pub(crate) async fn start(
        settings: &DecideSettings,
        runtime: &mut Runtime,
    ) -> Result<(Self, Arc<Balancer>), DeciderTlsError> {
        let tls = watch(&settings.decider_url, &settings.tls, &mut runtime.files).await?;
        let metrics = runtime.registry.register(Metrics::register);
        let discovery = Discovery::new(settings, tls)?;
        let balancer = Balancer::start(discovery, settings, metrics.clone()).await;
        let deciders = Self {
            balancer: Arc::clone(&balancer),
            retry_after: settings.decider_retry_after,
            metrics,
        };
        Ok((deciders, balancer))
    }

    /// Their state, for `/readyz`.
    pub(crate) fn describe(&self) -> Value {
        self.balancer.describe()
    }

    /// Requests a decision, with the timeout `within`.
    pub(crate) async fn decide(
        &self,
        id: EventId,
        request: &ImportRequest,
        within: Duration,
    ) -> Decided {
        let call = Call {
            id,
            request,
            within,
            deadline: Instant::now() + within,
        };
        let Some(first) = self.balancer.pick(&[]) else {
            self.balancer.refresh();
            let error = DecideError::Unavailable(self.balancer.why_none());
            Attempt::new(call).failed(&error, None);
            return Err(error);
        };
        self.attempts(first, call).await
    }

    /// Calls one decider, and also a second one if the first does not respond within the retry time. An unreachable decider does not
    /// count: another one replaces it.
    async fn attempts(&self, first: Arc<Decider>, call: Call<'_>) -> Decided {
        let mut called = vec![Arc::clone(&first)];
        let mut calls = select_all([Box::pin(self.attempt(first, call, false))]);
        let mut was_silent = false;
        let mut unavailable = String::new();
        loop {
            let due = if was_silent {
                call.deadline
            } else {
                call.deadline.min(Instant::now() + self.retry_after)
            };
            let (mut pending, retry) = match timeout_at(due, &mut calls).await {
                Ok((Err(DecideError::Unavailable(why)), _, others)) => {
                    unavailable = why;
                    (others, Retry::Unavailable)
                }
                Ok((decided, ..)) => return decided,
                Err(_) if Instant::now() >= call.deadline => {
                    return Err(DecideError::Timeout(call.within));
                }
                Err(_) => {
                    self.balancer.refresh();
                    was_silent = true;
                    (calls.into_inner(), Retry::Silent)
                }
            };
            if let Some(other) = self.another(&called, call, retry) {
                called.push(Arc::clone(&other));
                pending.push(Box::pin(self.attempt(other, call, true)));
            }
            if pending.is_empty() {
                return Err(DecideError::Unavailable(unavailable));
            }
            calls = select_all(pending);
        }
    }

    /// A decider other than `called`, if there is one and a retry is allowed.
    fn another(
        &self,
        called: &[Arc<Decider>],
        call: Call<'_>,
        retry: Retry,
    ) -> Option<Arc<Decider>> {
        if !self.may_retry(call) {
            return None;
        }
        let other = self.balancer.pick(called)?;
        self.metrics.retried(retry);
        Some(other)
    }

    /// Whether another attempt is allowed. A request that may be expensive gets only one, so that it cannot block several deciders.
    fn may_retry(&self, call: Call<'_>) -> bool {
        call.request.friends.len() <= RETRY_MAX_FRIENDS && Instant::now() < call.deadline
    }

    /// Calls one decider, and again if the connection broke and there is no other decider.
    async fn attempt(&self, decider: Arc<Decider>, call: Call<'_>, is_retry: bool) -> Decided {
        let mut attempt = Attempt::new(call);
        attempt.started(&decider, is_retry);
        let mut response = decider.decide(call.message(&attempt.span)).await;
        let broke = |status| {
            matches!(
                DecideError::from_status(status, call.within),
                DecideError::Unavailable(_)
            )
        };
        let is_only = || self.balancer.pick(std::slice::from_ref(&decider)).is_none();
        if !is_retry && response.as_ref().is_err_and(broke) && self.may_retry(call) && is_only() {
            self.metrics.retried(Retry::Unavailable);
            attempt.span.record("importguard.decider.retried", true);
            response = decider.decide(call.message(&attempt.span)).await;
        }
        let error = match response {
            Ok(response) => match response.into_inner().into_evaluation(call.request) {
                Ok(decided) => {
                    attempt.ended(Code::Ok);
                    return Ok(decided);
                }
                Err(why) => {
                    let error = DecideError::Failed(format!("invalid response: {why}"));
                    attempt.failed(&error, Some(Code::Ok));
                    error
                }
            },
            Err(status) => {
                let error = DecideError::from_status(&status, call.within);
                // tonic reports its own timeout as CANCELLED.
                let is_late = matches!(error, DecideError::Timeout(_));
                let code = if is_late {
                    Code::DeadlineExceeded
                } else {
                    status.code()
                };
                attempt.failed(&error, Some(code));
                error
            }
        };
        Err(match error {
            DecideError::Unavailable(why) => {
                self.balancer.failed(&decider, &why);
                DecideError::Unavailable(format!("{decider}: {why}"))
            }
            other => other,
        })
    }
}

impl Call<'_> {
    fn message(self, span: &Span) -> Request<DecideRequest> {
        let message = DecideRequest::of(self.id, self.request);
        let headers = span.in_scope(propagation::outgoing);
        let metadata = MetadataMap::from_headers(headers);
        let mut request = Request::from_parts(metadata, Extensions::default(), message);
        // The decider gets the deadline too, and stops evaluating when it expires.
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        request
    }
}

/// The span of one attempt: the decider and the outcome, even if the response is no longer needed.
struct Attempt {
    span: Span,
    within: Duration,
    deadline: Instant,
    is_ended: bool,
}

impl Attempt {
    fn new(call: Call<'_>) -> Self {
        let span = child(|| {
            info_span!(
                "decide",
                otel.name = METHOD,
                otel.kind = "client",
                rpc.system.name = "grpc",
                rpc.method = METHOD,
                rpc.response.status_code = Empty,
                server.address = Empty,
                server.port = Empty,
                importguard.decider.retried = Empty,
            )
        });
        Self {
            span,
            within: call.within,
            deadline: call.deadline,
            is_ended: false,
        }
    }

    fn started(&mut self, decider: &Decider, is_retry: bool) {
        if self.span.is_disabled() {
            return;
        }
        let address = decider.address();
        self.span.record("server.address", display(address.ip()));
        self.span.record("server.port", i64::from(address.port()));
        if is_retry {
            self.span.record("importguard.decider.retried", true);
        }
    }

    fn ended(&mut self, code: Code) {
        self.is_ended = true;
        if !self.span.is_disabled() {
            self.span
                .record("rpc.response.status_code", code_name(code));
        }
    }

    /// Records an error, and the decider's status if it sent one.
    fn failed(&mut self, error: &DecideError, code: Option<Code>) {
        self.is_ended = true;
        if self.span.is_disabled() {
            return;
        }
        let code = code.map(code_name);
        if let Some(code) = &code {
            self.span.record("rpc.response.status_code", code);
        }
        let is_status = code.filter(|code| code != "OK");
        let error_type = is_status.as_deref().unwrap_or(error.cause().as_str());
        failed(&self.span, error_type, error);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // `tracing` uses the time at which a span was last exited as its end, which was before the call.
        self.span.in_scope(|| ());
        if self.is_ended {
            return;
        }
        if Instant::now() < self.deadline {
            // Another decider was faster, or the callback was abandoned.
            self.ended(Code::Cancelled);
        } else {
            let late = DecideError::Timeout(self.within);
            self.failed(&late, Some(Code::DeadlineExceeded));
        }
    }
}
