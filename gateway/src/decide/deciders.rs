use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use importguard_core::{Evaluation, EventId, ImportRequest};
use importguard_proto::decider::DecideRequest;
use importguard_runtime::{Runtime, Saturation};
use importguard_telemetry::{
    propagation,
    span::{child, failed},
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Extensions, Request, metadata::MetadataMap};
use tracing::{Span, field::Empty, info_span};

use super::{
    DecideError, DecideSettings, DeciderTlsError,
    balancer::{Balancer, Metrics, Retry},
    connect::watch,
    decider::Decider,
    discovery::Discovery,
    fallback::code_name,
};

/// The method's full name, for spans.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Maximum number of friends in a request that is sent to a second decider while the first may be processing it: a more expensive one
/// might block that decider too. At about 10 ns per friend and rule (docs/policy.md), it takes a millisecond with a hundred rules, a
/// hundredth of the default retry time.
const RETRY_MAX_FRIENDS: usize = 1_000;

/// The deciders. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deciders {
    balancer: Arc<Balancer>,
    retry_after: Duration,
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
    /// Discovers deciders; there need not be any yet. A request has at most so many friends. Must be called inside a tokio runtime.
    pub(crate) async fn start(
        settings: &DecideSettings,
        max_friends: usize,
        runtime: &mut Runtime,
    ) -> Result<(Self, Discovery), DeciderTlsError> {
        let tls = watch(&settings.decider_url, &settings.tls, &mut runtime.files).await?;
        let metrics = runtime.registry.register(Metrics::register);
        let mut discovery = Discovery::new(settings, tls, max_friends)?;
        let balancer = Balancer::start(&mut discovery, settings, metrics).await;
        let deciders = Self {
            balancer: Arc::new(balancer),
            retry_after: settings.decider_retry_after,
        };
        Ok((deciders, discovery))
    }

    /// Keeps the deciders current, for as long as it is polled.
    pub(crate) async fn run(&self, discovery: Discovery) -> Infallible {
        self.balancer.run(discovery).await
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
            let error = DecideError::Unavailable {
                why: self.balancer.why_none(),
                may_be_processed: false,
            };
            Attempt::new(call, None, false).ended(None, Some(&error));
            return Err(error);
        };
        let waited = Saturation::begin();
        let decided = self.attempts(first, call).await;
        decided.map_err(|error| {
            let is_late = match error {
                DecideError::Timeout(_) => true,
                // A decider that is down is noticed at once.
                DecideError::Unavailable { .. } => Instant::now() + within / 2 >= call.deadline,
                _ => false,
            };
            match is_late && waited.is_saturated() {
                true => DecideError::Saturated(within),
                false => error,
            }
        })
    }

    /// Calls one decider, and also a second one if the first does not respond within the retry time. An unreachable decider does not
    /// count: another one replaces it.
    async fn attempts(&self, first: Arc<Decider>, call: Call<'_>) -> Decided {
        let mut called = vec![Arc::clone(&first)];
        let mut calls = FuturesUnordered::from_iter([self.attempt(first, call, false)]);
        let mut was_silent = false;
        let (mut unavailable, mut failed) = (Vec::new(), None);
        loop {
            let due = if was_silent {
                call.deadline
            } else {
                call.deadline.min(Instant::now() + self.retry_after)
            };
            let (retry, may_be_processed) = match timeout_at(due, calls.next()).await {
                Ok(Some(Ok(decided))) => return Ok(decided),
                Ok(Some(Err(DecideError::Unavailable {
                    why,
                    may_be_processed,
                }))) => {
                    unavailable.push(why);
                    (Retry::Unavailable, may_be_processed)
                }
                // Another decider that was called may still respond.
                Ok(Some(Err(error))) => {
                    failed.get_or_insert(error);
                    continue;
                }
                Ok(None) => {
                    return Err(failed.unwrap_or_else(|| DecideError::Unavailable {
                        why: unavailable.join("; "),
                        may_be_processed: true,
                    }));
                }
                Err(_) if Instant::now() >= call.deadline => {
                    return Err(failed.unwrap_or(DecideError::Timeout(call.within)));
                }
                Err(_) => {
                    self.balancer.refresh();
                    was_silent = true;
                    (Retry::Silent, true)
                }
            };
            if call.may_be_repeated(may_be_processed)
                && let Some(other) = self.balancer.pick(&called)
            {
                self.balancer.metrics.retried(retry);
                called.push(Arc::clone(&other));
                calls.push(self.attempt(other, call, true));
            }
        }
    }

    /// Calls one decider, and again if the connection broke and no other decider is healthy.
    async fn attempt(&self, decider: Arc<Decider>, call: Call<'_>, is_retry: bool) -> Decided {
        let mut attempt = Attempt::new(call, Some(&decider), is_retry);
        let mut response = decider.decide(call.message(&attempt.span)).await;
        let may_be_repeated = |status| match DecideError::from_status(status, call.within) {
            DecideError::Unavailable {
                may_be_processed, ..
            } => call.may_be_repeated(may_be_processed),
            _ => false,
        };
        let is_only = || !self.balancer.has_other_usable(&decider);
        if !is_retry && response.as_ref().is_err_and(may_be_repeated) && is_only() {
            self.balancer.metrics.retried(Retry::Unavailable);
            attempt.span.record("importguard.decider.retried", true);
            response = decider.decide(call.message(&attempt.span)).await;
        }
        let (code, decided) = match response {
            Ok(response) => {
                let decided = response.into_inner().into_evaluation(call.request);
                let invalid = |why| DecideError::Failed(format!("invalid response: {why}"));
                (Code::Ok, decided.map_err(invalid))
            }
            Err(status) => match DecideError::from_status(&status, call.within) {
                // tonic reports its own timeout as CANCELLED.
                late @ DecideError::Timeout(_) => (Code::DeadlineExceeded, Err(late)),
                error => (status.code(), Err(error)),
            },
        };
        attempt.ended(Some(code), decided.as_ref().err());
        decided.map_err(|error| match error {
            DecideError::Unavailable {
                why,
                may_be_processed,
            } => {
                self.balancer.failed(&decider, &why);
                DecideError::Unavailable {
                    why: format!("{decider}: {why}"),
                    may_be_processed,
                }
            }
            other => other,
        })
    }
}

