//! The comparison: importguard and the two floors, in a closed loop and at half of the floor's capacity.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    cli::CompareSettings,
    load::{Expected, Load, Question},
    measure::{P99, PER_SECOND, in_turns},
    system::{FLOOR, LEAN, Place, System, Variant, free, last_event_bytes, shipped_policy},
    table::{Line, Measured, Row, Target, figures, lines, print, progress, results},
    usage::memory,
};

/// At which share of the floor's capacity latencies are compared. At 80 % the floor's own queue grew in some rounds, to a p99 of
/// 300 ms, as client, gateway, decider and NATS share two cores.
const PACE: f64 = 0.5;

/// The system that has targets, and the connections of the closed loop at which it has them.
const IMPORTGUARD: &str = "importguard, traces 10 %";
const CONNECTIONS: usize = 32;

/// A policy as small as can be.
const NO_LISTS: &str = "apiVersion: importguard/v1\nname: rest\nrules: []\n";

/// The first start also reads the program from disk, so it does not count.
const STARTS: usize = 6;

/// How long a process is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// Runs the comparison and prints its tables.
pub(crate) async fn run(settings: CompareSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings.common)?;
    let alone = at_rest(&place).await?;
    let mut systems = start(&place, &settings).await?;
    let (length, rounds) = (settings.common.seconds, settings.common.rounds);
    let rounds = rounds.unwrap_or(if settings.quick { 3 } else { 9 });
    let mut rows = Vec::new();
    for friends in &settings.friends {
        for connections in &settings.concurrency {
            let load = Load::closed(*connections);
            rows.extend(in_turns(&mut systems, *friends, load, (rounds, length)).await?);
        }
    }
    for friends in &settings.friends {
        if let Some(floor) = find(&rows, FLOOR, *friends, Load::closed(CONNECTIONS)) {
            let capacity = Measured::median(&floor.rounds).get(PER_SECOND);
            let load = Load::paced(capacity * PACE);
            // A 99th percentile wants many.
            let rounds = (rounds, length * 2);
            rows.extend(in_turns(&mut systems, *friends, load, rounds).await?);
        }
    }
    join_all(systems.into_iter().map(System::stop)).await;
    print(figures(&rows))?;
    let ours = rows.iter().filter(|row| row.system == IMPORTGUARD);
    let beside = ours.flat_map(|ours| beside_the_floors(&rows, ours));
    let lines: Vec<Line> = beside.chain(alone).collect();
    Ok(print(results("the shipped policy, traces 10 %", &lines))?)
}

async fn start(place: &Place, settings: &CompareSettings) -> anyhow::Result<Vec<System>> {
    progress("starting the systems");
    let policy = shipped_policy();
    // A floor's event is as large as importguard's.
    let sample = place
        .importguard(Variant::shipped("sample", &policy))
        .await?;
    let body = Question::new(sample.address, 2, Expected::Allow).body.len();
    let extra = last_event_bytes(sample.nats).await?.saturating_sub(body);
    let mut systems = Vec::new();
    for name in &settings.only {
        match name.as_str() {
            FLOOR | LEAN => systems.push(place.floor(name, extra).await?),
            _ => {
                for traces in &settings.traces {
                    let name = format!("importguard, traces {traces} %");
                    let variant = Variant {
                        traces: *traces,
                        ..Variant::shipped(&name, &policy)
                    };
                    systems.push(place.importguard(variant).await?);
                }
            }
        }
    }
    Ok(systems)
}

/// Starts a decider without lists, and a gateway beside it, a few times: how soon they are ready, and what they hold then.
async fn at_rest(place: &Place) -> anyhow::Result<Vec<Line>> {
    progress("start-up time, and memory at rest");
    let policy = place.dir.path().join("no-lists.yaml");
    fs::write(&policy, NO_LISTS)?;
    let [nats_at] = free();
    let _nats = place.nats("rest", nats_at).await;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let (decider, [grpc, _]) = place.decider("rest", &policy, Vec::new()).await;
        let decider_ready = began.elapsed().as_secs_f64() * 1e3;
        let began = Instant::now();
        let url = format!("http://{grpc}");
        let (gateway, _) = place.gateway("rest", url, nats_at, Vec::new()).await;
        let gateway_ready = began.elapsed().as_secs_f64() * 1e3;
        sleep(REST).await;
        let (gateway, decider) = (memory(gateway.id())?.0, memory(decider.id())?.0);
        starts.push([gateway, decider, gateway_ready, decider_ready]);
    }
    let titles = [
        ("gateway at rest, MiB", Target::AtMost(40.0)),
        ("decider at rest, no lists, MiB", Target::AtMost(25.0)),
        ("gateway, start to ready, ms", Target::AtMost(50.0)),
        ("decider, start to ready, ms", Target::AtMost(50.0)),
    ];
    Ok(lines(titles, &starts[1..]))
}

/// A row of importguard beside the floors' rows, round by round: neighbours in time, so that what else happens on the machine affects
/// both.
fn beside_the_floors(rows: &[Row], ours: &Row) -> Vec<Line> {
    let (friends, load) = (ours.friends, ours.load);
    let other = |system, round: usize| match find(rows, system, friends, load) {
        Some(row) => row.rounds[round].clone(),
        None => Measured::default(),
    };
    let mut found = Vec::new();
    for (round, ours) in ours.rounds.iter().enumerate() {
        let [floor, lean] = [FLOOR, LEAN].map(|system| other(system, round));
        let speed = |of: &Measured| of.get(PER_SECOND);
        found.push([
            speed(ours) / speed(&floor),
            speed(ours) / speed(&lean),
            ours.pods(),
            ours.pods() - floor.pods(),
            ours.pods() - lean.pods(),
            ours.get(P99) / floor.get(P99),
        ]);
    }
    let at = format!("{friends} friends, {load}");
    let target = |applies, target| if applies { target } else { Target::None };
    let closed = load == Load::closed(CONNECTIONS);
    let [floor, lean] = [1.0, 0.85].map(|least| target(closed, Target::AtLeast(least)));
    // What each friend costs more is in the throughput.
    let over = target(closed && friends == 2, Target::AtMost(25.0));
    let titles = [
        (format!("throughput / floor, {at}"), floor),
        (format!("throughput / lean floor, {at}"), lean),
        (format!("CPU µs of both pods, {at}"), Target::None),
        (format!("… over the floor's, {at}"), over),
        (format!("… over the lean floor's, {at}"), Target::None),
        (format!("p99 / floor's, {at}"), Target::AtMost(1.5)),
    ];
    let mut lines = lines(titles, &found);
    let paced = lines.split_off(5);
    if load.rate.is_some() { paced } else { lines }
}

fn find<'a>(rows: &'a [Row], system: &str, friends: usize, load: Load) -> Option<&'a Row> {
    let mut rows = rows.iter();
    rows.find(|row| row.system == system && row.friends == friends && row.load == load)
}
