use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use importguard_files::Reloads;
use importguard_telemetry::{
    propagation,
    span::{child, failed, recorded},
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
    DecideError, DecideSettings, Evidence, InvalidDeciderTls, Keeper, Verdict,
    codec::Encoded,
    error::code_name,
    metrics::{Metrics, Retry},
    pod::Pod,
    pods::Pods,
    resolve::Resolver,
    tls::targets,
    verify::verify,
};
use crate::{openim::ImportRequest, record::EventId};

/// The method's full name, as spans have it.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// The deciders. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Deciders {
    pods: Arc<Pods>,
    retry_after: Duration,
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

type Decided = Result<(Verdict, Evidence), DecideError>;

/// A question, and until when it is worth an answer.
#[derive(Clone, Copy)]
struct Question<'a> {
    span: &'a Span,
    id: &'a EventId,
    request: &'a ImportRequest,
    within: Duration,
    deadline: Instant,
}

impl Deciders {
    /// Looks where deciders are; none need be there yet. The keeper keeps that true for as long as it runs. Must be called
    /// inside a tokio runtime.
    pub(crate) async fn start(
        settings: &DecideSettings,
        reloads: &mut Reloads,
        registry: &Registry,
    ) -> Result<(Self, Keeper), DecidersStartError> {
        let targets = targets(&settings.decider_url, &settings.tls, reloads)?;
        let metrics = Metrics::register(registry)?;
        let pods = Arc::new(Pods::new(metrics.clone()));
        let mut resolver = Resolver::new(targets, Arc::clone(&pods), settings.decider_timeout);
        resolver.begin().await;
        let deciders = Self {
            pods: Arc::clone(&pods),
            retry_after: settings.decider_retry_after,
            metrics,
        };
        Ok((deciders, Keeper::new(pods, resolver, settings)))
    }

    /// How they stand, for readiness.
    pub(crate) fn describe(&self) -> Value {
        self.pods.describe()
    }

    /// Asks for a verdict on `request` and checks it; gives up after `within`.
    pub(crate) async fn decide(
        &self,
        id: &EventId,
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
        let question = Question {
            span: &span,
            id,
            request,
            within,
            deadline: Instant::now() + within,
        };
        // The span is entered only where it is needed: at every poll it would cost more than all that is told on it.
        let result = self.ask(question).await;
        if let Err(error) = &result {
            failed(&span, error.cause().as_str(), error);
        }
        result
    }

    /// Asks somebody, and somebody else as well where the first cannot be reached or is silent.
    async fn ask(&self, question: Question<'_>) -> Decided {
        let Some(pod) = self.pods.pick(None) else {
            self.pods.doubted();
            return Err(DecideError::Unavailable(self.pods.why_nobody()));
        };
        let patience = if self.pods.several() {
            self.retry_after.min(question.within)
        } else {
            question.within
        };
        let mut first = pin!(self.call(&pod, question));
        match timeout(patience, first.as_mut()).await {
            Ok(Err(error @ DecideError::Unavailable(_))) => {
                match self.another(&pod, question, Retry::Unavailable) {
                    // Boxed, as is the other one: they are rare, and each question's future would have to be as large.
                    Some(other) => {
                        let second = Box::pin(self.call(&other, question));
                        within(question, second).await
                    }
                    None => Err(error),
                }
            }
            Ok(decided) => decided,
            Err(_) => {
                self.pods.doubted();
                match self.another(&pod, question, Retry::Silent) {
                    Some(other) => {
                        let second = Box::pin(self.call(&other, question));
                        within(question, whoever_answers(first, second)).await
                    }
                    None => within(question, first).await,
                }
            }
        }
    }

    /// Whom to ask beside `pod`, if there is anybody, and time for it.
    fn another(&self, pod: &Pod, question: Question<'_>, retry: Retry) -> Option<Arc<Pod>> {
        if Instant::now() >= question.deadline {
            return None;
        }
        let other = self.pods.pick(Some(pod))?;
        self.metrics.retried(retry);
        question.span.record("importguard.decider.retried", true);
        Some(other)
    }

    /// Asks `pod`.
    async fn call(&self, pod: &Pod, question: Question<'_>) -> Decided {
        let _in_flight = pod.begin();
        let answer = pod.decide(question.to_message()).await;
        question.span.in_scope(|| tell(pod, &answer));
        let decided = match answer {
            Ok(response) => verify(response.into_inner(), question.request).map_err(|reason| {
                DecideError::Failed(format!("its answer cannot be used: {reason}"))
            }),
            Err(status) => Err(DecideError::from_status(&status, question.within)),
        };
        decided.map_err(|error| match error {
            DecideError::Unavailable(why) => {
                self.pods.failed(pod, &why);
                DecideError::Unavailable(format!("{pod}: {why}"))
            }
            other => other,
        })
    }
}

impl Question<'_> {
    fn to_message(self) -> Request<Encoded> {
        let message = Encoded::question(self.id, self.request);
        let headers = self.span.in_scope(propagation::outgoing);
        let metadata = MetadataMap::from_headers(headers);
        let mut question = Request::from_parts(metadata, Extensions::default(), message);
        // The decider learns the deadline too and stops working on what nobody waits for.
        question.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        question
    }
}

/// On the span, if somebody reads it: who was asked, and what came of that.
fn tell<T>(pod: &Pod, answer: &Result<T, Status>) {
    if !recorded() {
        return;
    }
    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    let span = Span::current();
    span.record("rpc.response.status_code", code_name(code));
    span.record("server.address", display(pod.address().ip()));
    span.record("server.port", pod.address().port());
}

/// What comes of an answer that is worth something only for so long.
async fn within(question: Question<'_>, answer: impl Future<Output = Decided>) -> Decided {
    let answer = timeout_at(question.deadline, answer).await;
    answer.unwrap_or(Err(DecideError::Timeout(question.within)))
}

/// The first answer of two. Who cannot be reached gives none.
async fn whoever_answers(
    first: impl Future<Output = Decided> + Unpin,
    second: impl Future<Output = Decided> + Unpin,
) -> Decided {
    match select(first, second).await {
        Either::Left((Err(DecideError::Unavailable(_)), second)) => second.await,
        Either::Right((Err(DecideError::Unavailable(_)), first)) => first.await,
        Either::Left((decided, _)) | Either::Right((decided, _)) => decided,
    }
}
