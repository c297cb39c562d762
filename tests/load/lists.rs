//! Live lists while NATS is killed, frozen and cut, and deciders are restarted. The bench's command `lists` measures them.

use std::{
    collections::{HashMap, HashSet},
    env,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use importguard_core::EventId;
use importguard_lists::{Addition, Author, Bucket, Changes, Key, ListName, Writer};
use importguard_tests::{
    Call, Client, DecideClient, NatsServer, PolicyDir, Proxy, SOON, Service, Settings,
    create_stream, eventually,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::chaos::{alone, quiet};

/// `IMPORTGUARD_LISTS_MAX_AGE` of the deciders.
const MAX_AGE: Duration = Duration::from_secs(3);

const USERS: u64 = 40;

struct World {
    nats: NatsServer,
    policy: PolicyDir,
}

impl World {
    async fn new() -> Self {
        let nats = NatsServer::start().await;
        let jetstream = create_stream(nats.client().await, |_| ()).await;
        Bucket::open_or_create(&jetstream, 1).await.unwrap();
        let policy = PolicyDir::new(
            "apiVersion: importguard/v1\nname: live\nlists: { blocked: { live: bad } }\nrules:\n  - { id: r, refuseOwner: { in: blocked }, refusal: { code: 5001, message: no } }\n",
            &[],
        );
        Self { nats, policy }
    }

    async fn decider(&self, address: &str) -> Service {
        let settings: Settings = quiet()
            .policy(&self.policy)
            .set("NATS_URL", format!("nats://{address}"))
            .set("IMPORTGUARD_LISTS_MAX_AGE", "3s");
        Service::decider(settings).await
    }

    async fn writer(&self) -> Writer {
        let jetstream = jetstream::new(self.nats.client().await);
        Writer::new(Bucket::open(&jetstream).await.unwrap())
    }
}

fn key(id: &str) -> Key {
    Key::new(ListName::parse("bad").unwrap(), id).unwrap()
}

fn change(removed: bool, until: Option<OffsetDateTime>) -> Addition {
    Addition {
        by: Author::parse("chaos").unwrap(),
        reason: None,
        at: OffsetDateTime::now_utc(),
        until,
        removed,
        event: EventId::new(),
    }
}

/// Whether the decider says that its lists are current.
async fn is_current(decider: &Service) -> bool {
    let url = format!("http://{}/readyz", decider.admin_address());
    let Ok(answer) = Client::default()
        .try_send(Call::new(http::Method::GET, url))
        .await
    else {
        return false;
    };
    let ready: Value = serde_json::from_str(answer.text()).unwrap_or_default();
    ready["liveLists"]["current"] == true
}

/// How long after its end an entry may still count.
const LATE: Duration = Duration::from_secs(1);

/// What was acknowledged for each user.
type Acknowledged = HashMap<String, Known>;

struct Known {
    listed: bool,
    until: Option<OffsetDateTime>,
    since: Instant,
}

impl Known {
    /// Whether a decider that knows it refuses at some moment between `from` and `to`; None where both are right.
    fn refused(&self, from: OffsetDateTime, to: OffsetDateTime) -> Option<bool> {
        match self.until {
            _ if !self.listed => Some(false),
            Some(until) if from >= until + LATE => Some(false),
            Some(until) if to >= until => None,
            _ => Some(true),
        }
    }
}

/// What a decider says of `user`, if it is not what `known` says.
async fn contradiction(client: &DecideClient, user: &str, known: &Known) -> Option<String> {
    let from = OffsetDateTime::now_utc();
    let refused = client.refuses(user).await.ok()?;
    let to = OffsetDateTime::now_utc();
    let expected = known.refused(from, to)?;
    let until = known.until;
    (refused != expected)
        .then(|| format!("{user} is refused: {refused}; until {until:?}, now {to}"))
}

/// Each decider that says it is current has everything that was acknowledged before that could have been confirmed.
async fn is_true_to_its_word(
    deciders: &[Service],
    known: &Acknowledged,
    unsure: &HashMap<String, Instant>,
) {
    for decider in deciders {
        let asked = Instant::now();
        if !is_current(decider).await {
            continue;
        }
        let client = DecideClient::of(decider);
        for (user, known) in known {
            let settled = asked
                .checked_duration_since(known.since)
                .is_some_and(|age| age > MAX_AGE);
            if !settled || unsure.contains_key(user) {
                continue;
            }
            if let Some(wrong) = contradiction(&client, user, known).await {
                panic!("{wrong}\n{}", decider.output());
            }
        }
    }
}

#[tokio::test]
async fn deciders_keep_their_word_while_nats_is_killed_frozen_and_cut_and_they_are_restarted() {
    let _turn = alone().await;
    let seconds = env::var("IMPORTGUARD_LISTS_FAULT_SECONDS").ok();
    let seconds = seconds.map_or(25, |text| text.parse().unwrap());
    let mut world = World::new().await;
    let proxies = [
        Proxy::to(world.nats.address()).await,
        Proxy::to(world.nats.address()).await,
        Proxy::to(world.nats.address()).await,
    ];
    let mut deciders = Vec::new();
    for proxy in &proxies {
        deciders.push(world.decider(&proxy.address()).await);
    }
    let mut known = Acknowledged::new();
    // Changes that were not acknowledged may have been made.
    let mut unsure: HashMap<String, Instant> = HashMap::new();
    // The IDs of the events of acknowledged changes.
    let mut acknowledged = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    let mut frozen = false;
    while Instant::now() < end {
        round += 1;
        match fastrand::u8(0..6) {
            0 => {
                world.nats.kill9();
                world.nats.restart().await;
            }
            1 => {
                world.nats.freeze().await;
                frozen = true;
            }
            2 => proxies[fastrand::usize(0..3)].cut().await,
            3 => proxies[fastrand::usize(0..3)].stall(),
            4 => {
                let decider = &mut deciders[fastrand::usize(0..3)];
                decider.kill9();
                decider.restart().await;
            }
            _ => {}
        }
        for _ in 0..4 {
            if !frozen {
                let writer = world.writer().await;
                let user = format!("user{}", fastrand::u64(0..USERS));
                let removed = fastrand::u8(0..3) == 0;
                let until = fastrand::bool().then(|| end_in(fastrand::i64(2..8)));
                let until = until.filter(|_| !removed);
                let (key, change) = (key(&user), change(removed, until));
                let event = change.event.to_string();
                let written = tokio::time::timeout(SOON, writer.write(&key, &change)).await;
                match written {
                    Ok(Ok(written)) => {
                        // Without a change there is no event: somebody was removed who was not on the list.
                        acknowledged.extend(written.map(|_| event));
                        unsure.remove(&user);
                        let (listed, since) = (!removed, Instant::now());
                        known.insert(
                            user,
                            Known {
                                listed,
                                until,
                                since,
                            },
                        );
                    }
                    _ => drop(unsure.insert(user, Instant::now())),
                }
            }
            is_true_to_its_word(&deciders, &known, &unsure).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..500))).await;
        }
        if frozen {
            world.nats.thaw();
            frozen = false;
        }
        for proxy in &proxies {
            proxy.restore().await;
        }
    }
    assert!(round > 1);
    // In the end, everybody knows everything.
    for decider in &deciders {
        let client = DecideClient::of(decider);
        eventually("the decider is current", SOON, async || {
            anyhow::ensure!(is_current(decider).await, "{}", decider.output());
            for (user, known) in &known {
                if !unsure.contains_key(user)
                    && let Some(wrong) = contradiction(&client, user, known).await
                {
                    anyhow::bail!(wrong);
                }
            }
            Ok(())
        })
        .await;
    }
    entries_are_there_once(&world, &known, &unsure).await;
    // Each acknowledged change has one event, however often it was tried.
    let jetstream = jetstream::new(world.nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let mut stored = HashSet::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let id = event["id"].as_str().unwrap().to_owned();
        assert!(stored.insert(id), "twice: {event}");
    }
    assert!(!acknowledged.is_empty());
    for event in &acknowledged {
        assert!(stored.contains(event), "no event {event}");
    }
}

