//! One trace from OpenIM's callback to the event, and one operationID on everything along it.

use std::collections::BTreeMap;

use importguard_proto::decider::{DecideRequest, decider_client::DeciderClient};
use importguard_tests::{
    Line, OpenIm, OtlpReceiver, PolicyDir, RawConnection, SOON, Service, Settings, Span,
    TraceParent, callback, eventually, wait_for_count,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpStream;

/// Every kind of rule: one that acts, one in shadow, one whose expression fails.
const POLICY: &str = r#"apiVersion: importguard/v1
name: traced
rules:
  - { id: bots, dropFriends: { prefixes: ["bot_"] } }
  - { id: small, limitFriends: { max: 1, onExceed: refuse }, mode: shadow, refusal: { code: 5104, message: "too many" } }
  - { id: broken, refuseIf: 'int(ownerUserID) > 1', onError: skip, refusal: { code: 5105, message: "never" } }
"#;

fn is_whole(spans: &[Span]) -> bool {
    spans.len() == 4
}

fn only<'a>(spans: &'a [Span], service: &str, kind: SpanKind) -> &'a Span {
    let mut found = spans
        .iter()
        .filter(|span| span.service == service && span.kind == kind);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        _ => panic!("not one {kind:?} of {service}: {spans:#?}"),
    }
}

