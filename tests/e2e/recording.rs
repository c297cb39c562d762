//! One event per verdict, with the caller's operationID everywhere.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use importguard_core::Dialect;
use importguard_tests::{Line, SOON, Settings, Spool, TraceParent, load, wait_for_count};

use crate::asserts;

#[tokio::test]
async fn a_thousand_requests_are_a_thousand_verdicts_and_a_thousand_events() {
    const REQUESTS: usize = 1_000;
    let mut line = Line::start().await;
    let callers = [line.server(), line.documented()];
    let trace = |number: usize| TraceParent::numbered(number as u64 + 1);
    let operation_id = |number: usize| format!("op-{number:04}");

    let answers = load(REQUESTS, 32, async |number| {
        let caller = &callers[number % 2];
        let call = caller
            .before_import(&operation_id(number), "user123", &["user456", "bot_7"])
            .header("traceparent", trace(number).to_string());
        (caller.dialect(), caller.send(call).await)
    })
    .await;
    for (dialect, answer) in &answers {
        assert_eq!(answer.status, 200);
        let reading = asserts::reading(*dialect, answer);
        let expected = importguard_tests::Reading::Imports {
            instead: Some(vec!["user456".to_owned()]),
        };
        assert_eq!(reading, expected);
    }

    wait_for_count(&line.nats, REQUESTS).await;
    // After its end the gateway can't store one more.
    let status = line.gateway.terminate(SOON).await;
    assert!(status.success(), "{status}");
    let events = wait_for_count(&line.nats, REQUESTS).await;
    assert_eq!(events.len(), REQUESTS);

    let ids: HashSet<_> = events.iter().map(|event| event.id()).collect();
    assert_eq!(ids.len(), REQUESTS);
    let by_operation: HashMap<_, _> = events.iter().map(|e| (e.operation_id(), e)).collect();
    for number in 0..REQUESTS {
        let id = operation_id(number);
        let event = by_operation[id.as_str()];
        assert_eq!(event.header("operationID"), Some(id.as_str()));
        assert_eq!(event.trace().unwrap().trace_id, trace(number).trace_id);
        let payload = event.decision().traceparent.as_deref();
        assert_eq!(payload, event.header("traceparent"));
    }
}

#[tokio::test]
async fn an_operation_id_at_its_longest_reaches_payload_header_and_baggage() {
    let line = Line::start().await;
    // Every visible ASCII character, also those that baggage must escape.
    let printable: String = ('!'..='~').collect();
    let id: String = printable.chars().cycle().take(256).collect();
    let answer = line.server().import(&id, "a", &["b"]).await;
    asserts::allows(Dialect::Server, &answer);
    let events = wait_for_count(&line.nats, 1).await;
    assert_eq!(events[0].operation_id(), id);
    assert_eq!(events[0].header("operationID"), Some(id.as_str()));
    let baggage = events[0].header("baggage").expect("a header baggage");
    let members = baggage
        .split(',')
        .filter_map(|member| member.split_once('='));
    let mut values = members.map(|(_, value)| percent_decoded(value));
    assert!(values.any(|value| value == id), "{baggage}");
}

#[tokio::test]
async fn the_stream_is_created_from_the_settings_and_an_existing_one_is_unchanged() {
    let settings = Settings::new().set("IMPORTGUARD_STREAM_MAX_BYTES", "2500000");
    let line = Line::with(settings).await;
    line.server().import("op", "a", &["b"]).await;
    wait_for_count(&line.nats, 1).await;
    let jetstream = async_nats::jetstream::new(line.nats.client().await);
    let mut stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let made = stream.info().await.unwrap().config.clone();
    assert_eq!(made.max_bytes, 2_500_000);
    assert_eq!(
        made.storage,
        async_nats::jetstream::stream::StorageType::File
    );
    assert!(
        made.duplicate_window >= Duration::from_secs(120),
        "{:?}",
        made.duplicate_window
    );

    let operators = async_nats::jetstream::stream::Config {
        max_bytes: 2_000_000,
        ..made
    };
    jetstream.update_stream(operators).await.unwrap();
    let settings = Settings::new()
        .set("IMPORTGUARD_STREAM_MAX_BYTES", "3000000")
        .decider(&line.decider)
        .nats(&line.nats);
    let second = importguard_tests::Service::gateway(settings).await;
    second.wait_for_recorder("streaming").await;
    importguard_tests::OpenIm::server(second.url())
        .import("op-2", "a", &["b"])
        .await;
    wait_for_count(&line.nats, 2).await;
    second.settles().await;
    assert_eq!(stream.info().await.unwrap().config.max_bytes, 2_000_000);
    assert_eq!(Spool::of(&second).operation_ids(), Vec::<String>::new());
}

fn percent_decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        decoded.push(u8::from_str_radix(code, 16).unwrap().into());
        decoded.push_str(rest);
    }
    decoded
}
