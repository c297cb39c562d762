//! Callers that note when they were answered.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use importguard_tests::{Client, OpenIm, Service};
use tokio::time::{MissedTickBehavior, interval};

use crate::asserts;

/// Callbacks a second.
const RATE: u32 = 300;

/// The refusals that may have no event: in an overload, and where there is nowhere to record.
const WITHOUT_EVENT: [i32; 2] = [5913, 5914];

/// When each callback was answered, in seconds since 1970, by operationID.
pub(super) type Answers = BTreeMap<String, f64>;

/// Now, in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// Asks `gateway` [`RATE`] times a second for so long. A busy machine refuses some, and must not refuse nearly all.
pub(super) async fn ask(gateway: &Service, name: &str, lasts: Duration) -> Answers {
    let openim = OpenIm::server(gateway.url());
    let client = Client::default();
    let mut clock = interval(Duration::from_secs(1) / RATE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut callers = Vec::new();
    for number in 0..RATE * u32::try_from(lasts.as_secs()).unwrap() {
        clock.tick().await;
        let (openim, client) = (openim.clone(), client.clone());
        let id = format!("{name}-{number}");
        callers.push(tokio::spawn(async move {
            let friends: Vec<_> = (0..number % 50).map(|n| format!("friend_{n}")).collect();
            let friends: Vec<_> = friends.iter().map(String::as_str).collect();
            let call = openim.before_import(&id, "owner", &friends);
            let answer = client.try_send(call).await.ok()?;
            let answered = now();
            (!WITHOUT_EVENT.contains(&asserts::code(&answer))).then_some((id, answered))
        }));
    }
    let asked = callers.len();
    let mut answers = Answers::new();
    for caller in callers {
        answers.extend(caller.await.unwrap());
    }
    let answered = answers.len();
    assert!(
        answered > asked / 4,
        "only {answered} of {asked} were decided"
    );
    answers
}

/// Those of `answers` that had come by `cut` and are not in `found`.
pub(super) fn lost(answers: &Answers, cut: f64, is_found: impl Fn(&str) -> bool) -> Vec<&str> {
    let answered = answers.iter().filter(|(_, at)| **at <= cut);
    answered
        .map(|(id, _)| id.as_str())
        .filter(|id| !is_found(id))
        .collect()
}

/// A random moment among the `answers`.
pub(super) fn moment(answers: &Answers, random: &mut fastrand::Rng) -> f64 {
    let first = answers.values().copied().fold(f64::INFINITY, f64::min);
    let last = answers.values().copied().fold(0.0, f64::max);
    first + random.f64() * (last - first)
}
