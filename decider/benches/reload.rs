//! Measures request latency while a long list is reloaded: `cargo bench -p importguard-decider --bench reload`. Calls a decider
//! on loopback at a steady rate, without and with a list of a million IDs being replaced repeatedly. Prints latencies and memory;
//! it asserts none of them, as it would fail on a busy machine.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use importguard_decider::{Decider, Settings};
use importguard_proto::decider::{DecideRequest, decider_client::DeciderClient};
use importguard_runtime::{Runtime, SharedRegistry, environment::parse_arguments};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

// As in the decider's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IDS: usize = 1_000_000;
const CALLERS: u32 = 4;
/// Interval per caller: 400 requests per second in total, a tenth of the capacity of one small core.
const EVERY: Duration = Duration::from_millis(10);
const PHASE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

const POLICY: &str = "apiVersion: importguard/v1
name: bench
lists: { blocked: { file: blocked.txt } }
rules:
  - id: blocked-friends
    dropFriends: { in: blocked }
";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    // Created once, as this costs more than the reload that is measured.
    let ids: Arc<str> = (0..IDS).map(|n| id(n) + "\n").collect::<String>().into();
    write_list(dir.path(), &ids, 0);
    let mut settings: Settings = parse_arguments([""; 0]).unwrap();
    let nats = parse_arguments([""; 0]).unwrap();
    settings.policy.policy = dir.path().join("policy.yaml");
    settings.policy.reload_interval = Duration::from_millis(100);
    settings.grpc.decider_listen = "127.0.0.1:0".parse().unwrap();
    let shutdown = CancellationToken::new();
    let mut runtime = Runtime::new(shutdown.clone()).unwrap();
    let registry = runtime.registry.clone();
    let decider = Decider::start(&settings, &nats, &mut runtime)
        .await
        .unwrap();
    let listener = TcpListener::bind(settings.grpc.decider_listen)
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(runtime.run(decider.serve(listener, shutdown.clone())));
    let client = DeciderClient::connect(url).await.unwrap();

    println!(
        "resident with one list of {IDS} ids: {} MiB",
        resident_mib()
    );
    for round in 1..=ROUNDS {
        let quiet = ask(&client).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(replace_lists(
            dir.path().to_owned(),
            ids.clone(),
            stop.clone(),
        ));
        let reloading = ask(&client).await;
        stop.cancel();
        let written = writer.await.unwrap();
        let twice = 2 * percentile(&quiet, 99.0);
        let over = reloading.iter().filter(|&&took| took > twice).count();
        println!(
            "round {round}: lists written {written}, reloads so far {}",
            reloads(&registry)
        );
        print_latencies("without reload", &quiet);
        print_latencies("with reloads", &reloading);
        let noise = quiet.iter().filter(|&&took| took > twice).count();
        println!(
            "  above twice the p99 without reload: {noise} of {} without, {over} of {} with",
            quiet.len(),
            reloading.len()
        );
    }
    sleep(Duration::from_secs(2)).await;
    println!("resident at the end: {} MiB", resident_mib());
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

/// Calls from all callers for one phase; returns the sorted latencies.
async fn ask(client: &DeciderClient<Channel>) -> Vec<Duration> {
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| tokio::spawn(ask_steadily(client.clone())))
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.unwrap());
    }
    all.sort();
    all
}

async fn ask_steadily(mut client: DeciderClient<Channel>) -> Vec<Duration> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::new();
    let start = Instant::now();
    while start.elapsed() < PHASE {
        ticks.tick().await;
        let asked = Instant::now();
        let question = DecideRequest {
            decision_id: "bench".to_owned(),
            owner_user_id: "owner".to_owned(),
            friend_user_ids: vec!["friend".to_owned(), id(7)],
        };
        let mut request = Request::new(question);
        let id = MetadataValue::from_static("bench");
        request.metadata_mut().insert("operationid", id);
        client.decide(request).await.unwrap();
        took.push(asked.elapsed());
    }
    took
}

async fn replace_lists(dir: PathBuf, ids: Arc<str>, stop: CancellationToken) -> usize {
    let mut written = 0;
    while !stop.is_cancelled() {
        written += 1;
        let (dir, ids) = (dir.clone(), ids.clone());
        tokio::task::spawn_blocking(move || write_list(&dir, &ids, written))
            .await
            .unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    written
}

fn write_list(dir: &Path, ids: &str, revision: usize) {
    let file = dir.join("blocked.new");
    fs::write(&file, ids).unwrap();
    let mut end = fs::OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(end, "revision_{revision}").unwrap();
    fs::rename(file, dir.join("blocked.txt")).unwrap();
}

fn id(n: usize) -> String {
    format!("u{n:015}")
}

fn percentile(sorted: &[Duration], per_cent: f64) -> Duration {
    let last = sorted.len() - 1;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let index = (last as f64 * per_cent / 100.0).round() as usize;
    sorted[index.min(last)]
}

fn print_latencies(what: &str, sorted: &[Duration]) {
    println!(
        "  {what:<15} n {:>5}  p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}",
        sorted.len(),
        percentile(sorted, 50.0),
        percentile(sorted, 99.0),
        percentile(sorted, 100.0)
    );
}

fn reloads(registry: &SharedRegistry) -> f64 {
    let text = registry.encode(None).unwrap().text;
    let series = text
        .lines()
        .filter(|line| line.starts_with("importguard_policy_reloads_total{"));
    let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.sum()
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}
