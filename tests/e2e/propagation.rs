//! What a caller's trace headers cause at the next hops.

use importguard_core::Dialect;
use importguard_tests::{Line, OpenIm, Service, Settings, TraceParent, wait_for_count};

use crate::asserts;

#[tokio::test]
async fn a_trace_state_of_any_size_gets_the_policys_verdict() {
    let decider = Service::decider(Settings::new()).await;
    let gateway = Service::gateway(Settings::new().decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    let mut parent = TraceParent::numbered(4);
    parent.sampled = false;
    // Of the last, a decider would take no headers that hold them all.
    for count in [1, 5, 100] {
        let member = |number: usize| format!("vendor{number}={}", "x".repeat(100));
        let members: Vec<_> = (0..count).map(member).collect();
        let call = server
            .before_import("op-state", "a", &["b"])
            .header("traceparent", parent.to_string())
            .header("tracestate", members.join(","));
        asserts::allows(Dialect::Server, &server.send(call).await);
    }
}

#[tokio::test]
async fn a_trace_state_reaches_the_message_and_the_event() {
    let line = Line::start().await;
    let server = line.server();
    for (id, spooled) in [("op-streamed", false), ("op-spooled", true)] {
        if spooled {
            line.nats.freeze().await;
        }
        let call = server
            .before_import(id, "a", &["b"])
            .header("traceparent", TraceParent::numbered(5).to_string())
            .header("tracestate", "one=1,two=2, three=3");
        server.send(call).await;
    }
    line.nats.thaw();
    for event in wait_for_count(&line.nats, 2).await {
        assert_eq!(event.header("tracestate"), Some("one=1,two=2,three=3"));
        let envelope = event.decision();
        assert_eq!(envelope.tracestate.as_deref(), Some("one=1,two=2,three=3"));
    }
}

#[tokio::test]
async fn a_random_flag_is_kept_and_a_malformed_parent_begins_a_new_trace() {
    let line = Line::start().await;
    let server = line.server();
    let trace = TraceParent::numbered(6).trace_id;
    for (id, parent) in [
        ("op-random", format!("00-{trace}-b7ad6b7169203331-03")),
        ("op-long", format!("00-{trace}-b7ad6b7169203331-01-more")),
    ] {
        let call = server.before_import(id, "a", &["b"]);
        server.send(call.header("traceparent", parent)).await;
    }
    for event in wait_for_count(&line.nats, 2).await {
        let parent = event.header("traceparent").unwrap();
        match event.header("operationID") {
            Some("op-random") => {
                assert!(
                    parent.starts_with(&format!("00-{trace}-")) && parent.ends_with("-03"),
                    "{parent}"
                );
            }
            _ => assert!(!parent.contains(&trace), "{parent}"),
        }
    }
}

#[tokio::test]
async fn baggage_of_strangers_goes_no_further() {
    let line = Line::start().await;
    let server = line.server();
    let call = server.before_import("op", "a", &["b"]).header(
        "baggage",
        "secret=1,openim.operation_id=forged,operationID=forged",
    );
    server.send(call).await;
    let events = wait_for_count(&line.nats, 1).await;
    let baggage = events[0].header("baggage").unwrap_or_default();
    assert!(
        !baggage.contains("secret") && !baggage.contains("forged"),
        "{baggage}"
    );
}
