//! One trace from OpenIM's callback to the event, and one operationID on everything along it.

use std::time::Duration;

use importguard_tests::{
    Line, OtlpReceiver, Settings, Span, TraceParent, eventually, wait_for_count,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

const SOON: Duration = Duration::from_secs(20);

fn is_whole(spans: &[Span]) -> bool {
    [SpanKind::Server, SpanKind::Client, SpanKind::Producer]
        .iter()
        .all(|kind| spans.iter().any(|span| span.kind == *kind))
        && spans
            .iter()
            .filter(|span| span.kind == SpanKind::Server)
            .count()
            == 2
}

#[tokio::test]
async fn a_callback_is_one_trace_over_both_services_up_to_the_message() {
    let receiver = OtlpReceiver::start().await;
    let line = Line::with(Settings::new().traces_to(&receiver)).await;
    let server = line.server();
    // Streaming, so that the event is published within the request.
    eventually("events stream", SOON, async || {
        let readiness = line.gateway.admin("/readyz").await?;
        anyhow::ensure!(readiness.contains("streaming"), "{readiness}");
        Ok(())
    })
    .await;

    let parent = TraceParent::numbered(1);
    let call = server
        .before_import("1646445464564", "user123", &["user456"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    let spans = receiver.wait_for(&parent.trace_id, SOON, is_whole).await;

    let only = |service: &str, kind: SpanKind| -> Span {
        let mut found = spans
            .iter()
            .filter(|s| s.service == service && s.kind == kind);
        let span = found
            .next()
            .unwrap_or_else(|| panic!("no {kind:?} of {service}: {spans:#?}"));
        assert!(
            found.next().is_none(),
            "several {kind:?} of {service}: {spans:#?}"
        );
        span.clone()
    };
    let called = only("importguard-gateway", SpanKind::Server);
    let asks = only("importguard-gateway", SpanKind::Client);
    let decides = only("importguard-decider", SpanKind::Server);
    let publishes = only("importguard-gateway", SpanKind::Producer);

    let descends = |span: &Span, from: &Span| {
        let mut id = span.parent_id.clone();
        while id != from.span_id {
            let Some(parent) = spans.iter().find(|s| s.span_id == id) else {
                return false;
            };
            id = parent.parent_id.clone();
        }
        true
    };
    assert_eq!(called.parent_id, parent.span_id);
    assert!(descends(&asks, &called), "{spans:#?}");
    assert_eq!(decides.parent_id, asks.span_id);
    assert!(descends(&publishes, &called), "{spans:#?}");
    for span in &spans {
        let id = span.attributes.get("openim.operation_id");
        assert_eq!(id.map(String::as_str), Some("1646445464564"), "{span:#?}");
    }

    let events = wait_for_count(&line.nats, 1).await;
    let message = events[0].trace().expect("a traceparent on the message");
    assert_eq!(message.trace_id, parent.trace_id);
    assert_eq!(message.span_id, publishes.span_id);
    assert!(message.sampled);
    assert_eq!(events[0].header("operationID"), Some("1646445464564"));
}

#[tokio::test]
async fn a_callback_without_a_trace_begins_one() {
    let receiver = OtlpReceiver::start().await;
    let line = Line::with(Settings::new().traces_to(&receiver)).await;
    line.server().import("op", "a", &["b"]).await;
    let events = wait_for_count(&line.nats, 1).await;
    let trace = events[0].trace().expect("a traceparent on the message");
    let spans = receiver.wait_for(&trace.trace_id, SOON, is_whole).await;
    let roots = spans
        .iter()
        .filter(|span| span.parent_id.is_empty())
        .count();
    assert_eq!(roots, 1, "{spans:#?}");
}

#[tokio::test]
async fn a_decision_made_without_nats_keeps_its_trace_when_it_gets_there() {
    let receiver = OtlpReceiver::start().await;
    let mut line = Line::without_nats(Settings::new().traces_to(&receiver)).await;
    let server = line.server();
    let parent = TraceParent::numbered(2);
    let call = server
        .before_import("op-spooled", "a", &["b"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    line.nats.restart().await;
    let events = wait_for_count(&line.nats, 1).await;
    assert_eq!(events[0].trace().unwrap().trace_id, parent.trace_id);
    assert_eq!(events[0].header("operationID"), Some("op-spooled"));
}

#[tokio::test]
async fn headers_flow_whatever_is_logged_or_sampled() {
    let settings = Settings::new().set("RUST_LOG", "warn");
    let line = Line::with(settings).await;
    let server = line.server();
    let mut parent = TraceParent::numbered(3);
    parent.sampled = false;
    let call = server
        .before_import("op-quiet", "a", &["b"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    let events = wait_for_count(&line.nats, 1).await;
    let trace = events[0].trace().expect("a traceparent on the message");
    assert_eq!(trace.trace_id, parent.trace_id);
    assert!(!trace.sampled);
    assert_eq!(events[0].header("operationID"), Some("op-quiet"));
    assert!(
        events[0]
            .header("baggage")
            .is_some_and(|b| b.contains("op-quiet"))
    );
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

#[tokio::test]
async fn log_lines_of_both_processes_carry_the_operation_id_and_the_trace() {
    let settings = Settings::new().set("IMPORTGUARD_LOG_FORMAT", "json").set(
        "RUST_LOG",
        "info,importguard_gateway=debug,importguard_decider=debug",
    );
    let line = Line::with(settings).await;
    let server = line.server();
    let parent = TraceParent::numbered(4);
    let call = server
        .before_import("op-logged", "user123", &["bot_7"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    for process in [&line.gateway, &line.decider] {
        eventually("a line with the operationID", SOON, async || {
            let output = process.stderr();
            let found = output.lines().any(|text| {
                let line: serde_json::Value = serde_json::from_str(text)
                    .unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
                line["operationID"] == "op-logged" && line["trace_id"] == parent.trace_id.as_str()
            });
            if found { Ok(()) } else { Err(output) }
        })
        .await;
    }
}