/// Whether a span is called so and says this, all of this and, beside the operationID, nothing else.
#[track_caller]
fn says(span: &Span, name: &str, attributes: &[(&str, &str)]) {
    assert_eq!(span.name, name);
    let mut said = span.attributes.clone();
    assert_eq!(
        said.remove("openim.operation_id").as_deref(),
        Some("1646445464564")
    );
    let expected = attributes.iter();
    let expected = expected.map(|&(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(said, expected.collect::<BTreeMap<_, _>>());
    assert_eq!(span.error, None);
    // OpenTelemetry's conventions have these as integers: text would fall through a Collector's numeric filters.
    for name in ["http.response.status_code", "server.port"] {
        let set = span.attributes.contains_key(name);
        assert_eq!(span.integers.contains(name), set, "{name} of {span:#?}");
    }
    assert_eq!(span.scope_version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_callback_is_one_trace_over_both_services_up_to_the_message() {
    let receiver = OtlpReceiver::start().await;
    let policy = PolicyDir::new(POLICY, &[]);
    // So that the event is published within the request.
    let settings = Settings::new().with_long_ack_timeout();
    let settings = settings.policy(&policy).traces_to(&receiver);
    let line = Line::with(settings.set("IMPORTGUARD_BASE_PATH", "/a-secret")).await;
    let server = OpenIm::server(line.gateway.url() + "/a-secret");
    line.gateway.wait_for_recorder("streaming").await;

    let parent = TraceParent::numbered(1);
    let call = server
        .before_import("1646445464564", "user123", &["user456", "bot_7", "user789"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    let spans = receiver.wait_for(&parent.trace_id, SOON, is_whole).await;
    let event = &wait_for_count(&line.nats, 1).await[0];

    let called = only(&spans, "importguard-gateway", SpanKind::Server);
    assert_eq!(called.parent_id, parent.span_id);
    says(
        called,
        "POST callbackBeforeImportFriendsCommand",
        &[
            ("http.request.method", "POST"),
            ("http.route", "callbackBeforeImportFriendsCommand"),
            ("http.response.status_code", "200"),
            ("url.scheme", "http"),
            ("url.path", "/callbackBeforeImportFriendsCommand"),
            ("openim.dialect", "server"),
            ("importguard.verdict", "modify"),
        ],
    );

    let asks = only(&spans, "importguard-gateway", SpanKind::Client);
    assert_eq!(asks.parent_id, called.span_id);
    let decide = "importguard.decider.v1.Decider/Decide";
    let rpc = [
        ("rpc.system.name", "grpc"),
        ("rpc.method", decide),
        ("rpc.response.status_code", "OK"),
    ];
    let decider = line.decider.grpc_url();
    let (address, port) = decider
        .trim_start_matches("http://")
        .rsplit_once(':')
        .unwrap();
    let asked = [("server.address", address), ("server.port", port)];
    says(asks, decide, &[&rpc[..], &asked[..]].concat());

    let decides = only(&spans, "importguard-decider", SpanKind::Server);
    assert_eq!(decides.parent_id, asks.span_id);
    let policy = event.decision().data.policy.clone().unwrap();
    let decided = [
        ("importguard.verdict", "modify"),
        ("importguard.policy.name", "traced"),
        ("importguard.policy.digest", &policy.digest),
    ];
    says(decides, decide, &[&rpc[..], &decided[..]].concat());
    let rules = decides.events.iter().map(|(name, rule)| {
        assert_eq!(name, "importguard.rule");
        let part = |part| {
            let value = rule.get(&format!("importguard.rule.{part}"));
            value.map_or("", |value| &**value)
        };
        ["id", "mode", "outcome", "matched"].map(part)
    });
    assert_eq!(
        rules.collect::<Vec<_>>(),
        [
            ["bots", "enforce", "remove", "prefix"],
            ["small", "shadow", "refuse", "2 friends, at most 1"],
            ["broken", "enforce", "error", ""],
        ]
    );

    let publishes = only(&spans, "importguard-gateway", SpanKind::Producer);
    assert_eq!(publishes.parent_id, called.span_id);
    let nats = line.nats.address();
    let (nats_address, nats_port) = nats.rsplit_once(':').unwrap();
    says(
        publishes,
        "publish importguard.v1.decision.modify",
        &[
            ("messaging.system", "nats"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            (
                "messaging.destination.name",
                "importguard.v1.decision.modify",
            ),
            ("messaging.message.id", event.id()),
            ("server.address", nats_address),
            ("server.port", nats_port),
            ("importguard.recorded", "streamed"),
        ],
    );

    for (within, span) in [(called, asks), (asks, decides), (called, publishes)] {
        let (outer, inner) = (&within.time, &span.time);
        assert!(
            outer.contains(inner.start()) && outer.contains(inner.end()),
            "{span:#?} is not within {within:#?}"
        );
    }

    let message = event.trace().expect("a traceparent on the message");
    assert_eq!(message.trace_id, parent.trace_id);
    assert_eq!(message.span_id, publishes.span_id);
    assert!(message.sampled);
    assert_eq!(event.header("operationID"), Some("1646445464564"));
    let all = format!("{spans:?}");
    for secret in ["a-secret", "user123", "user456", "bot_7"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[tokio::test]
async fn an_unanswered_attempt_names_its_decider_and_its_status() {
    let receiver = OtlpReceiver::start().await;
    let decider = Service::decider(Settings::new()).await;
    let settings = Settings::new()
        .traces_to(&receiver)
        .decider(&decider)
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "300ms");
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    decider.freeze().await;
    let parent = TraceParent::numbered(12);
    let call = server.before_import("op-late", "a", &["b"]);
    server
        .send(call.header("traceparent", parent.to_string()))
        .await;
    let enough = |spans: &[Span]| spans.len() == 3;
    let spans = receiver.wait_for(&parent.trace_id, SOON, enough).await;
    decider.thaw();
    let asked = &only(&spans, "importguard-gateway", SpanKind::Client).attributes;
    assert_eq!(asked["rpc.response.status_code"], "DEADLINE_EXCEEDED");
    assert_eq!(asked["error.type"], "DEADLINE_EXCEEDED");
    assert!(
        decider.grpc_url().ends_with(&asked["server.port"]),
        "{asked:?}"
    );
}

#[tokio::test]
async fn each_decider_that_was_asked_has_a_span_in_the_trace() {
    let receiver = OtlpReceiver::start().await;
    let (silent, other) = (
        Service::decider(Settings::new()).await,
        Service::decider(Settings::new()).await,
    );
    let urls = format!("{},{}", silent.grpc_url(), other.grpc_url());
    let settings = Settings::new()
        .traces_to(&receiver)
        .set("IMPORTGUARD_DECIDER_URL", urls)
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1m")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "5s");
    let gateway = Service::gateway(settings).await;
    let usable = "importguard_deciders{state=\"usable\"}";
    gateway.wait_for_metric(usable, |found| found == 2.0).await;
    silent.freeze().await;
    let server = OpenIm::server(gateway.url());
    let mut retried = None;
    for number in 20..30 {
        let parent = TraceParent::numbered(number);
        let call = server.before_import("op-two", "a", &["b"]);
        server
            .send(call.header("traceparent", parent.to_string()))
            .await;
        let ended = |spans: &[Span]| spans.iter().any(|span| span.kind == SpanKind::Server);
        let spans = receiver.wait_for(&parent.trace_id, SOON, ended).await;
        let asked: Vec<_> = spans
            .into_iter()
            .filter(|span| span.kind == SpanKind::Client)
            .collect();
        if asked.len() == 2 {
            retried = Some(asked);
            break;
        }
    }
    silent.thaw();
    let asked = retried.expect("a call of the silent decider within ten calls");
    let status = |decider: &Service| {
        let span = asked.iter().find(|span| {
            decider
                .grpc_url()
                .ends_with(&span.attributes["server.port"])
        });
        span.map(|span| span.attributes["rpc.response.status_code"].clone())
    };
    assert_eq!(status(&silent).as_deref(), Some("CANCELLED"));
    assert_eq!(status(&other).as_deref(), Some("OK"));
}

#[tokio::test]
async fn a_fallback_is_an_error_with_its_cause() {
    let receiver = OtlpReceiver::start().await;
    let gateway = Service::gateway(Settings::new().traces_to(&receiver)).await;
    let server = OpenIm::server(gateway.url());
    let parent = TraceParent::numbered(5);
    let call = server
        .before_import("op", "user123", &["user456"])
        .header("traceparent", parent.to_string());
    server.send(call).await;
    let enough = |spans: &[Span]| spans.len() == 3;
    let spans = receiver.wait_for(&parent.trace_id, SOON, enough).await;
    let called = only(&spans, "importguard-gateway", SpanKind::Server);
    for name in ["importguard.cause", "error.type"] {
        assert_eq!(called.attributes[name], "deciderUnavailable");
    }
    assert!(called.error.is_some(), "{called:#?}");
    let asked = only(&spans, "importguard-gateway", SpanKind::Client);
    assert!(
        asked
            .error
            .as_ref()
            .is_some_and(|why| why.contains("refused")),
        "{asked:#?}"
    );
    let publishes = only(&spans, "importguard-gateway", SpanKind::Producer);
    assert_eq!(publishes.attributes["importguard.recorded"], "spooled");
    assert_eq!(publishes.error, None);
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_a_span_a_line_and_a_count() {
    let receiver = OtlpReceiver::start().await;
    let settings = Settings::new()
        .traces_to(&receiver)
        .set("IMPORTGUARD_ACK_TIMEOUT", "1m")
        .set("IMPORTGUARD_REQUEST_BUDGET", "2m");
    let line = Line::with(settings).await;
    for (sampled, id) in [(true, "op-sampled"), (false, "op-not-sampled")] {
        let mut parent = TraceParent::numbered(8);
        parent.sampled = sampled;
        line.gateway.settles().await;
        // The answer waits for the ack.
        line.nats.freeze().await;
        let stream = TcpStream::connect(line.gateway.http_address()).await;
        let stream = stream.unwrap();
        // Dropped so, the connection is reset: without that it would only have no more to say, and wait for its answer.
        stream.set_zero_linger().unwrap();
        let mut connection = RawConnection::over(stream);
        let traced = format!("Host: x\r\ntraceparent: {parent}");
        let request = callback(id).replacen("Host: x", &traced, 1);
        connection.send(request).await.unwrap();
        line.gateway
            .wait_for_metric("importguard_in_flight", |found| found == 1.0)
            .await;
        drop(connection);
        line.gateway
            .wait_for_metric("importguard_in_flight", |found| found == 0.0)
            .await;
        eventually("a line tells of it", SOON, async || {
            let said = line.gateway.stderr();
            let told = |line: &str| line.contains(id) && line.contains("abandoned");
            if said.lines().any(told) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
        line.nats.thaw();
    }
    let span = receiver.callback("op-sampled").await;
    assert_eq!(span.name, "POST callbackBeforeImportFriendsCommand");
    assert_eq!(span.attributes["error.type"], "abandoned");
    assert_eq!(
        span.attributes["http.route"],
        "callbackBeforeImportFriendsCommand"
    );
    assert!(span.error.is_some(), "{span:#?}");
    let abandoned = "importguard_callbacks_abandoned_total";
    assert_eq!(line.gateway.metric(abandoned).await.unwrap(), 2.0);
}

#[tokio::test]
async fn a_question_that_the_decider_cannot_read_is_no_error_of_the_deciders() {
    let receiver = OtlpReceiver::start().await;
    let decider = Service::decider(Settings::new().traces_to(&receiver)).await;
    let parent = TraceParent::numbered(9);
    let mut question = tonic::Request::new(DecideRequest::default());
    let value = parent.to_string().parse().unwrap();
    question.metadata_mut().insert("traceparent", value);
    let mut client = DeciderClient::connect(decider.grpc_url()).await.unwrap();
    let status = client.decide(question).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let enough = |spans: &[Span]| spans.len() == 1;
    let spans = receiver.wait_for(&parent.trace_id, SOON, enough).await;
    let attributes = &spans[0].attributes;
    assert_eq!(attributes["rpc.response.status_code"], "INVALID_ARGUMENT");
    assert!(!attributes.contains_key("error.type"), "{spans:#?}");
    assert_eq!(spans[0].error, None);
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
            // The last line may not be whole yet.
            let (whole, _) = output.rsplit_once('\n').unwrap_or_default();
            let found = whole.lines().any(|text| {
                let line: serde_json::Value = serde_json::from_str(text)
                    .unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
                line["operationID"] == "op-logged"
                    && line["trace_id"] == parent.trace_id.as_str()
                    && line["span_id"].as_str().is_some_and(|id| id.len() == 16)
            });
            if found { Ok(()) } else { Err(output) }
        })
        .await;
    }
}
