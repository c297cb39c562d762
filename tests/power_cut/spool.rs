//! The spool, while NATS is away, comes, takes events, and goes again.

use std::{collections::HashSet, path::Path, time::Duration};

use async_nats::jetstream;
use importguard_tests::{NatsServer, SOON, Service, Settings, Spool, eventually, tool};
use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    CUTS_A_RECORDING, alone,
    callers::{self, Answers},
    complain, cuts,
    disk::{Disk, Names},
    random,
    recording::{calls, recorded},
};

/// NATS is there for about the middle third: events are drained, and others are spooled behind them.
const THIRD: Duration = Duration::from_secs(2);

/// SQLite syncs the directory too.
const NAMES: Names = Names::WithTheDirectory;

/// What happened while callers were answered.
struct Run {
    answers: Answers,
    disk: Disk,
    /// When NATS, which lost no power, had each event, by operationID.
    streamed: Vec<(String, f64)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_answered_out_of_the_spool() {
    let Some(strace) = tool("strace", "STRACE", "a power cut under the spool") else {
        return;
    };
    let _turn = alone().await;
    let (mut random, mut left) = (random(), cuts());
    while left > 0 {
        let run = record(&strace, "full").await;
        let cuts = left.min(CUTS_A_RECORDING);
        for _ in 0..cuts {
            let cut = callers::moment(&run.answers, &mut random);
            let before = random.clone();
            let lost = lost_at(&run, cut, &mut random).await;
            complain(&lost, &run.answers, cut, || {
                run.disk.keep(cut, NAMES, before)
            });
        }
        left -= cuts;
        eprintln!(
            "power cuts: {cuts} under a spool with {} answers lost nothing, {left} to go",
            run.answers.len()
        );
    }
}

/// That the test above can fail, and what the relaxed setting costs.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_events_out_of_a_spool_that_does_not_wait_for_the_disk() {
    let Some(strace) = tool("strace", "STRACE", "a power cut under a relaxed spool") else {
        return;
    };
    let _turn = alone().await;
    let (mut random, mut most) = (random(), 0);
    let run = record(&strace, "normal").await;
    for _ in 0..10 {
        let cut = callers::moment(&run.answers, &mut random);
        most = most.max(lost_at(&run, cut, &mut random).await.len());
    }
    eprintln!("power cuts: up to {most} events are gone with IMPORTGUARD_SPOOL_SYNC=normal");
    assert!(most > 0, "nothing was lost without a sync");
}

/// A gateway that answers for three times [`THIRD`].
async fn record(strace: &Path, sync: &str) -> Run {
    let dir = TempDir::new().unwrap();
    let (spool, log) = (dir.path().join("spool"), dir.path().join("strace.log"));
    let mut nats = NatsServer::not_started();
    let settings = Settings::new()
        .nats(&nats)
        .with_long_timeouts()
        .set("IMPORTGUARD_SPOOL", spool.display().to_string())
        .set("IMPORTGUARD_SPOOL_SYNC", sync)
        .set("RUST_LOG", "warn");
    let mut gateway =
        Service::all_in_one_under(settings, |command| recorded(strace, command, &log)).await;
    let asking = callers::ask(&gateway, "cut", 3 * THIRD);
    let (answers, ()) = tokio::join!(asking, async {
        sleep(THIRD).await;
        nats.restart().await;
        eventually("the spool begins to drain", SOON, async || {
            let state = gateway.recorder().await?["state"].clone();
            anyhow::ensure!(state != "spooling", "{state}");
            Ok(())
        })
        .await;
        sleep(THIRD).await;
        nats.kill9();
    });
    gateway.kill9();
    nats.restart().await;
    let streamed = streamed(&nats).await;
    Run {
        answers,
        disk: Disk::of(&spool, &calls(&log).await),
        streamed,
    }
}

/// The events in the stream, by operationID, and when each came.
async fn streamed(nats: &NatsServer) -> Vec<(String, f64)> {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let mut events = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let id = message
            .headers
            .get("operationID")
            .expect("every event has one");
        let came = message.time.unix_timestamp_nanos() as f64 / 1e9;
        events.push((id.as_str().to_owned(), came));
    }
    events
}

/// What was answered before the power went at `cut`, and is neither in the spool nor in NATS.
async fn lost_at<'a>(run: &'a Run, cut: f64, random: &mut fastrand::Rng) -> Vec<&'a str> {
    let dir = TempDir::new().unwrap();
    run.disk.after_a_cut(cut, NAMES, random, dir.path());
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", dir.path().display().to_string());
    let gateway = Service::all_in_one(settings).await;
    let spool = Spool::of(&gateway).operation_ids();
    let output = gateway.output();
    assert!(
        !output.contains("corrupt"),
        "the spool did not survive: {output}"
    );
    let streamed = run.streamed.iter().filter(|(_, came)| *came <= cut);
    let found: HashSet<_> = streamed
        .map(|(id, _)| id.as_str())
        .chain(spool.iter().map(String::as_str))
        .collect();
    callers::lost(&run.answers, cut, |id| found.contains(id))
}
