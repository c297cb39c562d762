//! Which spans are exported, and where to: samplers, the OTLP exporter and the variables that configure them.

use std::{collections::BTreeMap, time::Instant};

use importguard_tests::{
    Binary, Line, OpenIm, OtlpReceiver, SOON, Service, Settings, Span, TraceParent, free_port,
    load, wait_for_count,
};

#[tokio::test]
async fn processes_of_one_service_can_be_told_apart() {
    let receiver = OtlpReceiver::start().await;
    let named = Settings::new()
        .traces_to(&receiver)
        .set("IMPORTGUARD_INSTANCE", "gateway-7")
        .set("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb");
    let mut instances = BTreeMap::new();
    for (id, settings) in [
        ("op-named", named),
        ("op-one", Settings::new().traces_to(&receiver)),
        ("op-two", Settings::new().traces_to(&receiver)),
    ] {
        let gateway = Service::gateway(settings).await;
        OpenIm::server(gateway.url()).import(id, "a", &["b"]).await;
        let resource = receiver.callback(id).await.resource;
        instances.insert(resource["service.instance.id"].clone(), resource);
    }
    assert_eq!(instances.len(), 3, "{instances:#?}");
    assert_eq!(instances["gateway-7"]["team"], "a,b");
}

#[tokio::test]
async fn spans_are_exported_over_http_and_compressed_if_so_configured() {
    let receiver = OtlpReceiver::start().await;
    for (protocol, compression) in [
        ("http/protobuf", "none"),
        ("http/protobuf", "gzip"),
        ("grpc", "gzip"),
    ] {
        let settings = Settings::new()
            .traces_to(&receiver)
            .set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .set("OTEL_EXPORTER_OTLP_COMPRESSION", compression);
        let gateway = Service::gateway(settings).await;
        let id = format!("op-{}-{compression}", protocol.len());
        OpenIm::server(gateway.url()).import(&id, "a", &["b"]).await;
        receiver.callback(&id).await;
    }
}

#[tokio::test]
async fn a_switched_off_sdk_sends_nothing_and_hands_the_trace_on() {
    let receiver = OtlpReceiver::start().await;
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let line = Line::with(Settings::new().traces_to(&receiver).set(off.0, off.1)).await;
        let parent = TraceParent::numbered(11);
        let server = line.server();
        let call = server.before_import("op-off", "a", &["b"]);
        server
            .send(call.header("traceparent", parent.to_string()))
            .await;
        let event = &wait_for_count(&line.nats, 1).await[0];
        assert_eq!(event.trace().unwrap().trace_id, parent.trace_id);
        // What was to be sent is sent by the time that it has ended.
        let mut gateway = line.gateway;
        assert!(gateway.terminate(SOON).await.success());
        assert_eq!(receiver.all().len(), 0, "{off:?}");
    }
}

#[tokio::test]
async fn an_unsupported_variable_of_opentelemetry_ends_a_process_with_the_remedy() {
    for (binary, name, value, remedy) in [
        (
            Binary::Gateway,
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "grpc, http/protobuf",
        ),
        (
            Binary::Decider,
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4317",
            "http://",
        ),
        (
            Binary::Gateway,
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization: Bearer x",
            "name=value",
        ),
    ] {
        let mut process = Service::spawn(binary, Settings::new().set(name, value));
        assert_eq!(process.exit(SOON).await.code(), Some(1));
        let said = process.stderr();
        assert!(said.contains(name) && said.contains(remedy), "{said}");
    }
}

#[tokio::test]
async fn spans_that_cannot_be_exported_are_logged_once_and_counted() {
    let port = free_port();
    let settings = Settings::new()
        .set(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{port}"),
        )
        .set("OTEL_BSP_SCHEDULE_DELAY", "100");
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let mut lost = 0.0;
    for _ in 0..3 {
        let answer = server.import("op", "user123", &["user456"]).await;
        assert_eq!(answer.status, 200);
        lost = gateway
            .wait_for_metric("importguard_spans_lost_total", |now| now > lost)
            .await;
    }
    let said = gateway.wait_for_log(&["spans are lost"]).await;
    assert_eq!(said.matches("spans are lost").count(), 1, "{said}");
    assert!(!said.contains("ExportError"), "{said}");

    let receiver = OtlpReceiver::on(port).await;
    server.import("op-taken", "user123", &["user456"]).await;
    receiver.callback("op-taken").await;
    gateway
        .wait_for_log(&["the OTLP endpoint accepts spans again"])
        .await;
}

