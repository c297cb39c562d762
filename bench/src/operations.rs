//! What an operator may have much of: deciders, IDs in lists, events in the spool, and callbacks.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::time::sleep;

use crate::{
    cli::{CommonSettings, OverloadSettings},
    load::Load,
    measure::{FALLBACKS, P50, P99, PER_SECOND, in_turns, lasting, measure},
    system::{Place, System, Variant, recorder, shipped_policy},
    table::{Row, Target, figures, lines, print, progress, results},
    usage::memory,
};

/// Enough to keep two cores busy, and far from the gateway's limits.
const LOAD: usize = 32;

/// Callbacks a second of a busy day, as in `gateway/benches/recorder.rs`.
const MODERATE: f64 = 500.0;

/// How long is measured before and after a drain, at least: so that a p99 at the moderate pace is the 25th of 2,500.
const LENGTH: Duration = Duration::from_secs(5);

/// Events in the spool when NATS comes back.
const BACKLOG: f64 = 100_000.0;

/// How often the spool is looked at. Each look costs the gateway a tenth of a millisecond.
const POLL: Duration = Duration::from_millis(50);

/// How long the gateway may take to notice that NATS is back: it tries every few seconds.
const BACK: Duration = Duration::from_secs(30);

/// With 128 requests at once, the default of `IMPORTGUARD_MAX_IN_FLIGHT`, every place is taken and none waits for one.
const AT_CAPACITY: Load = Load {
    http2: true,
    clients: 128,
    rate: None,
};

/// All streams of all connections (`IMPORTGUARD_HTTP2_MAX_STREAMS` allows 100 on each): more than the gateway has room for callbacks, which
/// is for 8,000 small ones by `IMPORTGUARD_MAX_BYTES_IN_FLIGHT`.
const FLOOD_STREAMS: usize = 10_000;

/// Measures how the cost of a decision grows with deciders and with a list's size.
pub(crate) async fn scale(settings: CommonSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings)?;
    let mut systems = Vec::new();
    for count in [1, 2, 3] {
        let (name, policy) = (format!("deciders: {count}"), shipped_policy());
        let variant = Variant {
            deciders: count,
            ..Variant::shipped(&name, &policy)
        };
        systems.push(place.importguard(variant).await?);
    }
    for ids in [1_000, 100_000, 1_000_000] {
        // The shipped policy with so many IDs in its list, none of which is asked for; `blocked_user` stays.
        let dir = place.dir.path().join(format!("policy-{ids}"));
        let policy = dir.join("policy.yaml");
        fs::create_dir_all(dir.join("lists"))?;
        fs::copy(shipped_policy(), &policy)?;
        let mut list = String::from("blocked_user\n");
        (1..ids).try_for_each(|number| writeln!(list, "banned{number:010}"))?;
        fs::write(dir.join("lists/blocked.txt"), list)?;
        let name = format!("{ids} IDs in the list");
        systems.push(place.importguard(Variant::shipped(&name, &policy)).await?);
    }
    let (mut rows, rounds) = (Vec::new(), (settings.rounds.unwrap_or(3), settings.seconds));
    for friends in [2, 1_000] {
        rows.extend(in_turns(&mut systems, friends, Load::closed(LOAD), rounds).await?);
    }
    Ok(print(figures(&rows))?)
}

/// Measures 500 callbacks a second before NATS is gone, beside the spool while it drains, and after.
pub(crate) async fn drain(settings: CommonSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings)?;
    let policy = shipped_policy();
    let mut system = place
        .importguard(Variant::shipped("drain", &policy))
        .await?;
    let admin = system.admin.context("importguard has an admin listener")?;
    let load = Load::paced(MODERATE);
    let phases = ["before", "while it drains", "after"];
    let mut rows = phases.map(|phase| Row::new(phase, 2, load));
    let (mut rounds, length) = (Vec::new(), settings.seconds.max(LENGTH));
    for number in 1..=settings.rounds.unwrap_or(3) {
        progress(format!("round {number}"));
        let (before, _) = measure(&mut system, 2, load, lasting(length)).await?;
        back_up(&place, &mut system).await?;
        let mut drained = f64::NAN;
        let drain = async {
            let (began, waiting) = (Instant::now(), spooled(admin).await?);
            while spooled(admin).await? > 0.0 {
                sleep(POLL).await;
            }
            drained = waiting / began.elapsed().as_secs_f64();
            Ok(())
        };
        let (during, _) = measure(&mut system, 2, load, drain).await?;
        let (after, _) = measure(&mut system, 2, load, lasting(length)).await?;
        let ratio = |column| during.get(column) / before.get(column);
        rounds.push([ratio(P50), ratio(P99), drained]);
        let measured = rows.iter_mut().zip([before, during, after]);
        measured.for_each(|(row, measured)| row.rounds.push(measured));
    }
    system.stop().await;
    print(figures(&rows))?;
    let titles = [
        ("p50 while it drains / before", Target::None),
        ("p99 while it drains / before", Target::AtMost(2.0)),
        ("events drained a second", Target::None),
    ];
    Ok(print(results("the spool", &lines(titles, &rounds)))?)
}