impl Call<'_> {
    /// Whether another attempt is allowed. A request that may be expensive never gets to a second decider while the first may be
    /// processing it, so that it cannot block several.
    fn may_be_repeated(self, may_be_processed: bool) -> bool {
        let may_cost_much = self.request.friends.len() > RETRY_MAX_FRIENDS;
        !(may_be_processed && may_cost_much) && Instant::now() < self.deadline
    }

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
struct Attempt<'a> {
    span: Span,
    call: Call<'a>,
    is_ended: bool,
}

impl<'a> Attempt<'a> {
    /// An attempt at `decider`, or one that ends at once because no decider is known.
    fn new(call: Call<'a>, decider: Option<&Decider>, is_retry: bool) -> Self {
        let address = decider.map(Decider::address);
        let span = child(|| {
            info_span!(
                "decide",
                otel.name = METHOD,
                otel.kind = "client",
                rpc.system.name = "grpc",
                rpc.method = METHOD,
                rpc.response.status_code = Empty,
                server.address = address.map(|address| display(address.ip())),
                server.port = address.map(|address| i64::from(address.port())),
                importguard.decider.retried = is_retry.then_some(true),
            )
        });
        Self {
            span,
            call,
            is_ended: false,
        }
    }

    /// Records the decider's status, if it sent one, and the error, if the attempt failed.
    fn ended(&mut self, code: Option<Code>, error: Option<&DecideError>) {
        self.is_ended = true;
        if self.span.is_disabled() {
            return;
        }
        let code = code.map(code_name);
        if let Some(code) = &code {
            self.span.record("rpc.response.status_code", code);
        }
        if let Some(error) = error {
            let is_status = code.filter(|code| code != "OK");
            let error_type = is_status.as_deref().unwrap_or(error.cause().into_str());
            failed(&self.span, error_type, error);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // `tracing` uses the time at which a span was last exited as its end, which was before the call.
        self.span.in_scope(|| ());
        if self.is_ended {
            return;
        }
        if Instant::now() < self.call.deadline {
            // Another decider was faster, or the callback was abandoned.
            self.ended(Some(Code::Cancelled), None);
        } else {
            let late = DecideError::Timeout(self.call.within);
            self.ended(Some(Code::DeadlineExceeded), Some(&late));
        }
    }
}
