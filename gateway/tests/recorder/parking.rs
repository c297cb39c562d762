use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::future::join_all;
use importguard_gateway::recorder::RecordError;
use tokio::time::sleep;

use super::*;

const DECISIONS: &str = "importguard.v1.decision.*";

async fn stream(nats: &NatsServer, change: impl FnOnce(&mut Config)) {
    let jetstream = jetstream::new(nats.client().await);
    let mut config = Config {
        name: "IMPORTGUARD".to_owned(),
        subjects: vec!["importguard.v1.>".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    jetstream.create_or_update_stream(config).await.unwrap();
}

fn on(subject: Subject, n: usize) -> Event {
    Event {
        subject,
        ..event(n)
    }
}

impl Recording {
    async fn record_all(&self, events: impl IntoIterator<Item = Event>) {
        let deadline = Instant::now() + SOON;
        let recorded = events
            .into_iter()
            .map(|event| self.recorder.record(event, deadline));
        for recorded in join_all(recorded).await {
            recorded.unwrap();
        }
    }

    async fn parks(&self, reason: &str, events: usize) {
        eventually(&format!("{events} are parked"), SOON, async || {
            let status = self.recorder.status();
            let parked = status.parked.iter().find(|parked| parked.reason == reason);
            let count = parked.map_or(0, |parked| parked.events);
            if count == events && status.state == State::Streaming {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
        let gauge = format!("importguard_spool_parked_events{{reason=\"{reason}\"}}");
        assert_eq!(self.metric(&gauge), events as f64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_stays_across_a_restart_and_leaves_when_nats_takes_it() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    stream(&nats, |config| config.subjects = vec![DECISIONS.to_owned()]).await;
    let recording = Recording::streaming(&nats, &spool).await;
    for n in 0..20 {
        let subject = [Subject::Imported, Subject::Allow][n % 2];
        recording.record_all([on(subject, n)]).await;
    }
    recording.parks("subjectMissing", 10).await;
    let others: Vec<_> = (0..20).filter(|n| n % 2 == 1).collect();
    // The first refusal may be one of the whole stream, and while that is found out newer ones may overtake older ones.
    let mut streamed = stored(&nats).await;
    streamed.sort_unstable();
    assert_eq!(streamed, others);

    // The same in the next process, before and after it has tried.
    let recording = Recording::with(recording.close().await).await;
    recording.parks("subjectMissing", 10).await;
    let settings = recording.close().await;
    stream(&nats, |_| {}).await;
    let recording = Recording::with(settings).await;
    recording.parks("subjectMissing", 0).await;
    assert_each_once(&nats, 20).await;
    assert_eq!(recording.recorder.status().spooled_events, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_too_large_park_alone_however_many_they_are() {
    // More than one pass tries.
    const COUNT: usize = 600;
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    stream(&nats, |config| config.max_message_size = 1000).await;
    let recording = Recording::streaming(&nats, &spool).await;
    let large = |n| {
        let text = json!({"data": {"n": n, "text": "x".repeat(2000)}}).to_string();
        Event {
            payload: Bytes::from(text),
            ..event(n)
        }
    };
    recording.record_all((0..COUNT).map(large)).await;
    recording.parks("tooLarge", COUNT).await;
    recording.record_all((COUNT..COUNT + 10).map(event)).await;
    let small: Vec<_> = (COUNT..COUNT + 10).collect();
    eventually("the small ones are stored", SOON, async || {
        let mut streamed = stored(&nats).await;
        streamed.sort_unstable();
        if streamed == small {
            Ok(())
        } else {
            Err(format!("{streamed:?}"))
        }
    })
    .await;
    stream(&nats, |config| config.max_message_size = -1).await;
    recording.parks("tooLarge", 0).await;
    assert_each_once(&nats, COUNT + 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_stream_refuses_everything_a_parked_event_is_tried_now_and_then() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    stream(&nats, |config| config.subjects = vec![DECISIONS.to_owned()]).await;
    let recording = Recording::streaming(&nats, &spool).await;
    recording.record_all([event(0)]).await;
    recording.record_all([on(Subject::Imported, 1)]).await;
    recording.parks("subjectMissing", 1).await;
    let settings = recording.close().await;
    stream(&nats, |config| {
        config.max_messages = 1;
        config.discard = DiscardPolicy::New;
    })
    .await;
    let recording = Recording::with(settings).await;
    eventually("the refusal is told", SOON, async || {
        let error = recording.recorder.status().last_error.unwrap_or_default();
        match error.contains("maximum messages exceeded") {
            true => Ok(()),
            false => Err(error),
        }
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    // Whether NATS accepts events is for other events to find out.
    assert_eq!(recording.recorder.status().state, State::Streaming);
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let consumers = stream.cached_info().state.consumer_count;
    assert!(consumers <= 1, "{consumers} consumers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_subscriber_on_a_subject_that_the_stream_lacks_stops_nothing() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    stream(&nats, |config| config.subjects = vec![DECISIONS.to_owned()]).await;
    // Because of it, NATS does not answer that nobody takes the subject.
    let client = nats.client().await;
    let _subscriber = client.subscribe("importguard.v1.>").await.unwrap();
    client.flush().await.unwrap();
    let recording = Recording::streaming(&nats, &spool).await;
    for n in 0..4 {
        let subject = [Subject::Imported, Subject::Allow][n % 2];
        recording.record_all([on(subject, n)]).await;
    }
    recording.parks("subjectMissing", 2).await;
    assert_eq!(stored(&nats).await, [1, 3]);
    // Those of a spool, too.
    let recording = Recording::with(recording.close().await).await;
    recording.parks("subjectMissing", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_subject_without_parked_events_is_tried_with_a_new_one() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let one_of_each = |config: &mut Config| {
        config.max_messages_per_subject = 1;
        config.discard = DiscardPolicy::New;
        config.discard_new_per_subject = true;
    };
    stream(&nats, one_of_each).await;
    let mut settings = settings(&nats, &spool);
    settings.spool_max_bytes = 2 << 20;
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    let deadline = Instant::now() + SOON * 2;
    // More than a pass over the parked events tries, and as many as may be parked.
    let mut parked = 0;
    let error = loop {
        match recording.recorder.record(event(parked), deadline).await {
            Ok(_) => parked += 1,
            Err(error) => break error,
        }
    };
    assert!(parked > 300, "{parked}");
    let max_bytes = 2 << 20;
    assert_eq!(error, RecordError::ParkedFull { max_bytes });
    stream(&nats, |config| {
        one_of_each(config);
        config.subjects = vec!["importguard.v1.decision.allow".to_owned()];
    })
    .await;
    let refuse = |n| recording.recorder.record(on(Subject::Refuse, n), deadline);
    eventually("the subject is blocked", SOON, async || {
        match refuse(parked).await {
            Ok(recorded) => Err(format!("{recorded:?}")),
            Err(_) => Ok(()),
        }
    })
    .await;
    stream(&nats, one_of_each).await;
    eventually("the subject is free again", SOON, async || {
        refuse(parked + 1).await
    })
    .await;
}
