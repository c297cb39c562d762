//! The consumers under `examples/` work.

use std::{process::Command, time::Duration};

use importguard_tests::{
    Binary, Foreign, Line, NatsServer, OtlpReceiver, Process, SOON, Settings, TraceParent,
    create_stream, eventually, stored, wait_for_count,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use tempfile::TempDir;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::nats_permissions;

#[tokio::test]
async fn the_rust_example_handles_each_event_once_and_continues_its_trace() {
    exercise("rust", || Command::new(Binary::RustExample.path())).await;
}

#[tokio::test]
async fn the_python_example_handles_each_event_once_and_continues_its_trace() {
    if let Some(python) = Foreign::python("examples/python") {
        exercise("python", || python.command("refusals.py")).await;
    }
}

#[tokio::test]
async fn the_node_example_handles_each_event_once_and_continues_its_trace() {
    if let Some(node) = Foreign::node("examples/node") {
        exercise("node", || node.command("refusals.js")).await;
    }
}

#[tokio::test]
async fn the_rust_example_needs_no_more_than_a_teams_permissions() {
    exercise_as_a_team(Command::new(Binary::RustExample.path())).await;
}

#[tokio::test]
async fn the_python_example_needs_no_more_than_a_teams_permissions() {
    if let Some(python) = Foreign::python("examples/python") {
        exercise_as_a_team(python.command("refusals.py")).await;
    }
}

#[tokio::test]
async fn the_node_example_needs_no_more_than_a_teams_permissions() {
    if let Some(node) = Foreign::node("examples/node") {
        exercise_as_a_team(node.command("refusals.js")).await;
    }
}

#[tokio::test]
async fn the_rust_example_stands_messages_that_cannot_be_read_old_events_and_a_new_stream() {
    endure(Command::new(Binary::RustExample.path())).await;
}

#[tokio::test]
async fn the_python_example_stands_messages_that_cannot_be_read_old_events_and_a_new_stream() {
    if let Some(python) = Foreign::python("examples/python") {
        endure(python.command("refusals.py")).await;
    }
}

#[tokio::test]
async fn the_node_example_stands_messages_that_cannot_be_read_old_events_and_a_new_stream() {
    if let Some(node) = Foreign::node("examples/node") {
        endure(node.command("refusals.js")).await;
    }
}

#[tokio::test]
async fn the_rust_example_ends_when_it_is_asked_to() {
    obey(|| Command::new(Binary::RustExample.path())).await;
}

#[tokio::test]
async fn the_python_example_ends_when_it_is_asked_to() {
    if let Some(python) = Foreign::python("examples/python") {
        obey(|| python.command("refusals.py")).await;
    }
}

#[tokio::test]
async fn the_node_example_ends_when_it_is_asked_to() {
    if let Some(node) = Foreign::node("examples/node") {
        obey(|| node.command("refusals.js")).await;
    }
}

/// What an owner may be called.
const FORGED_ALERT: &str = "a\nALERT owner=victim refusals=99 within=60s";

/// An example that runs.
struct Example {
    process: Process,
    _logs: TempDir,
}

impl Example {
    async fn start(command: Command, nats: &NatsServer, spans: &OtlpReceiver) -> Self {
        let settings = Settings::new().nats(nats).traces_to(spans);
        Self::with(command, settings, "tested").await
    }

    async fn with(command: Command, settings: Settings, consumer: &str) -> Self {
        let example = Self::spawn(command, settings, consumer);
        let ready = format!("ready: consumer {consumer} on IMPORTGUARD");
        example.says(&ready).await;
        example
    }

    /// Does not wait until it reads events.
    fn spawn(mut command: Command, settings: Settings, consumer: &str) -> Self {
        let logs = TempDir::new().unwrap();
        settings
            .set("CONSUMER", consumer)
            .set("ALERT_THRESHOLD", "2")
            .set("ALERT_WINDOW_SECONDS", "600")
            .set("PYTHONUNBUFFERED", "1")
            .apply(&mut command);
        Self {
            process: Process::spawn("example", command, logs.path()),
            _logs: logs,
        }
    }

    async fn says(&self, text: &str) {
        eventually(text, SOON, async || {
            let output = self.process.output();
            if output.contains(text) {
                Ok(())
            } else {
                Err(output)
            }
        })
        .await;
    }

    /// Asks it to end, and waits until it has.
    async fn end(mut self) {
        let status = self.process.terminate(Duration::from_secs(15)).await;
        assert!(status.success(), "{status}: {}", self.process.output());
    }

    fn times(&self, text: &str) -> usize {
        self.process.stdout().matches(text).count()
    }
}

/// With the permissions of a team in `deploy/nats/nats-server.conf`, which Compose uses as well.
async fn exercise_as_a_team(command: Command) {
    let nats = nats_permissions::nats().await;
    let _gateway = nats_permissions::with_an_event(&nats).await;
    let settings = Settings::new()
        .nats(&nats)
        .set("NATS_USER", "analytics")
        .set("NATS_PASSWORD", "analytics-secret");
    let example = Example::with(command, settings, "analytics").await;
    example.says(r#"refusal owner="user123" count=1"#).await;
}

async fn exercise(language: &str, command: impl Fn() -> Command) {
    let spans = OtlpReceiver::start().await;
    let line = Line::with(Settings::new().traces_to(&spans)).await;
    let server = line.server();
    server.import("op-0", "user123", &["b"]).await;
    wait_for_count(&line.nats, 1).await;

    let mut example = Example::start(command(), &line.nats, &spans).await;
    let trace = TraceParent::numbered(7);
    for number in 1..=3 {
        let call = server
            .before_import(&format!("op-{number}"), "blocked_owner", &["b"])
            .header("traceparent", trace.to_string());
        server.send(call).await;
    }
    example
        .says(r#"ALERT owner="blocked_owner" refusals=3 within=600s"#)
        .await;
    assert_eq!(example.times("ALERT"), 1, "{}", example.process.output());

    let found = spans
        .wait_for(&trace.trace_id, SOON, |spans| {
            spans
                .iter()
                .filter(|span| span.name.starts_with("process "))
                .count()
                == 3
        })
        .await;
    let events = stored(&line.nats).await;
    for event in &events[1..] {
        let span = found.iter().find(|span| {
            span.attributes
                .get("messaging.message.id")
                .map(String::as_str)
                == Some(event.id())
                && span.kind == SpanKind::Consumer
        });
        let span = span.unwrap_or_else(|| panic!("no span for {}: {found:#?}", event.id()));
        assert_eq!(span.name, "process importguard.v1.decision.refuse");
        assert_eq!(span.service, format!("refusals-by-owner-{language}"));
        assert_eq!(span.parent_id, event.trace().unwrap().span_id);
    }

    // The same event once more, as NATS delivers it whose duplicate window is over.
    republish(&line.nats, &events[1]).await;
    let duplicate = format!("duplicate \"{}\"", events[1].id());
    example.says(&duplicate).await;
    assert_eq!(example.times(r#"refusal owner="blocked_owner""#), 3);

    let status = example.process.terminate(SOON).await;
    assert!(status.success(), "{status}: {}", example.process.output());
    server.import("op-4", "blocked_1", &["b"]).await;
    let again = Example::start(command(), &line.nats, &spans).await;
    again.says(r#"refusal owner="blocked_1" count=1"#).await;
    // What it has acknowledged does not come again.
    assert_eq!(
        again.times("blocked_owner"),
        0,
        "{}",
        again.process.output()
    );
    let mut again = again;
    again.process.sigint();
    assert!(again.process.exit(SOON).await.success());
    all_is_acknowledged(&line.nats).await;
}

async fn endure(command: Command) {
    let nats = NatsServer::start().await;
    let client = nats.client().await;
    let jetstream = create_stream(client.clone(), |_| ()).await;
    let mut example = Example::with(command, Settings::new().nats(&nats), "tested").await;
    let publish = async |payload: String| {
        let subject = "importguard.v1.decision.refuse";
        let ack = jetstream.publish(subject, payload.into()).await.unwrap();
        ack.await.unwrap();
    };
    let without_an_id =
        refusal("id", "old", Duration::ZERO).replace("\"id\":\"id\"", "\"id\":null");
    let forging = format!("{FORGED_ALERT}[");
    let unreadable = ["[".repeat(100_000), "[]".to_owned(), without_an_id, forging];
    for text in unreadable {
        publish(text).await;
    }
    // None has a header, and each its own ID. They are too far apart for an alert.
    let minutes_ago = [40, 20, 0].map(|minutes| Duration::from_secs(60 * minutes));
    for (number, ago) in minutes_ago.into_iter().enumerate() {
        publish(refusal(&format!("id-{number}"), "old", ago)).await;
    }
    publish(refusal("id-0", "old", Duration::ZERO)).await;
    example.says(r#"duplicate "id-0""#).await;
    assert_eq!(example.times("no event"), 4, "{}", example.process.output());
    assert_eq!(example.times(r#"refusal owner="old" count=1"#), 3);
    // Once as the owner, and once as the ID of two events.
    publish(refusal("id-4", FORGED_ALERT, Duration::ZERO)).await;
    for _ in 0..2 {
        publish(refusal(FORGED_ALERT, "old", Duration::from_secs(3600))).await;
    }
    example.says("duplicate \"a\\nALERT").await;
    all_is_acknowledged(&nats).await;

    jetstream.delete_stream("IMPORTGUARD").await.unwrap();
    create_stream(client, |_| ()).await;
    publish(refusal("id-3", "new", Duration::ZERO)).await;
    example.says(r#"refusal owner="new" count=1"#).await;
    let output = example.process.output();
    let alerts = output.lines().filter(|line| line.starts_with("ALERT"));
    assert_eq!(alerts.count(), 0, "{output}");
    all_is_acknowledged(&nats).await;

    let status = example.process.terminate(Duration::from_secs(5)).await;
    assert!(status.success(), "{status}: {}", example.process.output());
}

/// Ends without an error while it waits for the stream, and while NATS is away.
async fn obey(command: impl Fn() -> Command) {
    let mut nats = NatsServer::start().await;
    let settings = Settings::new().nats(&nats);
    let waiting = Example::spawn(command(), settings.clone(), "tested");
    waiting.says("waiting for the stream IMPORTGUARD").await;
    waiting.end().await;

    create_stream(nats.client().await, |_| ()).await;
    let just_lost = Example::with(command(), settings.clone(), "first").await;
    let long_lost = Example::with(command(), settings, "second").await;
    nats.kill9();
    just_lost.end().await;
    // The example has noticed by now, and tried to go on.
    tokio::time::sleep(Duration::from_secs(8)).await;
    long_lost.end().await;
}

fn refusal(id: &str, owner: &str, ago: Duration) -> String {
    let time = OffsetDateTime::now_utc() - ago;
    let time = time.format(&Rfc3339).unwrap();
    let data = json!({"ownerUserID": owner, "verdict": "refuse"});
    json!({"id": id, "type": "importguard.decision.v1", "time": time, "data": data}).to_string()
}

/// Stores `event` a second time under its id, past NATS's own recognition of duplicates.
async fn republish(nats: &NatsServer, event: &importguard_tests::StoredEvent) {
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let window = stream.cached_info().config.duplicate_window;
    let mut config = stream.cached_info().config.clone();
    // NATS forgets an id when its window is over, and the shortest window it takes is 100 ms.
    config.duplicate_window = Duration::from_millis(100);
    jetstream.update_stream(&config).await.unwrap();
    eventually("the event is stored twice", SOON, async || {
        let payload = event.json.to_string().into();
        let publish =
            jetstream.publish_with_headers(event.subject.clone(), event.headers.clone(), payload);
        let ack = publish.await?.await?;
        anyhow::ensure!(!ack.duplicate, "still recognised");
        Ok(())
    })
    .await;
    config.duplicate_window = window;
    jetstream.update_stream(&config).await.unwrap();
}

async fn all_is_acknowledged(nats: &NatsServer) {
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    eventually("every event is acknowledged", SOON, async || {
        let info = stream.consumer_info("tested").await?;
        anyhow::ensure!(
            info.num_pending == 0 && info.num_ack_pending == 0,
            "{info:?}"
        );
        Ok(())
    })
    .await;
}
