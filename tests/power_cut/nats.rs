//! nats-server, whose acks are the other half of "answered means recorded".

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::jetstream;
use importguard_tests::{NatsServer, Service, Settings, skip, stored, tool};
use tempfile::TempDir;

use super::{
    CUTS_A_RECORDING, alone,
    callers::{self, Answers},
    complain, cuts,
    disk::{Disk, Names},
    random,
    recording::{calls, recorded},
};

/// How long callers are answered for a recording.
const LASTS: Duration = Duration::from_secs(6);

/// nats-server syncs files and no directories.
const NAMES: Names = Names::WithTheFile;

const ATTEMPTS: usize = 5;

/// As `deploy/nats` has it.
const ALWAYS: &str = "sync_interval: always";

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_answered_out_of_nats_that_syncs_always() {
    let Some((strace, server)) = tools() else {
        return;
    };
    let _turn = alone().await;
    let (mut random, mut left) = (random(), cuts());
    while left > 0 {
        let (answers, disk) = record(&strace, &server, ALWAYS).await;
        let cuts = left.min(CUTS_A_RECORDING);
        for _ in 0..cuts {
            let cut = callers::moment(&answers, &mut random);
            let before = random.clone();
            let lost = lost_at(&answers, &disk, cut, &server, &mut random).await;
            complain(&lost, &answers, cut, || disk.keep(cut, NAMES, before));
        }
        left -= cuts;
        eprintln!(
            "power cuts: {cuts} under NATS with {} answers lost nothing, {left} to go",
            answers.len()
        );
    }
}

/// That the test above can fail, and what nats-server does as shipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_events_out_of_nats_as_it_is_shipped() {
    let Some((strace, server)) = tools() else {
        return;
    };
    let _turn = alone().await;
    let (mut random, mut most) = (random(), 0);
    let (answers, disk) = record(&strace, &server, "").await;
    for _ in 0..5 {
        let cut = callers::moment(&answers, &mut random);
        most = most.max(
            lost_at(&answers, &disk, cut, &server, &mut random)
                .await
                .len(),
        );
    }
    eprintln!("power cuts: up to {most} events are gone from nats-server as shipped");
    assert!(most > 0, "nothing was lost without a sync");
}

/// strace, and a nats-server that knows [`ALWAYS`].
fn tools() -> Option<(PathBuf, PathBuf)> {
    let what = "a power cut under NATS";
    let strace = tool("strace", "STRACE", what)?;
    let server = NatsServer::current();
    if server.is_none() {
        let why = "nats-server is older than 2.10 (NATS_SERVER_CURRENT can name a newer one)";
        skip(what, why);
    }
    Some((strace, server?))
}

/// What nats-server's disk saw while a gateway published to it, and what the gateway answered.
async fn record(strace: &Path, server: &Path, jetstream: &str) -> (Answers, Disk) {
    for _ in 0..ATTEMPTS {
        if let Some(recorded) = try_record(strace, server, jetstream).await {
            return recorded;
        }
    }
    panic!("in each of {ATTEMPTS} recordings some acks were late");
}

/// Nothing if an ack was late on a busy machine: its event was in the spool, which this is not about.
async fn try_record(strace: &Path, server: &Path, jetstream: &str) -> Option<(Answers, Disk)> {
    let dir = TempDir::new().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("strace.log"));
    let mut nats = NatsServer::on(server, &store, jetstream, |command| {
        recorded(strace, command, &log)
    })
    .await;
    let settings = Settings::new()
        .nats(&nats)
        .with_long_timeouts()
        // strace makes a sync slower: every event is to wait for it.
        .set("IMPORTGUARD_ACK_TIMEOUT", "8s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "20s");
    let gateway = Service::all_in_one(settings).await;
    gateway.wait_for_recorder("streaming").await;
    let answers = callers::ask(&gateway, "cut", LASTS).await;
    let spooled = gateway.events_by("spooled").await.unwrap();
    drop(gateway);
    nats.kill9();
    (spooled == 0.0).then_some((answers, Disk::of(&store, &calls(&log).await)))
}

/// What was answered before the power went at `cut`, and is not in the stream.
async fn lost_at<'a>(
    answers: &'a Answers,
    disk: &Disk,
    cut: f64,
    server: &Path,
    random: &mut fastrand::Rng,
) -> Vec<&'a str> {
    let dir = TempDir::new().unwrap();
    disk.after_a_cut(cut, NAMES, random, dir.path());
    let nats = NatsServer::on(server, dir.path(), ALWAYS, |command| command).await;
    if jetstream::new(nats.client().await)
        .get_stream("IMPORTGUARD")
        .await
        .is_err()
    {
        return callers::lost(answers, cut, |_| false);
    }
    let found: HashSet<_> = stored(&nats)
        .await
        .iter()
        .map(|event| event.operation_id().to_owned())
        .collect();
    callers::lost(answers, cut, |id| found.contains(id))
}
