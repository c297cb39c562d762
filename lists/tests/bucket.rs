//! The bucket on a real nats-server: what is written, read and cleared away, and the events about it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::{StreamExt, future::join_all};
use importguard_core::EventId;
use importguard_lists::{
    Added, Addition, Announcement, Author, Bucket, BucketError, ChangeKind, Changes, Key, ListName,
    Reason, Writer,
};
use importguard_tests::NatsServer;
use serde_json::Value;
use time::OffsetDateTime;

struct World {
    jetstream: jetstream::Context,
    writer: Writer,
    _nats: NatsServer,
}

async fn world() -> World {
    let nats = NatsServer::start().await;
    let jetstream = jetstream::new(nats.client().await);
    let bucket = Bucket::open_or_create(&jetstream, 1).await.unwrap();
    World {
        writer: Writer::new(bucket),
        jetstream,
        _nats: nats,
    }
}

impl World {
    /// Has a stream for events, as a gateway creates it.
    async fn with_events(self) -> Self {
        let config = stream::Config {
            name: "IMPORTGUARD".to_owned(),
            subjects: vec!["importguard.v1.>".to_owned()],
            ..stream::Config::default()
        };
        self.jetstream.create_stream(config).await.unwrap();
        self
    }

    fn bucket(&self) -> &Bucket {
        self.writer.bucket()
    }

    async fn events(&self) -> Vec<Value> {
        let stream = self.jetstream.get_stream("IMPORTGUARD").await.unwrap();
        let config = jetstream::consumer::pull::Config::default();
        let consumer = stream.create_consumer(config).await.unwrap();
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        let messages = consumer.fetch().max_messages(count.max(1)).messages().await;
        let messages: Vec<_> = messages.unwrap().take(count).collect().await;
        let messages = messages.into_iter().map(Result::unwrap);
        messages
            .map(|message| serde_json::from_slice(&message.payload).unwrap())
            .collect()
    }

    async fn ids(&self) -> Vec<String> {
        let mut changes = Changes::after(self.bucket(), 0).await.unwrap();
        let mut ids = Vec::new();
        while let Some(change) = changes.stored().await.unwrap() {
            if let Some((key, value)) = change.kind.brief() {
                ids.push(format!(
                    "{}{}",
                    if value.removed { "-" } else { "" },
                    key.id
                ));
            }
        }
        ids
    }
}

fn key(id: &str) -> Key {
    Key::new(ListName::parse("blocked").unwrap(), id).unwrap()
}

fn addition() -> Addition {
    Addition {
        by: Author::parse("alice").unwrap(),
        reason: Some(Reason::parse("#4711").unwrap()),
        at: OffsetDateTime::now_utc(),
        until: None,
        removed: false,
        event: EventId::new(),
    }
}

fn removal() -> Addition {
    Addition {
        removed: true,
        ..addition()
    }
}

#[tokio::test]
async fn a_bucket_is_missing_until_somebody_creates_it_and_two_may() {
    let nats = NatsServer::start().await;
    let jetstream = jetstream::new(nats.client().await);
    assert_eq!(
        Bucket::open(&jetstream).await.unwrap_err(),
        BucketError::Missing
    );
    let (one, other) = tokio::join!(
        Bucket::open_or_create(&jetstream, 1),
        Bucket::open_or_create(&jetstream, 1)
    );
    assert_eq!(one.unwrap().state_when_opened().last, 0);
    assert_eq!(other.unwrap().state_when_opened().keys, 0);
    // Any client of key-value buckets can use it.
    let store = jetstream.get_key_value("IMPORTGUARD_LISTS").await.unwrap();
    store.put("blocked.user1", "".into()).await.unwrap();
    assert_eq!(
        Bucket::open(&jetstream)
            .await
            .unwrap()
            .state_when_opened()
            .keys,
        1
    );
}

