//! Where a request is evaluated and for how long: a cheap one at once, an expensive one on a thread of its own beside those that
//! answer calls, and none for longer than its caller waits.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use importguard_core::{Evaluation, ImportRequest};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout_at};
use tonic::metadata::MetadataMap;

use crate::{
    metrics::{Metrics, RuleTimer},
    policy::{NANOS_PER_UNIT, Policy, Request, StoppedError},
    reload::Active,
};

/// How many units an evaluation may cost that holds up other calls of its thread: 200 µs, ten times what it takes to hand one to
/// another thread and back.
const INLINE: u64 = 200_000 / NANOS_PER_UNIT;

/// How much earlier than its caller gives up an evaluation ends, so that its caller learns why: a tenth of the time and at most
/// this, which is what an evaluation may take to notice.
const MARGIN: Duration = Duration::from_millis(10);

/// The longest that anybody is taken to wait: an instant so far off exists on every clock.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A caller's deadline passed before there was a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadlineExceeded;

/// Evaluates requests.
pub(crate) struct Evaluations {
    /// One for each expensive evaluation that may be under way.
    permits: Arc<Semaphore>,
    metrics: Metrics,
    longest: Duration,
}

impl Evaluations {
    /// `longest` is how long a call may take whose caller sets no deadline, or a later one.
    pub(crate) fn new(metrics: Metrics, longest: Duration) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            // One processor is left for everybody else.
            permits: Arc::new(Semaphore::new(processors.saturating_sub(1).max(1))),
            metrics,
            longest: longest.min(LONGEST),
        }
    }

    /// Until when a call with this metadata, which has just come in, is evaluated.
    pub(crate) fn deadline(&self, metadata: &MetadataMap) -> Instant {
        let asked = metadata
            .get("grpc-timeout")
            .and_then(|timeout| timeout.to_str().ok());
        let timeout = asked
            .and_then(parse_timeout)
            .map_or(self.longest, |asked| asked.min(self.longest));
        Instant::now() + timeout.saturating_sub((timeout / 10).min(MARGIN))
    }

    /// Evaluates `request`. Where it takes longer than `deadline`, or its caller stops waiting, it is stopped.
    pub(crate) async fn evaluate(
        &self,
        active: Arc<Active>,
        request: ImportRequest,
        deadline: Instant,
    ) -> Result<Evaluation, DeadlineExceeded> {
        let metrics = self.metrics.clone();
        if expected_cost(&active.policy, &request) <= INLINE {
            return evaluate(&active, &request, || Instant::now() >= deadline, &metrics);
        }
        let permit = timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned());
        // The semaphore is never closed.
        let Ok(Ok(permit)) = permit.await else {
            metrics.aborted();
            return Err(DeadlineExceeded);
        };
        let gone = Gone::default();
        let abandoned = Arc::clone(&gone.0);
        let evaluating = spawn_blocking(move || {
            let _permit = permit;
            let overdue = || abandoned.load(Ordering::Relaxed) || Instant::now() >= deadline;
            evaluate(&active, &request, overdue, &metrics)
        });
        match evaluating.await {
            Ok(evaluated) => evaluated,
            Err(failed) => match failed.try_into_panic() {
                // As if it had panicked here.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(DeadlineExceeded),
            },
        }
    }
}

/// Tells an evaluation, when it is dropped, that nobody waits for it any more.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn expected_cost(policy: &Policy, request: &ImportRequest) -> u64 {
    let ids = [request.owner.as_str(), request.operation_id.as_str()];
    let longest = ids.map(str::len).into_iter().max().unwrap_or_default();
    let friends = request.friends.iter();
    let bytes = friends.map(|friend| friend.as_str().len()).sum();
    policy.expected_cost(request.friends.len(), bytes, longest)
}

fn evaluate(
    active: &Active,
    request: &ImportRequest,
    overdue: impl FnMut() -> bool,
    metrics: &Metrics,
) -> Result<Evaluation, DeadlineExceeded> {
    let began = Instant::now();
    let request = Request {
        operation_id: request.operation_id.as_str(),
        owner: request.owner.as_str(),
        friends: &request.friends,
        now: SystemTime::now(),
    };
    let mut timer = RuleTimer::new(&active.rule_durations);
    let evaluated = active.policy.evaluate_until(&request, overdue, &mut timer);
    match evaluated {
        Ok(evaluation) => {
            metrics.evaluated(&evaluation, began.elapsed());
            Ok(evaluation)
        }
        Err(StoppedError) => {
            metrics.aborted();
            Err(DeadlineExceeded)
        }
    }
}

