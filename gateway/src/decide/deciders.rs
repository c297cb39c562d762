use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use importguard_core::{Evaluation, EventId, ImportRequest};
use importguard_files::Reloads;
use importguard_proto::decider::DecideRequest;
use importguard_telemetry::{
    propagation,
    span::{child, failed},
};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Extensions, Request, Status, metadata::MetadataMap};
use tracing::{
    Span,
    field::{Empty, display},
    info_span,
};

use super::{
    Balancer, DecideError, DecideSettings, InvalidDeciderTls,
    discovery::Discovery,
    endpoint::Decider,
    error::code_name,
    metrics::{Metrics, Retry},
    tls::watch,
};

/// The method's full name, as spans have it.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// The deciders. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Deciders {
    balancer: Arc<Balancer>,
    retry_after: Duration,
    retry_max_friends: usize,
    metrics: Metrics,
}

/// Why deciders cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum DecidersStartError {
    /// TLS cannot be spoken with them as the settings say.
    #[error(transparent)]
    Tls(#[from] InvalidDeciderTls),
}

/// What a decider made of a request, and the decider's name.
type Decided = Result<(Evaluation, String), DecideError>;

/// A request, and until when it is worth an answer.
#[derive(Clone, Copy)]
struct Call<'a> {
    span: &'a Span,
    id: EventId,
    request: &'a ImportRequest,
    within: Duration,
    deadline: Instant,
}

impl Deciders {
    /// Looks where deciders are; none need be there yet. The balancer's [`run`](Balancer::run) keeps that current. Must be called
    /// inside a tokio runtime.
    pub(crate) async fn start(
        settings: &DecideSettings,
        reloads: &mut Reloads,
        registry: &mut Registry,
    ) -> Result<(Self, Arc<Balancer>), DecidersStartError> {
        let tls = watch(&settings.decider_url, &settings.tls, reloads)?;
        let metrics = Metrics::register(registry);
        let discovery = Discovery::new(settings, tls)?;
        let balancer = Balancer::start(discovery, settings, metrics.clone()).await;
        let deciders = Self {
            balancer: Arc::clone(&balancer),
            retry_after: settings.decider_retry_after,
            retry_max_friends: settings.decider_retry_max_friends,
            metrics,
        };
        Ok((deciders, balancer))
    }

    /// How they are, for readiness.
    pub(crate) fn describe(&self) -> Value {
        self.balancer.describe()
    }

    /// Asks for a decision on `request`; gives up after `within`.
    pub(crate) async fn decide(
        &self,
        id: EventId,
        request: &ImportRequest,
        within: Duration,
    ) -> Decided {
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
        let call = Call {
            span: &span,
            id,
            request,
            within,
            deadline: Instant::now() + within,
        };
        let result = self.attempt(call).await;
        if let Err(error) = &result {
            failed(&span, error.cause().as_str(), error);
        }
        result
    }

    /// Asks one decider, and another one as well where the first is silent. One that cannot be reached has not been asked: the next
    /// takes its place.
    async fn attempt(&self, call: Call<'_>) -> Decided {
        let Some(first) = self.balancer.pick(&[]) else {
            self.balancer.doubt();
            return Err(DecideError::Unavailable(self.balancer.why_none()));
        };
        let mut asked = vec![Arc::clone(&first)];
        let mut calls = FuturesUnordered::from_iter([self.call(first, call)]);
        let mut was_silent = false;
        let mut unavailable = String::new();
        loop {
            let patience = if was_silent {
                call.deadline
            } else {
                call.deadline.min(Instant::now() + self.retry_after)
            };
            let retry = match timeout_at(patience, calls.next()).await {
                Ok(Some(Err(DecideError::Unavailable(why)))) => {
                    unavailable = why;
                    Retry::Unavailable
                }
                Ok(Some(decided)) => return decided,
                Ok(None) => return Err(DecideError::Unavailable(unavailable)),
                Err(_) if Instant::now() >= call.deadline => {
                    return Err(DecideError::Timeout(call.within));
                }
                Err(_) => {
                    self.balancer.doubt();
                    was_silent = true;
                    Retry::Silent
                }
            };
            if let Some(other) = self.another(&asked, call, retry) {
                asked.push(Arc::clone(&other));
                calls.push(self.call(other, call));
            }
        }
    }

    /// Whom to ask beside those that were `asked`, if there is another one, and time for it; where there is only one and its
    /// connection broke, that one again. A request that may be costly is put to one decider only: what stops that one is not to
    /// stop the next.
    fn another(
        &self,
        asked: &[Arc<Decider>],
        call: Call<'_>,
        retry: Retry,
    ) -> Option<Arc<Decider>> {
        let is_cheap = call.request.friends.len() <= self.retry_max_friends;
        if !is_cheap || Instant::now() >= call.deadline {
            return None;
        }
        let again = || match (asked, retry) {
            ([only], Retry::Unavailable) => Some(Arc::clone(only)),
            _ => None,
        };
        let other = self.balancer.pick(asked).or_else(again)?;
        self.metrics.retried(retry);
        call.span.record("importguard.decider.retried", true);
        Some(other)
    }

    async fn call(&self, decider: Arc<Decider>, call: Call<'_>) -> Decided {
        let decider = &*decider;
        let response = decider.decide(call.message()).await;
        record(call.span, decider, &response);
        let decided = match response {
            Ok(response) => response
                .into_inner()
                .into_evaluation(call.request)
                .map_err(|why| DecideError::Failed(format!("its answer cannot be used: {why}"))),
            Err(status) => Err(DecideError::from_status(&status, call.within)),
        };
        decided.map_err(|error| match error {
            DecideError::Unavailable(why) => {
                self.balancer.failed(decider, &why);
                DecideError::Unavailable(format!("{decider}: {why}"))
            }
            other => other,
        })
    }
}

impl Call<'_> {
    fn message(self) -> Request<DecideRequest> {
        let message = DecideRequest::of(self.id, self.request);
        let headers = self.span.in_scope(propagation::outgoing);
        let metadata = MetadataMap::from_headers(headers);
        let mut request = Request::from_parts(metadata, Extensions::default(), message);
        // The decider learns the deadline too and stops working on what nobody waits for.
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        request
    }
}

/// On the span, if it is recorded: which decider was asked, and what came of that.
fn record<T>(span: &Span, decider: &Decider, response: &Result<T, Status>) {
    if span.is_disabled() {
        return;
    }
    let code = response.as_ref().map_or_else(Status::code, |_| Code::Ok);
    span.record("rpc.response.status_code", code_name(code));
    span.record("server.address", display(decider.address().ip()));
    span.record("server.port", decider.address().port());
}