/// Fills the spool while NATS is gone, and returns when NATS is back and the spool drains.
async fn back_up(place: &Place, system: &mut System) -> anyhow::Result<()> {
    let admin = system.admin.context("importguard has an admin listener")?;
    system.parts.retain(|(role, _)| *role != "nats");
    let filled = async {
        while spooled(admin).await? < BACKLOG {
            sleep(POLL).await;
        }
        Ok(())
    };
    measure(system, 2, Load::closed(LOAD), filled).await?;
    let nats = place.nats("drain", system.nats).await;
    system.parts.push(("nats", nats));
    let began = Instant::now();
    while recorder(admin).await?["state"] == "spooling" {
        ensure!(began.elapsed() < BACK, "it keeps spooling");
        sleep(POLL).await;
    }
    Ok(())
}

/// How many events are in the gateway's spool.
async fn spooled(admin: SocketAddr) -> anyhow::Result<f64> {
    let events = recorder(admin).await?["spooledEvents"].as_f64();
    events.context("/readyz says nothing of the spool")
}

/// Measures importguard at its capacity, at twice that, and at its capacity again.
pub(crate) async fn overload(settings: OverloadSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings.common)?;
    let policy = shipped_policy();
    let mut system = place
        .importguard(Variant::shipped("overload", &policy))
        .await?;
    let pods: HashMap<_, _> = system.processes().collect();
    let (gateway, decider) = (pods["gateway"], pods["decider"]);
    let phases = ["at capacity", "at twice the capacity", "at capacity again"];
    let mut rows = phases.map(|phase| Row::new(phase, 2, AT_CAPACITY));
    let mut rounds = Vec::new();
    for number in 1..=settings.common.rounds.unwrap_or(3) {
        progress(format!("round {number}"));
        let length = settings.common.seconds;
        let (before, _) = measure(&mut system, 2, AT_CAPACITY, lasting(length)).await?;
        let capacity = before.get(PER_SECOND);
        let load = Load {
            clients: FLOOD_STREAMS,
            rate: Some(capacity * 2.0),
            ..AT_CAPACITY
        };
        // In its first half each connection's buffers come into being; later growth would be a leak or a queue.
        let (half, mut growth) = (settings.overload_seconds / 2, f64::NAN);
        let flood = async {
            let resident = || anyhow::Ok(memory(gateway)?.0 + memory(decider)?.0);
            lasting(half).await?;
            let then = resident()?;
            lasting(half).await?;
            growth = resident()? / then;
            Ok(())
        };
        let (flooded, answers) = measure(&mut system, 2, load, flood).await?;
        let (after, _) = measure(&mut system, 2, AT_CAPACITY, lasting(length)).await?;
        let sent = answers.latencies.len() as u64 + answers.fallbacks + answers.lost;
        rounds.push([
            flooded.get(PER_SECOND) / capacity,
            flooded.get(P99) / 1e3,
            answers.unsent as f64 * 100.0 / (answers.unsent + sent) as f64,
            answers.lost as f64,
            growth,
            after.get(PER_SECOND) / capacity,
            after.get(FALLBACKS),
        ]);
        rows[1].load = load;
        let measured = rows.iter_mut().zip([before, flooded, after]);
        measured.for_each(|(row, measured)| row.rounds.push(measured));
    }
    let titles = [
        ("decided / capacity", Target::AtLeast(0.8)),
        ("p99 of decisions, ms", Target::AtMost(1_000.0)),
        ("not sent, as no stream was free, %", Target::None),
        ("lost with their connection", Target::AtMost(0.0)),
        ("pods' memory, end / half-way", Target::AtMost(1.1)),
        ("throughput right after / before", Target::None),
        ("fallbacks right after, %", Target::AtMost(0.0)),
    ];
    system.stop().await;
    print(figures(&rows))?;
    Ok(print(results("overload", &lines(titles, &rounds)))?)
}
