//! Schedules evaluations: cheap requests inline, expensive ones on a blocking thread, all within their caller's deadline.

use std::{
    num::NonZero,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use importguard_core::{Evaluation, ImportRequest, UserId};
use importguard_telemetry::span::ServerSpan;
use tokio::{task::spawn_blocking, time::timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    lists::live::LiveLists,
    metrics::{Metrics, RuleTimer},
    permits::Permits,
    policy::{NANOS_PER_UNIT, Policy, Request, StoppedError},
    reload::Active,
};

/// The maximum cost of an evaluation that runs inline, where it delays the other calls of its thread, in units: 200 µs, ten times the cost
/// of using another thread.
const MAX_INLINE: u64 = 200_000 / NANOS_PER_UNIT;

/// Why there is no evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluateError {
    /// The caller's deadline passed during the evaluation.
    #[error("deadline exceeded while evaluating the policy")]
    DeadlineExceeded,
    /// The caller's deadline passed, and most of the time other evaluations had all permits.
    #[error("other evaluations took all processors until the deadline")]
    Overloaded,
}

/// Schedules evaluations.
pub(crate) struct Evaluations {
    /// Limit the number of concurrent expensive evaluations.
    permits: Permits,
    metrics: Metrics,
}

impl Evaluations {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            // One processor stays free for other work.
            permits: Permits::new(processors.saturating_sub(1).max(1)),
            metrics,
        }
    }

    /// Evaluates `request`. Stops at `deadline`, or when the caller stops waiting.
    ///
    /// # Errors
    /// If the deadline passes.
    pub(crate) async fn evaluate(
        &self,
        (active, live): (Arc<Active>, Arc<LiveLists>),
        request: ImportRequest,
        deadline: Instant,
    ) -> Result<Evaluation, EvaluateError> {
        let metrics = self.metrics.clone();
        let cost = expected_cost(&active.policy, &engine_request(&request));
        if cost <= MAX_INLINE {
            return evaluate(
                (&active, &live),
                &request,
                || Instant::now() >= deadline,
                &metrics,
            );
        }
        let arrived = Instant::now();
        let permit = timeout_at(deadline.into(), self.permits.acquire(cost));
        // The wait itself cannot fail.
        let Ok(Ok(permit)) = permit.await else {
            metrics.aborted();
            return Err(EvaluateError::Overloaded);
        };
        let (waited, time) = (
            arrived.elapsed(),
            deadline.saturating_duration_since(arrived),
        );
        let abandoned = CancellationToken::new();
        // Stops the evaluation when its caller stops waiting, which drops this future.
        let _guard = abandoned.clone().drop_guard();
        let evaluated = blocking(move || {
            let _permit = permit;
            let should_stop = || abandoned.is_cancelled() || Instant::now() >= deadline;
            evaluate((&active, &live), &request, should_stop, &metrics)
        });
        match evaluated
            .await
            .unwrap_or(Err(EvaluateError::DeadlineExceeded))
        {
            Err(EvaluateError::DeadlineExceeded) if waited > time / 2 && !time.is_zero() => {
                Err(EvaluateError::Overloaded)
            }
            evaluated => evaluated,
        }
    }
}

/// Runs `work` on a blocking thread as a part of the current call, which a panic's log line then names. Returns `None` if the runtime is
/// shutting down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let call = ServerSpan::current();
    match spawn_blocking(move || call.in_scope(work)).await {
        Ok(done) => Some(done),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => None,
        },
    }
}

fn expected_cost(policy: &Policy, request: &Request<'_, UserId>) -> u64 {
    let friends = request.friends.iter();
    let bytes = friends.map(|friend| friend.as_str().len()).sum();
    policy.expected_cost(request.friends.len(), bytes, request.longest())
}

fn evaluate(
    (active, live): (&Active, &LiveLists),
    request: &ImportRequest,
    should_stop: impl FnMut() -> bool,
    metrics: &Metrics,
) -> Result<Evaluation, EvaluateError> {
    let began = Instant::now();
    let mut timer = RuleTimer::new(active.rule_durations(metrics));
    let evaluated = active.policy.with_live(live).evaluate_until(
        &engine_request(request),
        should_stop,
        &mut timer,
    );
    match evaluated {
        Ok(evaluation) => {
            metrics.evaluated(&evaluation, began.elapsed());
            Ok(evaluation)
        }
        Err(StoppedError) => {
            metrics.aborted();
            Err(EvaluateError::DeadlineExceeded)
        }
    }
}

/// The engine's view of a request that is evaluated now.
fn engine_request(request: &ImportRequest) -> Request<'_, UserId> {
    Request {
        operation_id: request.operation_id.as_str(),
        owner: request.owner.as_str(),
        friends: &request.friends,
        now: now(),
    }
}