/// A gateway without deciders whose sampler samples nothing of its own.
async fn hardly_sampling(receiver: &OtlpReceiver, slow: &str) -> Service {
    let settings = Settings::new()
        .traces_to(receiver)
        .set("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .set("IMPORTGUARD_TRACE_SLOW", slow)
        .set("IMPORTGUARD_ON_DECIDER_UNAVAILABLE", "allow");
    Service::gateway(settings).await
}

/// Has a request sampled by its caller; everything before it has then arrived, if it was sent.
async fn send_sampled(gateway: &Service, receiver: &OtlpReceiver) {
    let parent = TraceParent::numbered(6);
    let server = OpenIm::server(gateway.url());
    let last = server
        .after_import("op-last", "user123", &["user456"])
        .header("traceparent", parent.to_string());
    server.send(last).await;
    let enough = |spans: &[Span]| spans.len() == 2;
    receiver.wait_for(&parent.trace_id, SOON, enough).await;
}

fn names_for(receiver: &OtlpReceiver, operation_id: &str) -> Vec<String> {
    let spans = receiver.all().into_iter();
    let spans = spans.filter(|span| {
        let id = span.attributes.get("openim.operation_id");
        id.is_some_and(|id| id == operation_id)
    });
    let mut names: Vec<_> = spans.map(|span| span.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_failed_or_was_rejected_is_not_lost_to_sampling() {
    let receiver = OtlpReceiver::start().await;
    let gateway = hardly_sampling(&receiver, "1m").await;
    let server = OpenIm::server(gateway.url());
    server.import("op-failed", "user123", &["user456"]).await;
    server
        .send(server.with_body("op-rejected", "no JSON"))
        .await;
    let report = server.after_import("op-report", "user123", &["user456"]);
    server.send(report.body("no JSON")).await;
    let well = server.after_import("op-well", "user123", &["user456"]);
    server.send(well).await;
    let mut parent = TraceParent::numbered(7);
    parent.sampled = false;
    let unwanted = server
        .before_import("op-unwanted", "user123", &["user456"])
        .header("traceparent", parent.to_string());
    server.send(unwanted).await;
    send_sampled(&gateway, &receiver).await;
    assert_eq!(
        names_for(&receiver, "op-failed"),
        ["POST callbackBeforeImportFriendsCommand"]
    );
    assert_eq!(
        names_for(&receiver, "op-rejected"),
        ["POST callbackBeforeImportFriendsCommand"]
    );
    // It was answered with success.
    assert_eq!(
        names_for(&receiver, "op-report"),
        ["POST callbackAfterImportFriendsCommand"]
    );
    for dropped in ["op-well", "op-unwanted"] {
        assert!(names_for(&receiver, dropped).is_empty(), "{dropped}");
    }
}

#[tokio::test]
async fn a_flood_of_rejections_exports_few_spans() {
    const FLOOD: usize = 1_000;
    const UNSAMPLED_PER_SECOND: usize = 100;
    let receiver = OtlpReceiver::start().await;
    let gateway = hardly_sampling(&receiver, "1m").await;
    let server = OpenIm::server(gateway.url());
    let began = Instant::now();
    load(FLOOD, 32, async |number| {
        let rejected = server.with_body(&format!("op-{number}"), "no JSON");
        server.send(rejected).await;
    })
    .await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    send_sampled(&gateway, &receiver).await;
    let spans = receiver.all().len();
    assert!(spans > 2, "none was exported");
    assert!(spans <= UNSAMPLED_PER_SECOND * seconds + 2, "{spans}");
}

#[tokio::test]
async fn what_is_slow_is_not_lost_to_sampling() {
    let receiver = OtlpReceiver::start().await;
    let gateway = hardly_sampling(&receiver, "1ns").await;
    let server = OpenIm::server(gateway.url());
    let slow = server.after_import("op-slow", "user123", &["user456"]);
    server.send(slow).await;
    send_sampled(&gateway, &receiver).await;
    assert_eq!(
        names_for(&receiver, "op-slow"),
        ["POST callbackAfterImportFriendsCommand"]
    );
}

#[tokio::test]
async fn the_sampler_decides_alone_if_so_configured() {
    let receiver = OtlpReceiver::start().await;
    let gateway = hardly_sampling(&receiver, "never").await;
    let server = OpenIm::server(gateway.url());
    server.import("op-failed", "user123", &["user456"]).await;
    send_sampled(&gateway, &receiver).await;
    assert!(names_for(&receiver, "op-failed").is_empty());
}