/// A whole second, so many from now on.
fn end_in(seconds: i64) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    OffsetDateTime::from_unix_timestamp(now + seconds).unwrap()
}

/// The bucket has each user's last acknowledged change, and no key twice.
async fn entries_are_there_once(
    world: &World,
    known: &Acknowledged,
    unsure: &HashMap<String, Instant>,
) {
    let jetstream = jetstream::new(world.nats.client().await);
    let bucket = Bucket::open(&jetstream).await.unwrap();
    let mut changes = Changes::after(&bucket, 0).await.unwrap();
    let mut found = HashMap::new();
    let now = OffsetDateTime::now_utc().unix_timestamp() as u64;
    // The end of an entry that counts.
    let counts = |listed: bool, until: Option<u64>| {
        let counts = listed && until.is_none_or(|until| until > now);
        counts.then_some(until)
    };
    while let Some(change) = changes.stored().await.unwrap() {
        if let Some((key, value)) = change.kind.brief() {
            let entry = counts(!value.removed, value.until);
            let before = found.insert(key.id.as_str().to_owned(), entry);
            assert!(before.is_none(), "{} is there twice", key.id);
        }
    }
    for (user, known) in known {
        if unsure.contains_key(user) {
            continue;
        }
        let until = known.until.map(|until| until.unix_timestamp() as u64);
        // Who was removed without having been on the list has no entry, or one that expired.
        let entry = found.get(user).copied().flatten();
        assert_eq!(entry, counts(known.listed, until), "{user}");
    }
}