#[tokio::test]
async fn each_change_is_an_event_that_says_who_and_why() {
    let world = world().await.with_events().await;
    let (added, removed) = (addition(), removal());
    let written = world
        .writer
        .write(&key("u 1"), &added)
        .await
        .unwrap()
        .unwrap();
    assert!(!written.existed);
    let again = world
        .writer
        .write(&key("u 1"), &removed)
        .await
        .unwrap()
        .unwrap();
    assert!(again.existed && again.revision > written.revision);
    assert_eq!(
        world.writer.write(&key("u 1"), &removal()).await.unwrap(),
        None
    );
    let events = world.events().await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["id"], added.event.to_string());
    assert_eq!(events[0]["data"]["change"], "added");
    assert_eq!(events[0]["data"]["userID"], "u 1");
    assert_eq!(events[0]["data"]["reason"], "#4711");
    assert_eq!(events[0]["data"]["revision"], written.revision);
    assert_eq!(events[1]["data"]["change"], "removed");
    assert_eq!(events[1]["data"]["replaces"], added.event.to_string());
    assert_eq!(world.ids().await, ["-u 1"]);
}

#[tokio::test]
async fn the_event_of_a_killed_writer_is_published_by_the_next_one_and_only_once() {
    let world = world().await;
    let lost = addition();
    // Nothing takes the event yet, so this writer ends between the entry and the event.
    let error = world.writer.write(&key("a"), &lost).await.unwrap_err();
    let is_made = matches!(
        error,
        BucketError::Unpublished {
            revision: 1,
            existed: false,
            ..
        }
    );
    assert!(is_made, "{error:?}");
    let world = world.with_events().await;
    let mine = addition();
    let written = world.writer.write(&key("b"), &mine).await.unwrap().unwrap();
    // The other writer might still be at it.
    world.writer.finish(&[written.revision]).await.unwrap();
    assert_eq!(world.events().await.len(), 1);
    let next = world.writer.clone().with_grace(Duration::ZERO);
    next.finish(&[]).await.unwrap();
    let published = |events: Vec<Value>| -> Vec<Value> {
        events
            .into_iter()
            .map(|event| event["id"].clone())
            .collect()
    };
    let expected = [mine.event.to_string(), lost.event.to_string()];
    assert_eq!(published(world.events().await), expected);
    next.finish(&[]).await.unwrap();
    assert_eq!(published(world.events().await), expected);
}

#[tokio::test]
async fn whoever_replaces_an_entry_first_publishes_the_event_about_it() {
    let world = world().await;
    let (lost, pending) = (addition(), [addition(), addition()]);
    for addition in [&lost, &pending[0]] {
        let error = world.writer.write(&key("a"), addition).await.unwrap_err();
        let is_replaced = addition.event != lost.event;
        assert!(
            matches!(error, BucketError::Unpublished { lost, .. } if lost == is_replaced),
            "{error:?}"
        );
    }
    world
        .writer
        .write(&key("b"), &pending[1])
        .await
        .unwrap_err();
    let world = world.with_events().await;
    let (removed, added) = (removal(), addition());
    world.writer.write(&key("a"), &removed).await.unwrap();
    world.writer.add_once(&key("b"), &added).await.unwrap();
    let ids = world.events().await.into_iter();
    let ids: Vec<_> = ids.map(|event| event["id"].clone()).collect();
    let [first, second] = pending;
    let expected = [first, removed, second, added];
    assert_eq!(ids, expected.map(|change| change.event.to_string()));
}

#[tokio::test]
async fn an_entry_is_added_once_for_an_event_however_often_it_is_tried() {
    let world = world().await.with_events().await;
    let once = addition();
    let tries = (0..8).map(|_| {
        let (writer, once) = (world.writer.clone(), once.clone());
        async move { writer.add_once(&key("a"), &once).await.unwrap() }
    });
    let results = join_all(tries).await;
    let added = results
        .iter()
        .filter(|added| matches!(added, Added::Now(_)));
    assert_eq!(added.count(), 1, "{results:?}");
    assert_eq!(world.events().await.len(), 1);
    // Somebody removes it, and the same event comes again.
    world.writer.write(&key("a"), &removal()).await.unwrap();
    assert_eq!(
        world.writer.add_once(&key("a"), &once).await.unwrap(),
        Added::Before(None)
    );
    // An earlier event cannot replace what somebody did after it.
    let earlier = Addition {
        at: once.at - Duration::from_secs(60),
        ..addition()
    };
    assert_eq!(
        world.writer.add_once(&key("a"), &earlier).await.unwrap(),
        Added::Superseded
    );
    let past = Addition {
        until: Some(OffsetDateTime::now_utc() - Duration::from_secs(1)),
        ..addition()
    };
    assert_eq!(
        world.writer.add_once(&key("b"), &past).await.unwrap(),
        Added::Expired
    );
    assert_eq!(world.ids().await, ["-a"]);
}

