//! Without NATS, every decision is on disk before its answer is sent, and is published once NATS is available.

use std::fs;

use importguard_core::{Cause, DecidedBy, Dialect};
use importguard_tests::{
    Client, Line, NatsServer, OpenIm, OtlpReceiver, SOON, Service, Settings, Span, Spool, Strace,
    eventually, load, wait_for_count,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tempfile::TempDir;

use crate::asserts;

/// `count` requests one after the other; after each answer its event must be in the spool.
async fn spool_in_order(line: &Line, name: &str, count: usize) -> Vec<String> {
    let server = line.server();
    let spool = Spool::of(&line.gateway);
    let mut sent = Vec::new();
    for number in 0..count {
        let id = format!("{name}-{number}");
        let answer = server.import(&id, "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 0);
        let spooled = spool.operation_ids();
        assert_eq!(spooled.last(), Some(&id), "answered, and not in the spool");
        sent.push(id);
    }
    sent
}

async fn drained(gateway: &Service) {
    let spool = Spool::of(gateway);
    eventually("the spool is empty", SOON, async || {
        let left = spool.operation_ids();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are left", left.len()))
        }
    })
    .await;
}

/// How often the gateway had its disk confirm what it wrote while it answered `count` requests one after the other; nothing where
/// strace is missing or may not look.
async fn syncs(sync: &str, count: usize) -> Option<usize> {
    let line = Line::without_nats(Settings::new().set("IMPORTGUARD_SPOOL_SYNC", sync)).await;
    spool_in_order(&line, "before", 1).await;
    let dir = TempDir::new().unwrap();
    let calls = dir.path().join("calls");
    let traced = ["-e", "trace=fsync,fdatasync"];
    let strace =
        Strace::attach(&line.gateway, &traced, &calls, "how often the spool syncs").await?;
    spool_in_order(&line, "op", count).await;
    strace.detach().await;
    let calls = fs::read_to_string(calls).unwrap();
    Some(calls.lines().filter(|line| line.contains("sync(")).count())
}

#[tokio::test]
async fn what_is_answered_is_confirmed_by_the_disk_unless_the_operator_relaxes_that() {
    const COUNT: usize = 20;
    if let Some(full) = syncs("full", COUNT).await {
        assert!(full >= COUNT, "{full} syncs for {COUNT} answers");
    }
    if let Some(normal) = syncs("normal", COUNT).await {
        assert!(normal < COUNT, "{normal} syncs for {COUNT} answers");
    }
}

#[tokio::test]
async fn decisions_are_spooled_before_their_answers_and_drained_in_order() {
    let mut line = Line::without_nats(Settings::new()).await;
    let sent = spool_in_order(&line, "op", 50).await;
    assert_eq!(Spool::of(&line.gateway).operation_ids(), sent);

    line.nats.restart().await;
    let events = wait_for_count(&line.nats, sent.len()).await;
    let stored: Vec<_> = events.iter().map(|e| e.operation_id().to_owned()).collect();
    assert_eq!(stored, sent);
    drained(&line.gateway).await;

    let answer = line.server().import("after", "a", &["b"]).await;
    assert_eq!(asserts::code(&answer), 0);
    let events = wait_for_count(&line.nats, sent.len() + 1).await;
    assert_eq!(events.len(), sent.len() + 1);
    assert_eq!(events[sent.len()].operation_id(), "after");
}

#[tokio::test]
async fn a_gateway_killed_with_a_full_spool_loses_nothing() {
    const REQUESTS: usize = 200;
    let mut line = Line::without_nats(Settings::new()).await;
    let server = line.server();
    load(REQUESTS, 16, async |number| {
        let answer = server.import(&format!("op-{number}"), "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 0);
    })
    .await;
    line.gateway.kill9();
    let spooled = Spool::of(&line.gateway).operation_ids();
    assert_eq!(spooled.len(), REQUESTS);

    line.nats.restart().await;
    line.gateway.restart().await;
    let events = wait_for_count(&line.nats, REQUESTS).await;
    let stored: Vec<_> = events.iter().map(|e| e.operation_id().to_owned()).collect();
    assert_eq!(stored, spooled);
    drained(&line.gateway).await;
}

#[tokio::test]
async fn a_gateway_killed_under_load_has_recorded_what_it_answered() {
    let mut line = Line::without_nats(Settings::new()).await;
    let server = line.server();
    let client = Client::default();
    let calls = load(2_000, 16, async |number| {
        let id = format!("op-{number}");
        let call = server.before_import(&id, "a", &["b"]);
        client.try_send(call).await.ok().map(|_| id)
    });
    let spool = Spool::of(&line.gateway);
    let (answered, ()) = tokio::join!(calls, async {
        eventually("the load runs", SOON, async || {
            match spool.operation_ids().len() {
                100.. => Ok(()),
                few => Err(few),
            }
        })
        .await;
        line.gateway.kill9();
    });
    let answered: Vec<String> = answered.into_iter().flatten().collect();
    assert!(
        (1..2_000).contains(&answered.len()),
        "{} answered",
        answered.len()
    );
    let spooled = spool.operation_ids();
    for id in &answered {
        assert!(spooled.contains(id), "{id} was answered and is lost");
    }
}

fn many_friends() -> Vec<String> {
    let numbers = 0..2_000;
    numbers
        .map(|n| format!("a_friend_with_a_long_name_{n}"))
        .collect()
}

/// A gateway whose spool takes some 2 MiB, and the requests that fill it: the codes of their answers, until `last`
/// comes or a hundred have been sent.
async fn fill(settings: Settings, last: i32) -> (Line, Vec<i32>) {
    let settings = settings
        .set("IMPORTGUARD_SPOOL_MAX_BYTES", (2 << 20).to_string())
        // Two thousand friends take a busy machine its time, and a fallback is not what is asked for here.
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "10s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "20s");
    let line = Line::without_nats(settings).await;
    let friends = many_friends();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let server = line.server();
    let mut codes = Vec::new();
    while codes.len() < 100 && codes.last() != Some(&last) {
        let id = format!("op-{}", codes.len());
        codes.push(asserts::code(&server.import(&id, "a", &friends).await));
    }
    (line, codes)
}

#[tokio::test]
async fn a_decision_that_finds_no_room_is_refused_with_5914_until_there_is_room() {
    let (mut line, codes) = fill(Settings::new(), 5914).await;
    assert_eq!(codes.last(), Some(&5914));
    let friends = many_friends();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let answer = line.server().import("op-refused", "a", &friends).await;
    assert_eq!(asserts::code(&answer), 5914);
    for told in [
        "decision cannot be recorded",
        "The decision could not be recorded, so the import was refused; try again later",
    ] {
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    let recorded = codes.len() - 1;
    assert!(recorded > 5, "{codes:?}");
    assert!(codes[..recorded].iter().all(|code| *code == 0), "{codes:?}");
    assert_eq!(Spool::of(&line.gateway).operation_ids().len(), recorded);

    line.nats.restart().await;
    wait_for_count(&line.nats, recorded).await;
    drained(&line.gateway).await;
    let counted = format!(
        "published {recorded} events from the spool, which is empty now: streaming to NATS"
    );
    line.gateway.wait_for_log(&[&counted]).await;
    let answer = line.server().import("after", "a", &["b"]).await;
    assert_eq!(asserts::code(&answer), 0);
    let events = wait_for_count(&line.nats, recorded + 1).await;
    assert_eq!(events.last().unwrap().operation_id(), "after");
}

#[tokio::test]
async fn or_answered_without_an_event_if_so_configured() {
    let receiver = OtlpReceiver::start().await;
    let settings = Settings::new()
        .set("IMPORTGUARD_ON_UNRECORDABLE", "allow")
        .traces_to(&receiver);
    let (line, codes) = fill(settings, 5914).await;
    assert_eq!(codes, [0; 100]);
    let recorded = Spool::of(&line.gateway).operation_ids().len();
    assert!((5..100).contains(&recorded), "{recorded} are recorded");

    let unrecorded = receiver.callback("op-99").await;
    assert_eq!(unrecorded.attributes["importguard.verdict"], "allow");
    is_unrecordable(&unrecorded);
    let children = |spans: &[Span]| spans.len() == 4;
    let trace = receiver
        .wait_for(&unrecorded.trace_id, SOON, children)
        .await;
    let publishes = trace.iter().find(|span| span.kind == SpanKind::Producer);
    let publishes = publishes.unwrap();
    assert_eq!(publishes.attributes["error.type"], "unrecordable");
    assert!(publishes.error.is_some(), "{publishes:#?}");
    eventually("its line is written", SOON, async || {
        let said = line.gateway.stderr();
        let told = |line: &str| line.contains("ERROR") && line.contains("operationID=op-99 ");
        let told = said.lines().find(|line| told(line)).map(str::to_owned);
        let told = told.ok_or(said)?;
        assert!(
            told.contains("without an event") && !told.contains("fallback="),
            "{told}"
        );
        Ok::<_, String>(())
    })
    .await;
}

/// Whether a callback's span tells that its event is nowhere.
#[track_caller]
fn is_unrecordable(callback: &Span) {
    for name in ["importguard.cause", "error.type"] {
        assert_eq!(callback.attributes[name], "unrecordable", "{callback:#?}");
    }
    assert!(callback.error.is_some(), "{callback:#?}");
}

#[tokio::test]
async fn an_unrecordable_report_passes_and_is_logged_whatever_is_configured() {
    for on_unrecordable in ["refuse", "allow"] {
        let receiver = OtlpReceiver::start().await;
        let settings = Settings::new()
            .set("IMPORTGUARD_ON_UNRECORDABLE", on_unrecordable)
            // What failed is sent in spite of it.
            .set("OTEL_TRACES_SAMPLER", "always_off")
            .traces_to(&receiver);
        let (line, _) = fill(settings, 5914).await;
        let server = line.server();
        let friends = many_friends();
        let friends: Vec<_> = friends.iter().map(String::as_str).collect();
        let unrecordable = || line.gateway.events_by("unrecordable");
        let before = unrecordable().await.unwrap();
        // Some may still fit, as they are smaller than decisions.
        for number in 0.. {
            assert!(number < 10, "the spool takes everything");
            let id = format!("op-report-{number}");
            let answer = server.send(server.after_import(&id, "a", &friends)).await;
            if unrecordable().await.unwrap() > before {
                asserts::allows(Dialect::Server, &answer);
                is_unrecordable(&receiver.callback(&id).await);
                break;
            }
        }
    }
}

#[tokio::test]
async fn fallbacks_are_spooled_too() {
    let mut nats = NatsServer::not_started();
    let mut gateway = Service::gateway(Settings::new().nats(&nats)).await;
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(asserts::code(&answer), 5910);
    assert_eq!(Spool::of(&gateway).operation_ids(), ["op"]);

    gateway.kill9();
    nats.restart().await;
    gateway.restart().await;
    let events = wait_for_count(&nats, 1).await;
    let data = &events[0].decision().data;
    assert_eq!(data.decided_by, DecidedBy::Fallback);
    assert_eq!(data.cause, Some(Cause::DeciderUnavailable));
}