/// The current time in whole microseconds, as responses and events have it: the decision can be repeated as of exactly this time.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use futures_util::FutureExt;
    use importguard_core::{OperationId, Verdict};
    use importguard_telemetry::{
        metrics::{PolicyInfo, encode},
        propagation,
    };
    use prometheus_client::registry::Registry;
    use tonic::codegen::http::HeaderMap;

    use super::*;
    use crate::{
        permits::Permit,
        policy::{Draft, ListFiles},
    };

    /// Many seconds in a debug build, near the limit in a release build.
    const EXPENSIVE: &str =
        "- { id: r, dropFriendIf: \"['a', 'b', 'c', 'd'].exists(x, friend == x)\", onError: skip }";
    const CHEAP: &str = "- { id: r, dropFriends: { prefixes: [bot_] } }";
    const LONG: Duration = Duration::from_secs(3600);

    fn policy(rules: &str) -> (Arc<Active>, Arc<LiveLists>) {
        let source = format!("apiVersion: importguard/v1\nname: test\nrules:\n{rules}\n");
        let policy = Draft::read("policy.yaml", &source).compile(&ListFiles::new());
        let active = Active {
            policy: policy.unwrap_or_else(|diagnostics| panic!("{diagnostics}")),
            rule_durations: OnceLock::new(),
            unread: None,
        };
        (Arc::new(active), Arc::default())
    }

    fn request(friends: usize) -> ImportRequest {
        let id = |id: String| UserId::parse(id).unwrap();
        ImportRequest {
            operation_id: OperationId::parse("op").unwrap(),
            owner: id("user123".to_owned()),
            friends: (0..friends)
                .map(|number| id(format!("friend{number}")))
                .collect(),
        }
    }

    fn evaluations() -> (Evaluations, Registry) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, PolicyInfo::default());
        (Evaluations::new(metrics), registry)
    }

    fn aborted(registry: &Registry) -> f64 {
        let text = encode(registry, None).unwrap().text;
        let name = "importguard_decider_evaluations_aborted_total ";
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().parse().unwrap()
    }

    /// Takes every permit that is free.
    fn all_permits(evaluations: &Evaluations) -> Vec<Permit> {
        let mut taken = Vec::new();
        while let Some(Ok(permit)) = evaluations.permits.acquire(0).now_or_never() {
            taken.push(permit);
        }
        taken
    }

    #[tokio::test]
    async fn a_cheap_request_needs_no_permit() {
        let (evaluations, _) = evaluations();
        let others = all_permits(&evaluations);
        let deadline = Instant::now() + LONG;
        let cheap = evaluations
            .evaluate(policy(CHEAP), request(10), deadline)
            .await;
        assert_eq!(cheap.unwrap().verdict, Verdict::Allow);
        drop(others);
        let costly = evaluations
            .evaluate(policy(EXPENSIVE), request(500), deadline)
            .await;
        assert_eq!(costly.unwrap().verdict, Verdict::Allow);
    }

    #[tokio::test]
    async fn a_call_past_its_deadline_is_counted_and_not_evaluated() {
        let (evaluations, registry) = evaluations();
        for (rules, friends) in [(CHEAP, 10), (EXPENSIVE, 500)] {
            let late = evaluations.evaluate(policy(rules), request(friends), Instant::now());
            assert_eq!(late.await, Err(EvaluateError::DeadlineExceeded));
        }
        assert_eq!(aborted(&registry), 2.0);
    }

    #[tokio::test]
    async fn a_call_waits_for_a_permit_until_its_deadline_only() {
        let (evaluations, registry) = evaluations();
        let others = all_permits(&evaluations);
        let deadline = Instant::now() + Duration::from_millis(50);
        let waiting = evaluations.evaluate(policy(EXPENSIVE), request(500), deadline);
        assert_eq!(waiting.await, Err(EvaluateError::Overloaded));
        assert!(Instant::now() >= deadline);
        assert_eq!(aborted(&registry), 1.0);
        drop(others);
    }

    #[tokio::test]
    async fn work_on_a_blocking_thread_belongs_to_its_call() {
        let id = OperationId::parse("op").unwrap();
        let (headers, now) = (HeaderMap::new(), SystemTime::now());
        let span = ServerSpan::start(&headers, Some(&id), "call", now);
        let headers = span.instrument(blocking(propagation::outgoing)).await;
        assert_eq!(headers.unwrap()["operationid"], "op");
    }

    #[tokio::test]
    async fn an_evaluation_ends_when_its_caller_stops_waiting() {
        let (evaluations, registry) = evaluations();
        let mut others = all_permits(&evaluations);
        drop(others.pop());
        let deadline = Instant::now() + LONG;
        // Large enough to run for a long time.
        let abandoned = evaluations.evaluate(policy(EXPENSIVE), request(400_000), deadline);
        let given_up = tokio::time::timeout(Duration::from_millis(50), abandoned).await;
        assert!(given_up.is_err());
        let back = evaluations.permits.acquire(0);
        let back = tokio::time::timeout(Duration::from_secs(20), back).await;
        assert!(back.is_ok(), "still running");
        assert_eq!(aborted(&registry), 1.0);
    }

    #[test]
    fn as_many_expensive_evaluations_run_at_once_as_leave_a_processor_free() {
        let (evaluations, _) = evaluations();
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(all_permits(&evaluations).len(), (processors - 1).max(1));
    }

    #[tokio::test]
    async fn an_evaluation_that_began_too_late_ends_for_overload() {
        let (evaluations, _) = evaluations();
        let others = all_permits(&evaluations);
        let deadline = Instant::now() + Duration::from_millis(400);
        let release = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(others);
        };
        let evaluated = evaluations.evaluate(policy(EXPENSIVE), request(400_000), deadline);
        let (evaluated, ()) = tokio::join!(evaluated, release);
        assert_eq!(evaluated, Err(EvaluateError::Overloaded));
    }
}
