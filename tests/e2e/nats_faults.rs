//! One fault of NATS at a time. What is answered is in the stream or in the spool while it lasts, and once it is gone everything is in
//! the stream exactly once.

mod world;

use std::{collections::BTreeMap, time::Duration};

use importguard_tests::{Spool, eventually};

use self::world::World;

/// Also for a busy machine, and for what is tried again only now and then.
const SOON: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoStream,
    JetStreamOff,
    PermissionDenied,
    WrongPassword,
    MaxPayload,
    MaxMessageSize,
    Sealed,
    Mirror,
    SubjectMissing,
    OtherStream,
    Frozen,
    Stalled,
    Torn,
    Killed,
    Full,
    NoAck,
}

/// What the gateway says meanwhile.
enum Told {
    /// It spools, and `lastError` holds this.
    Spooling(&'static str),
    /// It streams, and these are parked.
    Parked(&'static str),
    /// It may be over before anybody looks.
    Anything,
}

impl Fault {
    fn told(self) -> Told {
        match self {
            Self::NoStream => Told::Spooling("refused to create it"),
            Self::JetStreamOff => Told::Spooling("JetStream is off"),
            Self::PermissionDenied => Told::Parked("permissionDenied"),
            Self::WrongPassword => Told::Spooling("authorization violation"),
            Self::MaxPayload | Self::MaxMessageSize => Told::Parked("tooLarge"),
            Self::Sealed => Told::Spooling("is sealed"),
            Self::Mirror => Told::Spooling("is a mirror"),
            Self::SubjectMissing => Told::Parked("subjectMissing"),
            Self::OtherStream => Told::Parked("otherStream"),
            Self::Frozen | Self::Stalled => Told::Spooling("NATS"),
            Self::Killed => Told::Spooling("NATS"),
            Self::Full => Told::Spooling("maximum messages exceeded"),
            Self::NoAck => Told::Spooling("no_ack"),
            Self::Torn => Told::Anything,
        }
    }

    /// What was in the stream before is gone with it.
    fn destroys_the_stream(self) -> bool {
        matches!(self, Self::NoStream | Self::Sealed | Self::Mirror)
    }
}

async fn survives(fault: Fault) {
    let mut world = World::start().await;
    let mut asked = world.ask("before").await;
    world.gateway.settles().await;
    assert_eq!(world.streamed().await.len(), asked.len());
    if fault.destroys_the_stream() {
        asked.clear();
    }
    world.inject(fault).await;
    if fault == Fault::Torn {
        let of_the_tear = (0..4).flat_map(|number| {
            ["decision", "imported"].map(|kind| format!("torn-{number}-{kind}"))
        });
        asked.extend(of_the_tear);
    }
    let during = world.ask("during").await;
    let spooled = Spool::of(&world.gateway).operation_ids();
    if matches!(fault.told(), Told::Spooling(_)) {
        // Where it is told that NATS is away, all of them are on disk.
        for id in &during {
            assert!(spooled.contains(id), "{id} is not in {spooled:?}");
        }
    } else {
        // What leaves the spool after it was read is in the stream before.
        let streamed = world.streamed().await;
        for id in &during {
            let is_somewhere = streamed.contains_key(id) || spooled.contains(id);
            assert!(is_somewhere, "{id} is neither streamed nor in {spooled:?}");
        }
    }
    world.tells(&fault.told()).await;
    asked.extend(during);

    world.mend(fault).await;
    world.gateway.settles().await;
    asked.extend(world.ask("after").await);
    world.gateway.settles().await;
    let streamed = world.streamed().await;
    let expected: BTreeMap<_, _> = asked.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(streamed, expected);
}

#[tokio::test]
async fn a_stream_that_is_gone_and_may_not_be_created() {
    survives(Fault::NoStream).await;
}

#[tokio::test]
async fn jetstream_that_is_off() {
    survives(Fault::JetStreamOff).await;
}

#[tokio::test]
async fn a_permission_that_one_subject_lacks_parks_its_events_alone() {
    survives(Fault::PermissionDenied).await;
}

#[tokio::test]
async fn a_password_that_was_changed() {
    survives(Fault::WrongPassword).await;
}

#[tokio::test]
async fn a_server_that_takes_only_small_messages_parks_the_large_ones() {
    survives(Fault::MaxPayload).await;
}

#[tokio::test]
async fn a_stream_that_takes_only_small_messages_parks_the_large_ones() {
    survives(Fault::MaxMessageSize).await;
}

#[tokio::test]
async fn a_stream_that_is_sealed() {
    survives(Fault::Sealed).await;
}

#[tokio::test]
async fn a_stream_that_is_a_mirror() {
    survives(Fault::Mirror).await;
}

#[tokio::test]
async fn a_stream_without_one_of_the_subjects_parks_its_events_alone() {
    survives(Fault::SubjectMissing).await;
}

#[tokio::test]
async fn another_stream_with_one_of_the_subjects_parks_its_events_alone() {
    survives(Fault::OtherStream).await;
}

#[tokio::test]
async fn a_server_that_stands_still() {
    survives(Fault::Frozen).await;
}

#[tokio::test]
async fn a_network_that_drops_everything() {
    survives(Fault::Stalled).await;
}

#[tokio::test]
async fn a_connection_that_tears_in_the_middle() {
    survives(Fault::Torn).await;
}

#[tokio::test]
async fn a_server_that_is_killed() {
    survives(Fault::Killed).await;
}

#[tokio::test]
async fn a_stream_that_is_full_and_discards_new_events() {
    survives(Fault::Full).await;
}

#[tokio::test]
async fn a_stream_without_acks() {
    survives(Fault::NoAck).await;
}

#[tokio::test]
async fn what_was_parked_is_counted_when_it_is_published_and_not_after_the_next_outage() {
    let mut world = World::start().await;
    world.inject(Fault::SubjectMissing).await;
    world.ask("parked").await;
    world.tells(&Fault::SubjectMissing.told()).await;
    world.mend(Fault::SubjectMissing).await;
    world.gateway.settles().await;
    let told = "4 events that NATS had refused";
    world.gateway.wait_for_log(&["published", told]).await;
    let drains = || world.gateway.stderr().matches("draining the spool").count();
    let before = drains();
    world.nats.kill9();
    world.gateway.wait_for_recorder("spooling").await;
    world.nats.restart().await;
    world.gateway.wait_for_recorder("streaming").await;
    eventually("it streams", SOON, async || {
        let said = world.gateway.stderr();
        let last = said.lines().rfind(|line| line.contains("to NATS"));
        let last = last.unwrap_or_default();
        anyhow::ensure!(last.contains("streaming events to NATS"), "{said}");
        Ok(())
    })
    .await;
    assert_eq!(drains(), before, "{}", world.gateway.stderr());
}

#[tokio::test]
async fn a_subject_whose_events_could_not_be_parked_is_tried_again_all_the_same() {
    let mut world = World::start().await;
    world.reports("before").await;
    world.gateway.settles().await;
    assert!(world.streamed().await.contains_key("before"));
    let _locked = world.locked_spool();
    world.inject(Fault::PermissionDenied).await;
    assert!(!world.reports("denied").await);
    world.gateway.wait_for_log(&["NATS refuses events"]).await;
    world.permit_everything().await;
    eventually("a report is recorded again", SOON, async || {
        match world.reports("permitted").await {
            true => Ok(()),
            false => Err("it is not in the stream"),
        }
    })
    .await;
}
