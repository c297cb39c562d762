use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use importguard_core::{Evaluation, EventId, ImportRequest};
use importguard_files::Reloads;
use importguard_proto::decider::DecideRequest;
use importguard_telemetry::{
    propagation,
    span::{child, failed},
};
use prometheus::Registry;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
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
    /// A metric is registered twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
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
        registry: &Registry,
    ) -> Result<(Self, Arc<Balancer>), DecidersStartError> {
        let tls = watch(&settings.decider_url, &settings.tls, reloads)?;
        let metrics = Metrics::register(registry)?;
        metrics.begin();
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

    /// Asks one decider, and another one as well where the first cannot be reached or is silent.
    async fn attempt(&self, call: Call<'_>) -> Decided {
        let Some(decider) = self.balancer.pick(None) else {
            self.balancer.doubt();
            return Err(DecideError::Unavailable(self.balancer.why_none()));
        };
        let mut first = pin!(self.call(&decider, call));
        let patience = self.retry_after.min(call.within);
        let answer = match timeout(patience, first.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => {
                self.balancer.doubt();
                match self.another(&decider, call, Retry::Silent) {
                    // Boxed, as is the other one: they are rare, and each call's future would have to be as large.
                    Some(other) => {
                        let second = Box::pin(self.call(&other, call));
                        return within(call, first_answer(first, second)).await;
                    }
                    None => within(call, first).await,
                }
            }
        };
        let Err(error @ DecideError::Unavailable(_)) = answer else {
            return answer;
        };
        match self.another(&decider, call, Retry::Unavailable) {
            Some(other) => within(call, Box::pin(self.call(&other, call))).await,
            None => Err(error),
        }
    }

    /// Whom to ask beside `decider`, if there is another one, and time for it: itself, over a new connection, where that broke and
    /// there is no other. A request that may be costly is put to one decider only: what stops that one is not to stop the next.
    fn another(
        &self,
        decider: &Arc<Decider>,
        call: Call<'_>,
        retry: Retry,
    ) -> Option<Arc<Decider>> {
        let cheap = call.request.friends.len() <= self.retry_max_friends;
        if !cheap || Instant::now() >= call.deadline {
            return None;
        }
        let other = self.balancer.pick(Some(decider));
        let itself = || (retry == Retry::Unavailable).then(|| Arc::clone(decider));
        let other = other.or_else(itself)?;
        self.metrics.retried(retry);
        call.span.record("importguard.decider.retried", true);
        Some(other)
    }

    async fn call(&self, decider: &Decider, call: Call<'_>) -> Decided {
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

/// What comes of an answer that is worth something only until the deadline.
async fn within(call: Call<'_>, answer: impl Future<Output = Decided>) -> Decided {
    let answer = timeout_at(call.deadline, answer).await;
    answer.unwrap_or(Err(DecideError::Timeout(call.within)))
}

/// The first answer of two. A decider that cannot be reached gives none.
async fn first_answer(
    first: impl Future<Output = Decided> + Unpin,
    second: impl Future<Output = Decided> + Unpin,
) -> Decided {
    match select(first, second).await {
        Either::Left((Err(DecideError::Unavailable(_)), second)) => second.await,
        Either::Right((Err(DecideError::Unavailable(_)), first)) => first.await,
        Either::Left((decided, _)) | Either::Right((decided, _)) => decided,
    }
}
