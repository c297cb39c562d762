//! The metrics of both processes, and their documentation.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
};

use http::Method;
use importguard_tests::{
    Backend, Binary, Call, Client, Detector, Line, MountedSecret, OpenIm, OtlpReceiver, Response,
    SOON, Service, Settings, TestCertificate, assert_each_series_is_once, tool, wait_for_count,
    workspace,
};

/// What Prometheus 3.5 sends by default.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

const TOKEN: &str = "a-token-that-is-long-enough-for-anybody";

/// The families of a scrape, by their HELP lines; each must have a TYPE and a help text that is a sentence.
fn families(scraped: &str) -> BTreeSet<String> {
    let families = scraped.lines().filter_map(|line| {
        let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
        assert!(
            help.ends_with('.'),
            "{name} has no sentence for a help text: {help}"
        );
        assert!(
            scraped.contains(&format!("# TYPE {name} ")),
            "{name} has no type"
        );
        Some(name.to_owned())
    });
    families.collect()
}

/// The families in the tables under "## Metrics": the first column, in backticks.
fn documented() -> BTreeSet<String> {
    let handbook = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let (_, metrics) = handbook.split_once("\n## Metrics\n").unwrap();
    let (metrics, _) = metrics.split_once("\n## ").unwrap();
    let cells = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let names = cells.flat_map(|cell| cell.split('`').map(str::to_owned).collect::<Vec<_>>());
    names
        .filter(|name| {
            name.contains('_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .collect()
}

#[track_caller]
fn has(scraped: &str, line: &str) {
    assert!(
        scraped.lines().any(|found| found.starts_with(line)),
        "no {line} in {scraped}"
    );
}

#[tokio::test]
async fn every_family_scraped_is_in_the_handbook_and_every_one_in_it_is_scraped() {
    let backend = Backend::start().await;
    let secret = MountedSecret::new(&[("tokens", TOKEN)]);
    let settings = Settings::new()
        .set(
            "IMPORTGUARD_UPSTREAM",
            format!("http://{}", backend.address()),
        )
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let line = Line::with(settings).await;
    let server = line.server();
    let token = format!("Bearer {TOKEN}");
    let decided = server.before_import("op", "user123", &["user456", "bot_7"]);
    server
        .send(decided.header("Authorization", token.clone()))
        .await;
    let rejected = server.before_import("op", "user123", &["user456"]);
    server.send(rejected).await;
    let elsewhere = line.gateway.url() + "/callbackBeforeAddFriendCommand";
    let elsewhere = Call::new(Method::POST, elsewhere).header("Authorization", token);
    Client::default().send(elsewhere).await;
    let certificate = TestCertificate::new();
    let files = MountedSecret::new(&certificate.files());
    let tls = Service::gateway(Settings::new().tls(&files)).await;
    let rules = "[{ id: a, refusals: 1, within: 1m, list: l, for: 1m }]";
    let detector = Detector::start(rules, Settings::new().nats(&line.nats)).await;
    line.server()
        .import("op", "blocked_owner", &["user456"])
        .await;
    detector
        .counts("importguard_detector_events_total", 1.0)
        .await;
    let mut scraped = families(&detector.admin("/metrics").await.unwrap());
    for process in [&line.gateway, &line.decider, &tls] {
        scraped.extend(families(&process.admin("/metrics").await.unwrap()));
    }
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    assert_eq!(
        &scraped - &documented,
        BTreeSet::new(),
        "not in the handbook"
    );
    assert_eq!(&documented - &scraped, BTreeSet::new(), "not scraped");
}

#[tokio::test]
async fn a_callback_is_counted_by_both_pods() {
    let line = Line::start().await;
    line.server()
        .import("op-counted", "user123", &["user456", "bot_7"])
        .await;
    wait_for_count(&line.nats, 1).await;
    // What comes last: it is counted when the answer is on its way.
    let answered = "importguard_callback_duration_seconds_count{route=\"callbackBeforeImportFriendsCommand\",status=\"200\"}";
    line.gateway
        .wait_for_metric(answered, |count| count == 1.0)
        .await;
    let gateway = line.gateway.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decisions_total{cause=\"\",verdict=\"modify\"} 1",
        "importguard_rules_fired_total{mode=\"enforce\",outcome=\"remove\",rule=\"blocked-friends\"} 1",
        "importguard_callback_duration_seconds_count{route=\"callbackBeforeImportFriendsCommand\",status=\"200\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"ok\"} 1",
        "importguard_policy_info{at=\"gateway\",content_digest=\"sha256:",
    ] {
        has(&gateway, counted);
    }
    let decider = line.decider.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decider_decisions_total{verdict=\"modify\"} 1",
        "importguard_decider_evaluation_seconds_count 1",
        "importguard_decider_request_duration_seconds_count{result=\"modify\"} 1",
        "importguard_decider_rule_duration_seconds_count{rule=\"blocked-friends\"} 1",
        "importguard_policy_info{at=\"decider\",content_digest=\"sha256:",
        "importguard_policy_reloads_total{result=\"ok\"} 1",
    ] {
        has(&decider, counted);
    }
    for scraped in [gateway, decider] {
        has(&scraped, "importguard_build_info{");
        for user in ["op-counted", "user123", "user456", "bot_7"] {
            assert!(!scraped.contains(user), "{user} in {scraped}");
        }
    }
}

#[tokio::test]
async fn a_fallback_is_counted_by_its_cause() {
    let gateway = Service::gateway(Settings::new()).await;
    let server = OpenIm::server(gateway.url());
    server.import("op", "user123", &["user456"]).await;
    let scraped = gateway.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decisions_total{cause=\"deciderUnavailable\",verdict=\"refuse\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"deciderUnavailable\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"ok\"} 0",
    ] {
        has(&scraped, counted);
    }
}

#[tokio::test]
async fn in_one_process_there_is_one_page_with_both() {
    let service = Service::all_in_one(Settings::new()).await;
    let scraped = service.admin("/metrics").await.unwrap();
    for name in [
        "importguard_decisions_total",
        "importguard_decider_decisions_total",
    ] {
        assert!(families(&scraped).contains(name), "no {name} in {scraped}");
    }
    has(&scraped, "importguard_policy_info{at=\"decider\"");
}

async fn scrape(service: &Service, accept: &str) -> Response {
    let url = format!("http://{}/metrics", service.admin_address());
    let call = Call::new(Method::GET, url).header("Accept", accept);
    let response = Client::default().send(call).await;
    assert_each_series_is_once(response.text());
    response
}

#[tokio::test]
async fn the_format_is_the_one_that_the_scraper_accepts() {
    let gateway = Service::gateway(Settings::new()).await;
    let open = scrape(&gateway, PROMETHEUS).await;
    assert_eq!(
        open.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    has(open.text(), "# TYPE importguard_decisions counter");
    assert!(open.text().ends_with("\n# EOF\n"));
    for accept in ["text/plain", "*/*", ""] {
        let plain = scrape(&gateway, accept).await;
        assert_eq!(
            plain.headers["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        has(plain.text(), "# TYPE importguard_decisions_total counter");
        assert!(!plain.text().contains("# EOF"));
    }
}

#[tokio::test]
async fn latency_buckets_link_to_the_trace_of_a_sampled_callback() {
    let receiver = OtlpReceiver::start().await;
    let settings = Settings::new().set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url());
    let line = Line::with(settings.with_long_ack_timeout()).await;
    line.gateway.wait_for_recorder("streaming").await;
    line.server()
        .import("op-traced", "user123", &["user456"])
        .await;
    let trace_id = receiver.callback("op-traced").await.trace_id;
    for (service, histograms) in [
        (
            &line.gateway,
            &[
                "importguard_callback_duration_seconds",
                "importguard_decider_call_duration_seconds",
                "importguard_recorder_ack_seconds",
            ][..],
        ),
        (
            &line.decider,
            &["importguard_decider_request_duration_seconds"][..],
        ),
    ] {
        let open = scrape(service, PROMETHEUS).await;
        let exemplar = format!(" # {{trace_id=\"{trace_id}\",span_id=\"");
        for histogram in histograms {
            let bucket = format!("{histogram}_bucket{{");
            let linked = |line: &str| line.starts_with(&bucket) && line.contains(&exemplar);
            assert!(
                open.text().lines().any(linked),
                "no bucket of {histogram} links to {trace_id} in {}",
                open.text()
            );
        }
        let plain = scrape(service, "text/plain").await;
        assert!(!plain.text().contains("trace_id"));
    }
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    let Some(promtool) = tool("promtool", "PROMTOOL", "check metrics") else {
        return;
    };
    let service = Service::all_in_one(Settings::new()).await;
    let server = OpenIm::server(service.url());
    server.import("op", "user123", &["user456", "bot_7"]).await;
    let mut checking = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let scraped = scrape(&service, "text/plain").await;
    let mut input = checking.stdin.take().unwrap();
    input.write_all(scraped.text().as_bytes()).unwrap();
    drop(input);
    let output = checking.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn a_metrics_exporter_other_than_prometheus_ends_both_processes() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        let settings = Settings::new().set("OTEL_METRICS_EXPORTER", "otlp");
        let mut service = Service::spawn(binary, settings);
        let status = service.exit(SOON).await;
        let output = service.output();
        assert!(!status.success(), "{binary:?}: {output}");
        for part in [
            "OTEL_METRICS_EXPORTER=otlp",
            "/metrics",
            "OpenTelemetry Collector's prometheus receiver",
        ] {
            assert!(output.contains(part), "{binary:?}, no {part}: {output}");
        }
    }
    let settings = Settings::new().set("OTEL_METRICS_EXPORTER", "none");
    Service::gateway(settings).await;
}
