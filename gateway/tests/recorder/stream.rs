use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, StorageType};

use super::*;

async fn config(nats: &NatsServer) -> Config {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    stream.cached_info().config.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_created_with_its_limits() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut settings = settings(&nats, &spool);
    settings.stream.max_age = Duration::from_secs(3600);
    settings.stream.max_bytes = Some(64 << 20);
    settings.stream.duplicate_window = Duration::from_secs(240);
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    let config = config(&nats).await;
    assert_eq!(config.subjects, ["importguard.v1.>"]);
    assert_eq!(config.max_age, Duration::from_secs(3600));
    assert_eq!(config.max_bytes, 64 << 20);
    assert_eq!(config.duplicate_window, Duration::from_secs(240));
    assert_eq!(config.num_replicas, 1);
    assert_eq!(config.storage, StorageType::File);
    assert_eq!(config.discard, DiscardPolicy::Old);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_setting_the_stream_is_as_large_as_nats_has_room_for() {
    let (dir, spool) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let start = |limit| {
        let store = dir.path().join(limit);
        async move {
            let limit = format!("max_file_store: {limit}");
            NatsServer::on(NatsServer::program(), &store, &limit, |command| command).await
        }
    };
    for (limit, gib) in [("20GB", 8), ("5GB", 4), ("1200MB", 1)] {
        let nats = start(limit).await;
        let recording = Recording::streaming(&nats, &spool).await;
        assert_eq!(config(&nats).await.max_bytes, gib << 30, "{limit}");
        recording.close().await;
    }
    // What an operator asks for is that or nothing.
    let nats = start("3GB").await;
    let mut settings = settings(&nats, &spool);
    settings.stream.max_bytes = Some(4 << 30);
    let recording = Recording::with(settings).await;
    eventually("it says so", SOON, async || {
        let error = recording.recorder.status().last_error;
        match error.is_some_and(|error| error.contains("NATS refused to create it")) {
            true => Ok(()),
            false => Err(format!("{:?}", recording.recorder.status())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_back_the_stream_reaches_is_measured() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::patient(&nats, &spool).await;
    let text = recording.registry.encode(None).unwrap().text;
    assert!(!text.contains("\nimportguard_stream_oldest_event_age_seconds "));
    recording.record(0).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let recording = Recording::with(recording.close().await).await;
    recording.until(State::Streaming).await;
    let age = recording.metric("importguard_stream_oldest_event_age_seconds");
    assert!((1.0..60.0).contains(&age), "{age}");
    assert!(recording.metric("importguard_stream_bytes") > 100.0);
    let max = recording.metric("importguard_stream_max_bytes");
    assert_eq!(max, config(&nats).await.max_bytes as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_window_longer_than_events_live_is_cut_to_that() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut settings = settings(&nats, &spool);
    settings.stream.max_age = Duration::from_secs(60);
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    assert_eq!(
        config(&nats).await.duplicate_window,
        Duration::from_secs(60)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_stream_is_left_as_it_is() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let operators = Config {
        name: "IMPORTGUARD".to_owned(),
        subjects: vec!["importguard.>".to_owned()],
        max_age: Duration::from_secs(77),
        max_messages: 1000,
        storage: StorageType::Memory,
        ..Config::default()
    };
    let jetstream = jetstream::new(nats.client().await);
    jetstream.create_stream(operators).await.unwrap();
    let before = config(&nats).await;
    let recording = Recording::patient(&nats, &spool).await;
    assert_eq!(recording.record(0).await, Recorded::Streamed);
    assert_eq!(config(&nats).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_stream_that_weaken_a_promise_are_told_once_with_their_remedy() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut weak = Config {
        name: "IMPORTGUARD".to_owned(),
        subjects: vec!["importguard.v1.>".to_owned()],
        duplicate_window: Duration::from_secs(5),
        storage: StorageType::Memory,
        ..Config::default()
    };
    let jetstream = jetstream::new(nats.client().await);
    jetstream.create_stream(weak.clone()).await.unwrap();
    let recording = Recording::patient(&nats, &spool).await;
    let told = recording.recorder.status().stream_deviations;
    let [window, memory] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(window.contains("--dupe-window 10m"), "{window}");
    assert!(memory.contains("memory"), "{memory}");
    assert_eq!(recording.metric("importguard_stream_deviations"), 2.0);
    assert_eq!(recording.record(0).await, Recorded::Streamed);

    weak.duplicate_window = Duration::from_secs(600);
    jetstream.update_stream(weak).await.unwrap();
    let recording = Recording::with(recording.close().await).await;
    recording.until(State::Streaming).await;
    assert_eq!(recording.recorder.status().stream_deviations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_under_way_is_created_again_and_loses_nothing_new() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::streaming(&nats, &spool).await;
    recording.record(0).await;
    let jetstream = jetstream::new(nats.client().await);
    jetstream.delete_stream("IMPORTGUARD").await.unwrap();
    for n in 1..20 {
        recording.record(n).await;
    }
    recording.until(State::Streaming).await;
    let mut stored = stored(&nats).await;
    stored.sort_unstable();
    assert_eq!(stored, (1..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_carries_its_id_its_trace_and_its_operation() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::patient(&nats, &spool).await;
    let mut event = event(7);
    event.subject = Subject::Imported;
    let sent = event.clone();
    let deadline = Instant::now() + SOON;
    recording.recorder.record(event, deadline).await.unwrap();
    let messages = messages(&nats).await;
    let [message] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(message.subject.as_str(), "importguard.v1.imported");
    assert_eq!(message.payload, sent.payload);
    let header = |name: &str| message.headers.get(name).map(|value| value.to_string());
    assert_eq!(header("Nats-Msg-Id"), Some(sent.id.to_string()));
    assert_eq!(header("operationID"), Some("operation-7".to_owned()));
    assert_eq!(header("traceparent"), sent.trace.traceparent);
    assert_eq!(header("tracestate"), sent.trace.tracestate);
    assert_eq!(header("baggage"), sent.trace.baggage);
    assert_eq!(
        header("Content-Type"),
        Some("application/cloudevents+json".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_nats_cannot_carry_is_left_out() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::patient(&nats, &spool).await;
    let mut event = event(0);
    event.trace.traceparent = Some("two\r\nlines".to_owned());
    let deadline = Instant::now() + SOON;
    let recorded = recording.recorder.record(event, deadline).await;
    assert_eq!(recorded, Ok(Recorded::Streamed));
    let messages = messages(&nats).await;
    assert!(messages[0].headers.get("traceparent").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spooled_event_too_large_for_the_stream_is_drained_with_counts() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::start(&nats, &spool).await;
    let friends: Vec<_> = (0..1000).map(|n| format!("user_{n:010}")).collect();
    let mut large = event(0);
    let text = json!({"data": {"n": 0, "friendUserIDs": friends}}).to_string();
    large.payload = Bytes::from(text);
    let deadline = Instant::now() + SOON;
    let recorded = recording.recorder.record(large, deadline).await;
    assert_eq!(recorded, Ok(Recorded::Spooled));
    assert_eq!(recording.recorder.max_payload(), 1 << 20);
    recording.record(1).await;
    let settings = recording.close().await;

    nats.restart().await;
    let jetstream = jetstream::new(nats.client().await);
    let small = Config {
        name: "IMPORTGUARD".to_owned(),
        subjects: vec!["importguard.>".to_owned()],
        max_message_size: 4096,
        ..Config::default()
    };
    jetstream.create_stream(small).await.unwrap();
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    assert_eq!(recording.recorder.max_payload(), 4096);
    assert_eq!(stored(&nats).await, [0, 1]);
    let first: Value = serde_json::from_slice(&messages(&nats).await[0].payload).unwrap();
    assert_eq!(first["data"]["friendCount"], 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_acknowledges_before_it_writes_or_only_counts_takes_no_event() {
    type Case = (&'static str, fn(&mut Config));
    let Some(program) = NatsServer::current() else {
        return;
    };
    let changes: [Case; 2] = [
        ("persist_mode: async", |config| {
            config.persist_mode = Some(PersistenceMode::Async);
        }),
        ("allow_msg_counter", |config| {
            config.allow_message_counter = true;
        }),
    ];
    for (cause, change) in changes {
        let (store, spool) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let nats = NatsServer::on(&program, store.path(), "", |command| command).await;
        let mut config = Config {
            name: "IMPORTGUARD".to_owned(),
            subjects: vec!["importguard.v1.>".to_owned()],
            ..Config::default()
        };
        change(&mut config);
        let jetstream = jetstream::new(nats.client().await);
        jetstream.create_stream(config).await.unwrap();
        let recording = Recording::start(&nats, &spool).await;
        recording.until_told(&[cause, "stream rm"]).await;
        assert_eq!(recording.record(0).await, Recorded::Spooled);
        assert_eq!(stored(&nats).await, Vec::<usize>::new());
        // As it says.
        jetstream.delete_stream("IMPORTGUARD").await.unwrap();
        recording.until(State::Streaming).await;
        assert_eq!(stored(&nats).await, [0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_full_the_stream_is_goes_by_its_nearest_limit() {
    for (max_messages, max_bytes, fill) in [(4, -1, 0.5..0.51), (1000, 2000, 0.1..0.9)] {
        let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
        let config = Config {
            name: "IMPORTGUARD".to_owned(),
            subjects: vec!["importguard.v1.>".to_owned()],
            max_messages,
            max_bytes,
            ..Config::default()
        };
        let jetstream = jetstream::new(nats.client().await);
        jetstream.create_stream(config).await.unwrap();
        let recording = Recording::patient(&nats, &spool).await;
        for n in 0..2 {
            recording.record(n).await;
        }
        let recording = Recording::with(recording.close().await).await;
        recording.until(State::Streaming).await;
        let measured = recording.metric("importguard_stream_fill_ratio");
        assert!(fill.contains(&measured), "{measured}");
    }
}
