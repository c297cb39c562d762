//! What recording costs, and against what: `cargo bench -p importguard-gateway --bench recorder`. Needs a nats-server. Names
//! of parts after `--` run only those.
//!
//! Three questions, of which `bench/README.md` has the answers of one machine:
//! - streaming: how long an event takes against a bare publish-and-wait-for-ack over a connection of the same client, of the
//!   very same message and of one without headers;
//! - spooling: how many events a second are committed to disk with NATS away;
//! - draining: what a backlog of 100,000 events that drains does to 500 new ones a second.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use importguard_core::{EventId, OperationId};
use importguard_gateway::{
    events::{CONTENT_TYPE, Event, Subject},
    recorder::{RecordSettings, Recorded, Recorder, State},
};
use importguard_runtime::{Runtime, environment};
use importguard_telemetry::propagation::MessageHeaders;
use importguard_tests::{NatsServer, eventually};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Interleaved, so that what else the machine does meets all alike; the median of them counts.
const ROUNDS: usize = 5;

const BACKLOG: usize = 100_000;

/// New events a second, beside a drain and without.
const NEW_RATE: u64 = 500;

const LONG: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let wants = |part: &str| {
        let named = |name: &String| !name.starts_with('-');
        !wanted.iter().any(named) || wanted.iter().any(|name| name == part)
    };
    println!("load average at the start: {}", load_average());
    if wants("streaming") {
        streaming().await;
    }
    if wants("spooling") {
        spooling().await;
    }
    if wants("draining") {
        draining().await;
    }
    println!("load average at the end: {}", load_average());
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// An event of a typical import's size.
fn event(number: usize) -> Event {
    Event {
        id: EventId::new(),
        subject: Subject::Allow,
        operation_id: OperationId::parse(format!("operation-{number}")).unwrap(),
        trace: MessageHeaders {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: None,
            baggage: Some(format!("openim.operation_id=operation-{number}")),
        },
        payload: payload(),
    }
}

fn payload() -> Bytes {
    Bytes::from(vec![b'x'; 800])
}

async fn recorder(nats: &NatsServer, spool: &Path) -> Recorder {
    let (nats, spool) = (
        format!("--nats-url={}", nats.url()),
        format!("--spool={}", spool.display()),
    );
    let settings: RecordSettings = environment::parse_arguments([nats, spool]).unwrap();
    let mut runtime = Runtime::new(CancellationToken::new()).unwrap();
    let recorder = Recorder::start(settings, &mut runtime).await;
    recorder.unwrap()
}

/// On the disk of the working directory, as /tmp may be memory.
fn spool_dir() -> TempDir {
    tempfile::tempdir_in(".").unwrap()
}

async fn until(recorder: &Recorder, state: State) {
    eventually(state.into_str(), LONG, async || {
        let status = recorder.status();
        if status.state == state {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

async fn record(recorder: &Recorder, number: usize, expected: Option<Recorded>) {
    let deadline = Instant::now() + Duration::from_secs(2);
    let recorded = recorder.record(event(number), deadline).await.unwrap();
    assert!(expected.is_none_or(|expected| recorded == expected));
}

/// How long calls took, in order.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    /// In microseconds.
    fn percentile(&self, share: f64) -> f64 {
        let index = (self.0.len() - 1) as f64 * share;
        self.0[index as usize].as_secs_f64() * 1e6
    }
}

/// `count` calls by so many callers, and how long they took in all.
async fn load<F, Fut>(callers: usize, count: usize, call: F) -> (Latencies, Duration)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let callers = (0..callers).map(|_| {
        let (next, call) = (next.clone(), call.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return took;
                }
                let began = Instant::now();
                call(number).await;
                took.push(began.elapsed());
            }
        })
    });
    let mut all = Vec::with_capacity(count);
    for caller in callers.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap());
    }
    (Latencies::new(all), began.elapsed())
}

async fn publish(jetstream: jetstream::Context) {
    let ack = jetstream
        .publish(Subject::Allow.into_str(), payload())
        .await;
    ack.unwrap().await.unwrap();
}

async fn publish_the_same(jetstream: jetstream::Context, number: usize) {
    let event = event(number);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", event.id.to_string());
    headers.insert("Content-Type", CONTENT_TYPE);
    headers.insert("operationID", event.operation_id.as_str());
    headers.insert("traceparent", event.trace.traceparent.as_deref().unwrap());
    headers.insert("baggage", event.trace.baggage.as_deref().unwrap());
    let subject = event.subject.into_str();
    let ack = jetstream.publish_with_headers(subject, headers, event.payload);
    ack.await.unwrap().await.unwrap();
}