/// A `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use importguard_core::{OperationId, UserId, Verdict};
    use importguard_telemetry::metrics::{PolicyInfo, encode};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::policy::{Draft, ListFiles};

    /// Many seconds in a debug build, near the bound in a release build.
    const EXPENSIVE: &str =
        "- { id: r, dropFriendIf: \"['a', 'b', 'c', 'd'].exists(x, friend == x)\", onError: skip }";
    const CHEAP: &str = "- { id: r, dropFriends: { prefixes: [bot_] } }";
    const LONG: Duration = Duration::from_secs(3600);

    fn policy(rules: &str) -> Arc<Active> {
        let source = format!("apiVersion: importguard/v1\nname: test\nrules:\n{rules}\n");
        let policy = Draft::read("policy.yaml", &source).compile(&ListFiles::new());
        Arc::new(Active {
            policy: policy.unwrap_or_else(|diagnostics| panic!("{diagnostics}")),
            rule_durations: Vec::new(),
        })
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
        (Evaluations::new(metrics, Duration::from_secs(5)), registry)
    }

    fn aborted(registry: &Registry) -> f64 {
        let text = encode(registry, None).unwrap().text;
        let name = "importguard_decider_evaluations_aborted_total ";
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().parse().unwrap()
    }

    #[test]
    fn a_callers_timeout_is_read_as_grpc_has_it() {
        for (text, millis) in [
            ("2H", 7_200_000),
            ("3M", 180_000),
            ("4S", 4000),
            ("500m", 500),
            ("6000u", 6),
            ("7000000n", 7),
            ("99999999H", 359_999_996_400_000),
        ] {
            assert_eq!(
                parse_timeout(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "123456789S",
            "5 S",
            "ü",
            "5ü",
        ] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_a_little_before_the_callers_and_never_after_our_own() {
        let (evaluations, _) = evaluations();
        for (timeout, expected) in [
            (Some("500000u"), 490),
            (Some("50m"), 45),
            (Some("1H"), 4990),
            (None, 4990),
            (Some("soon"), 4990),
        ] {
            let mut metadata = MetadataMap::new();
            if let Some(timeout) = timeout {
                metadata.insert("grpc-timeout", timeout.parse().unwrap());
            }
            let began = Instant::now();
            let after = evaluations.deadline(&metadata) - began;
            assert!(
                after >= Duration::from_millis(expected),
                "{timeout:?}: {after:?}"
            );
            assert!(
                after < Duration::from_millis(expected + 1000),
                "{timeout:?}: {after:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_cheap_request_is_evaluated_even_where_no_costly_one_may_be() {
        let (evaluations, _) = evaluations();
        let all = u32::try_from(evaluations.permits.available_permits()).unwrap();
        let others = evaluations.permits.acquire_many(all).await.unwrap();
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
    async fn what_comes_too_late_is_not_evaluated_and_counted() {
        let (evaluations, registry) = evaluations();
        for (rules, friends) in [(CHEAP, 10), (EXPENSIVE, 500)] {
            let late = evaluations.evaluate(policy(rules), request(friends), Instant::now());
            assert_eq!(late.await, Err(DeadlineExceeded));
        }
        assert_eq!(aborted(&registry), 2.0);
    }

    #[tokio::test]
    async fn who_waits_for_others_waits_no_longer_than_the_deadline() {
        let (evaluations, registry) = evaluations();
        let all = u32::try_from(evaluations.permits.available_permits()).unwrap();
        let others = evaluations.permits.acquire_many(all).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let waiting = evaluations.evaluate(policy(EXPENSIVE), request(500), deadline);
        assert_eq!(waiting.await, Err(DeadlineExceeded));
        assert!(Instant::now() >= deadline);
        assert_eq!(aborted(&registry), 1.0);
        drop(others);
    }

    #[tokio::test]
    async fn an_evaluation_ends_when_nobody_waits_for_it_any_more() {
        let (evaluations, registry) = evaluations();
        let all = evaluations.permits.available_permits();
        let deadline = Instant::now() + LONG;
        // Large enough that it would be under way for long.
        let abandoned = evaluations.evaluate(policy(EXPENSIVE), request(400_000), deadline);
        let given_up = tokio::time::timeout(Duration::from_millis(50), abandoned).await;
        assert!(given_up.is_err());
        let back = evaluations
            .permits
            .acquire_many(u32::try_from(all).unwrap());
        let back = tokio::time::timeout(Duration::from_secs(20), back).await;
        assert!(back.is_ok(), "it goes on");
        assert_eq!(aborted(&registry), 1.0);
    }
}
