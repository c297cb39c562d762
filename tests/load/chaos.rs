//! Answered means recorded, whatever is killed, frozen, cut or full: under 400 requests a second, of which at least 50 must
//! be answered, every answer has its event, no event is stored twice, and each says what was answered.

use std::collections::{HashMap, HashSet};

use importguard_core::{Dialect, VerdictKind};
use importguard_tests::{
    Line, NatsServer, Proxy, Reading, Response, SOON, Service, Settings, StoredEvent, Traffic,
    TrafficReport, eventually, stored,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::asserts;

/// Answers a second that a test must have seen, pauses for restarts and all, on a machine that is busy with other tests.
pub(crate) const LEAST_RATE: f64 = 50.0;

/// Neither NATS nor the spool took the event.
const UNRECORDABLE: i32 = 5914;

/// Imports that the usual policy allows, modifies, and refuses for both of its reasons.
pub(crate) fn of_every_verdict(number: usize) -> (&'static str, Vec<String>) {
    let friends = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match number % 4 {
        0 => ("a", friends(&["b", "c"])),
        1 => ("a", friends(&["b", "bot_1", "c"])),
        2 => ("a", friends(&["bot_1"])),
        _ => ("blocked_owner", friends(&["b"])),
    }
}

/// Imports whose events take more than 12 KiB each.
fn large(_: usize) -> (&'static str, Vec<String>) {
    let friends = (0..60).map(|number| format!("{number:0>200}"));
    ("a", friends.collect())
}

/// The rate is each test's own, so they take turns.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// A line for every decision is what these tests don't need, nor a decider that is given up because the machine is busy.
pub(crate) fn quiet() -> Settings {
    Settings::new().with_long_timeouts().set("RUST_LOG", "warn")
}

fn traffic(line: &Line) -> Traffic {
    Traffic::start(&line.server(), "op", of_every_verdict)
}

/// Ends the traffic and, once nothing is left in the spool, the gateway; then compares what was answered with what is stored.
async fn settle(mut line: Line, traffic: Traffic) -> TrafficReport {
    let asked = traffic.stop().await;
    line.gateway.wait_for_recorder("streaming").await;
    // After its end the gateway can't store one more.
    let status = line.gateway.terminate(SOON).await;
    assert!(status.success(), "{status}");
    let events = stored(&line.nats).await;
    let ids: HashSet<_> = events.iter().map(StoredEvent::id).collect();
    assert_eq!(ids.len(), events.len(), "an event is stored twice");
    compare(&asked, &events);
    asked
}

/// What was answered and what `events` say are the same, and it was asked often enough to mean something.
pub(crate) fn compare(asked: &TrafficReport, events: &[StoredEvent]) {
    let mut by_operation = HashMap::new();
    for event in events {
        let operation_id = event.operation_id();
        let other = by_operation.insert(operation_id, event);
        assert!(other.is_none(), "{operation_id} has two events");
        let known = asked.answers.contains_key(operation_id);
        assert!(known, "nobody asked for {operation_id}");
    }
    for (operation_id, answer) in asked.answered() {
        let event = by_operation.get(operation_id);
        match (unrecordable(answer), event) {
            (false, Some(event)) => assert_eq!(reading(answer), told_by(event), "{operation_id}"),
            (false, None) => panic!("{operation_id} was answered and is lost: {}", answer.text()),
            (true, Some(event)) => panic!("{operation_id} has an event, but: {}", event.json),
            (true, None) => {}
        }
    }
    let rate = asked.rate();
    assert!(
        rate >= LEAST_RATE,
        "only {rate:.0} answers a second in {:?}",
        asked.lasted
    );
}

fn reading(answer: &Response) -> Reading {
    assert_eq!(answer.status, 200, "{}", answer.text());
    asserts::reading(Dialect::Server, answer)
}

fn unrecordable(answer: &Response) -> bool {
    matches!(reading(answer), Reading::Refuses { code, .. } if code == UNRECORDABLE)
}

/// What the answer must have said for `event` to be true.
fn told_by(event: &StoredEvent) -> Reading {
    let data = &event.decision().data;
    match data.verdict {
        VerdictKind::Allow => Reading::Imports { instead: None },
        VerdictKind::Modify => {
            let removed: HashSet<_> = data
                .removed
                .iter()
                .flat_map(|removal| removal.friends.as_deref().unwrap_or_default())
                .collect();
            let friends = (0..).zip(data.friend_user_ids.iter().flat_map(|ids| ids.iter()));
            let kept = friends.filter(|(index, _)| !removed.contains(index));
            Reading::Imports {
                instead: Some(kept.map(|(_, friend)| friend.to_string()).collect()),
            }
        }
        VerdictKind::Refuse => {
            let refusal = data.refusal.as_ref().expect("a refusal says why");
            Reading::Refuses {
                code: refusal.code,
                message: refusal.message.clone(),
                detail: refusal.detail.clone(),
            }
        }
    }
}

/// A line whose gateway reaches NATS through a proxy.
async fn through_a_proxy() -> (Line, Proxy) {
    let nats = NatsServer::start().await;
    let proxy = Proxy::to(nats.address()).await;
    let settings = quiet().set("NATS_URL", format!("nats://{}", proxy.address()));
    (Line::around(nats, settings).await, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_killed_again_and_again() {
    let _turn = alone().await;
    let mut line = Line::with(quiet()).await;
    let traffic = traffic(&line);
    for _ in 0..4 {
        traffic.answers(250).await;
        line.gateway.kill9();
        line.gateway.restart().await;
    }
    traffic.answers(400).await;
    let asked = settle(line, traffic).await;
    let cut = asked.answers.len() - asked.answered().count();
    assert!(cut > 0, "no request met a dead gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_killed_while_it_spools_and_while_it_drains() {
    let _turn = alone().await;
    let mut line = Line::with(quiet()).await;
    let traffic = traffic(&line);
    traffic.answers(100).await;
    line.nats.kill9();
    for _ in 0..3 {
        traffic.answers(300).await;
        line.gateway.kill9();
        line.gateway.restart().await;
    }
    traffic.answers(300).await;
    line.nats.restart().await;
    for _ in 0..3 {
        until_drains(&line.gateway).await;
        line.gateway.kill9();
        line.gateway.restart().await;
    }
    traffic.answers(400).await;
    settle(line, traffic).await;
}

/// Waits until events have left the spool for NATS since the gateway's start, be it only some of them.
async fn until_drains(gateway: &Service) {
    eventually("the spool is drained", SOON, async || {
        let drained = gateway.events_by("drained").await?;
        let spooled = gateway.metric("importguard_recorder_spool_events").await?;
        anyhow::ensure!(drained > 0.0 || spooled == 0.0, "not yet");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_killed_and_restarted_again_and_again() {
    let _turn = alone().await;
    let mut line = Line::with(quiet()).await;
    let traffic = traffic(&line);
    for _ in 0..4 {
        traffic.answers(150).await;
        line.nats.kill9();
        traffic.answers(150).await;
        line.nats.restart().await;
    }
    traffic.answers(200).await;
    settle(line, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_stands_still_and_goes_on_or_is_killed() {
    let _turn = alone().await;
    let mut line = Line::with(quiet()).await;
    let traffic = traffic(&line);
    for round in 0..4 {
        line.gateway.wait_for_recorder("streaming").await;
        traffic.answers(100).await;
        line.nats.freeze().await;
        line.gateway.wait_for_recorder("spooling").await;
        traffic.answers(150).await;
        // What it had received and not read is stored late, or never.
        if round % 2 == 0 {
            line.nats.thaw();
        } else {
            line.nats.kill9();
            line.nats.restart().await;
        }
    }
    settle(line, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_to_nats_is_torn_in_the_middle() {
    let _turn = alone().await;
    let (line, proxy) = through_a_proxy().await;
    let traffic = traffic(&line);
    for _ in 0..6 {
        line.gateway.wait_for_recorder("streaming").await;
        traffic.answers(100).await;
        proxy.cut().await;
    }
    proxy.refuse().await;
    proxy.cut().await;
    traffic.answers(200).await;
    proxy.restore().await;
    line.gateway.wait_for_recorder("streaming").await;
    settle(line, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_to_nats_stalls_and_goes_on_or_is_cut() {
    let _turn = alone().await;
    let (line, proxy) = through_a_proxy().await;
    let traffic = traffic(&line);
    for round in 0..4 {
        line.gateway.wait_for_recorder("streaming").await;
        traffic.answers(100).await;
        proxy.stall();
        line.gateway.wait_for_recorder("spooling").await;
        traffic.answers(150).await;
        // What was held back arrives late, or never.
        if round % 2 == 1 {
            proxy.cut().await;
        }
        proxy.restore().await;
    }
    settle(line, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_filled_and_what_it_cannot_take_is_refused() {
    let _turn = alone().await;
    let settings = quiet().set("IMPORTGUARD_SPOOL_MAX_BYTES", (2 << 20).to_string());
    let mut line = Line::with(settings).await;
    let traffic = Traffic::start(&line.server(), "op", large);
    traffic.answers(100).await;
    line.nats.kill9();
    line.gateway.wait_for_recorder("spooling").await;
    until_refused(&line.gateway).await;
    traffic.answers(200).await;
    // A full spool is no reason not to start.
    line.gateway.kill9();
    line.gateway.restart().await;
    until_refused(&line.gateway).await;
    traffic.answers(200).await;
    line.nats.restart().await;
    line.gateway.wait_for_recorder("streaming").await;
    traffic.answers(200).await;
    let asked = settle(line, traffic).await;
    let refused = asked.answered().filter(|(_, answer)| unrecordable(answer));
    assert!(refused.count() > 50, "the spool was hardly ever full");
}

/// Waits until the gateway, since its start, had to refuse an import as neither NATS nor the spool took its event.
async fn until_refused(gateway: &Service) {
    eventually("the spool is full", SOON, async || {
        let refused = gateway.events_by("unrecordable").await?;
        anyhow::ensure!(refused > 0.0, "there is room");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_killed_and_restarted() {
    let _turn = alone().await;
    let mut line = Line::with(quiet()).await;
    let traffic = traffic(&line);
    for round in 0..3 {
        traffic.answers(250).await;
        line.nats.kill9();
        line.gateway.kill9();
        line.decider.kill9();
        // In every order: who comes first must not need the others.
        match round {
            0 => {
                line.gateway.restart().await;
                traffic.answers(250).await;
                line.decider.restart().await;
                traffic.answers(100).await;
                line.nats.restart().await;
            }
            1 => {
                line.nats.restart().await;
                line.gateway.restart().await;
                traffic.answers(250).await;
                line.decider.restart().await;
            }
            _ => {
                line.decider.restart().await;
                line.nats.restart().await;
                line.gateway.restart().await;
            }
        }
    }
    traffic.answers(400).await;
    settle(line, traffic).await;
}