async fn streaming() {
    let (nats, spool) = (NatsServer::start().await, spool_dir());
    let recorder = recorder(&nats, spool.path()).await;
    until(&recorder, State::Streaming).await;
    let jetstream = jetstream::new(nats.client().await);
    println!("\nstreaming: microseconds, median of {ROUNDS} interleaved rounds");
    println!(
        "{:>8} | {:>19} | {:>19} | {:>19} | recorder's p50 over",
        "", "bare, no headers", "bare, same message", "recorder"
    );
    println!(
        "{:>8} | {:>9} {:>9} | {:>9} {:>9} | {:>9} {:>9} | {:>9} {:>9}",
        "callers", "p50", "p99", "p50", "p99", "p50", "p99", "no head.", "same"
    );
    for (callers, count) in [(1, 5_000), (16, 20_000), (64, 20_000), (256, 20_000)] {
        let mut rounds: [Vec<Latencies>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let context = jetstream.clone();
            let (took, _) = load(callers, count, move |_| publish(context.clone())).await;
            rounds[0].push(took);
            let context = jetstream.clone();
            let same = move |number| publish_the_same(context.clone(), number);
            rounds[1].push(load(callers, count, same).await.0);
            let recorder = recorder.clone();
            let recorded = move |number| {
                let recorder = recorder.clone();
                async move { record(&recorder, number, Some(Recorded::Streamed)).await }
            };
            rounds[2].push(load(callers, count, recorded).await.0);
        }
        let [bare, same, ours] = rounds
            .each_ref()
            .map(|all| [median(all, 0.5), median(all, 0.99)]);
        let over = |other: [f64; 2]| (ours[0] / other[0] - 1.0) * 100.0;
        println!(
            "{callers:>8} | {:>9.0} {:>9.0} | {:>9.0} {:>9.0} | {:>9.0} {:>9.0} | {:>+8.1}% {:>+8.1}%",
            bare[0],
            bare[1],
            same[0],
            same[1],
            ours[0],
            ours[1],
            over(bare),
            over(same)
        );
    }
    recorder.close(LONG).await;
}

/// Of the rounds' percentiles.
fn median(rounds: &[Latencies], share: f64) -> f64 {
    let mut all: Vec<_> = rounds.iter().map(|took| took.percentile(share)).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn spooling() {
    println!("\nspooling, with NATS away");
    println!(
        "{:>8} | {:>9} | {:>9} {:>9} µs",
        "callers", "events/s", "p50", "p99"
    );
    for callers in [1, 16, 64, 256] {
        let (nats, spool) = (NatsServer::not_started(), spool_dir());
        let recorder = recorder(&nats, spool.path()).await;
        let count = if callers == 1 { 10_000 } else { 50_000 };
        let (took, lasted) = load(callers, count, {
            let recorder = recorder.clone();
            move |number| {
                let recorder = recorder.clone();
                async move { record(&recorder, number, Some(Recorded::Spooled)).await }
            }
        })
        .await;
        println!(
            "{callers:>8} | {:>9.0} | {:>9.0} {:>9.0}",
            count as f64 / lasted.as_secs_f64(),
            took.percentile(0.5),
            took.percentile(0.99)
        );
        recorder.close(LONG).await;
    }
}

async fn draining() {
    let (mut nats, spool) = (NatsServer::start().await, spool_dir());
    let recorder = recorder(&nats, spool.path()).await;
    until(&recorder, State::Streaming).await;
    println!("\n{NEW_RATE} new events a second, beside a backlog of {BACKLOG} events");
    println!("{:>8} | {:>9} {:>9} µs", "", "p50", "p99");
    let row = |name: &str, took: Latencies| {
        let (p50, p99) = (took.percentile(0.5), took.percentile(0.99));
        println!(
            "{name:>8} | {p50:>9.0} {p99:>9.0} ({} events)",
            took.0.len()
        );
    };
    let five_seconds = |recorder: Recorder| trickle(recorder, |_, number| number < 2_500);
    row("before", five_seconds(recorder.clone()).await);

    nats.kill9();
    until(&recorder, State::Spooling).await;
    let spooled = recorder.clone();
    load(256, BACKLOG, move |number| {
        let recorder = spooled.clone();
        async move { record(&recorder, number, None).await }
    })
    .await;
    nats.restart().await;
    until(&recorder, State::Draining).await;
    let left = recorder.status().spooled_events;
    let began = Instant::now();
    let draining = |recorder: &Recorder, _| recorder.status().state == State::Draining;
    let took = trickle(recorder.clone(), draining).await;
    let lasted = began.elapsed();
    row("during", took);
    row("after", five_seconds(recorder.clone()).await);
    println!(
        "drained {left} in {:.1} s: {:.0} a second",
        lasted.as_secs_f64(),
        left as f64 / lasted.as_secs_f64()
    );
    recorder.close(LONG).await;
}

/// New events at their rate for as long as `go_on`.
async fn trickle(recorder: Recorder, go_on: impl Fn(&Recorder, usize) -> bool) -> Latencies {
    let mut clock = interval(Duration::from_micros(1_000_000 / NEW_RATE));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut under_way, mut number) = (Vec::new(), 0);
    while go_on(&recorder, number) {
        clock.tick().await;
        let recorder = recorder.clone();
        under_way.push(tokio::spawn(async move {
            let began = Instant::now();
            record(&recorder, number, None).await;
            began.elapsed()
        }));
        number += 1;
    }
    let mut took = Vec::with_capacity(under_way.len());
    for one in under_way {
        took.push(one.await.unwrap());
    }
    Latencies::new(took)
}