#[tokio::test]
async fn an_import_leaves_what_others_changed_after_it_had_read_the_bucket() {
    let world = world().await.with_events().await;
    let put = async |id: &str, addition: &Addition, revision| {
        let put = world.writer.put(&key(id), addition, revision).await;
        put.unwrap().is_some()
    };
    let import = addition();
    assert!(put("a", &import, 0).await);
    // Somebody removes one ID and adds another while the import runs.
    world.writer.write(&key("a"), &removal()).await.unwrap();
    world.writer.write(&key("b"), &addition()).await.unwrap();
    for id in ["a", "b"] {
        let again = Addition {
            event: EventId::new(),
            ..import.clone()
        };
        assert!(!put(id, &again, 0).await, "{id}");
    }
    assert_eq!(world.ids().await, ["-a", "b"]);
    assert_eq!(world.events().await.len(), 3);
    // What is older than the import is replaced, whatever its revision.
    assert!(put("a", &addition(), 0).await);
    assert_eq!(world.ids().await, ["b", "a"]);
}

#[tokio::test]
async fn what_no_longer_counts_is_announced_and_cleared_away() {
    let world = world().await.with_events().await;
    let past = Addition {
        until: Some(OffsetDateTime::now_utc() - Duration::from_secs(100)),
        ..addition()
    };
    for (id, what) in [
        ("stays", addition()),
        ("expired", past),
        ("removed", addition()),
        ("removed", removal()),
    ] {
        world.writer.write(&key(id), &what).await.unwrap();
    }
    // Nobody knows that their events are published, which are made from the entries.
    let left = world.bucket().clear(1000, Duration::ZERO).await.unwrap();
    assert_eq!((left.cleared, left.unpublished), (0, 2));
    world.writer.publish_all().await.unwrap();
    assert_eq!(world.events().await.len(), 4);
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(world.bucket().clear(1000, day).await.unwrap().cleared, 0);
    let cleared = world
        .bucket()
        .clear(1000, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(cleared.cleared, 1);
    assert_eq!(world.ids().await, ["stays", "-removed"]);
    let cleared = world.bucket().clear(1000, Duration::ZERO).await.unwrap();
    assert_eq!(cleared.cleared, 1);
    assert_eq!(world.ids().await, ["stays"]);
    let mut changes = Changes::after(world.bucket(), 0).await.unwrap();
    let mut announced = Vec::new();
    while let Some(change) = changes.stored().await.unwrap() {
        if let ChangeKind::Other(key, value) = change.kind {
            announced.extend(Announcement::read(&key, &value).into_iter().flatten());
        }
    }
    assert_eq!(announced, [key("removed")]);
}

#[tokio::test]
async fn an_entry_that_is_replaced_while_the_others_are_read_is_read_as_well() {
    // More than are sent before the reader asks for more.
    const ENTRIES: usize = 6000;
    let world = world().await;
    let jetstream = &world.jetstream;
    let put = |number: usize| async move {
        let subject = format!("$KV.IMPORTGUARD_LISTS.blocked.user{number}");
        let ack = jetstream.publish(subject, "".into()).await.unwrap();
        ack.await.unwrap();
    };
    futures_util::stream::iter(0..ENTRIES)
        .for_each_concurrent(500, put)
        .await;
    let mut changes = Changes::after(world.bucket(), 0).await.unwrap();
    put(ENTRIES - 10).await;
    let mut ids = Vec::new();
    while let Some(change) = changes.stored().await.unwrap() {
        ids.extend(change.kind.brief().map(|(key, _)| key.id.to_string()));
    }
    let replaced = format!("user{}", ENTRIES - 10);
    assert!(ids.contains(&replaced), "{} were read", ids.len());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ENTRIES);
}
