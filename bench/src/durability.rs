//! What it costs to wait for the disk before a callback is answered.

use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use importguard_tests::NatsServer;

use crate::{
    cli::CommonSettings,
    load::Load,
    measure::{P50, P99, PER_SECOND, in_turns},
    system::{Place, Variant, shipped_policy},
    table::{Row, Target, figures, lines, median, print, progress, results},
};

/// Callers at once, as in the comparison with the floors.
const CALLERS: usize = 32;

/// Callbacks a second of a busy day, as in `drain`.
const MODERATE: f64 = 500.0;

/// What an event takes in the spool: a page or two of SQLite.
const PAGE_BYTES: usize = 4096;

/// As many syncs as take a fraction of a second on any disk.
const SYNCS: usize = 200;

/// A median of three rounds would be one of chance: the disk's speed varies more than the processors'.
const ROUNDS: usize = 9;

/// Measures the spool with each [`importguard_gateway::recorder::SpoolSync`], and a nats-server with `sync_interval: always` beside one
/// as shipped.
pub(crate) async fn run(settings: CommonSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings)?;
    let rounds = (settings.rounds.unwrap_or(ROUNDS), settings.seconds);
    spool(&place, rounds).await?;
    nats(&place, rounds).await
}

async fn spool(place: &Place, rounds: (usize, Duration)) -> anyhow::Result<()> {
    let (policy, mut systems) = (shipped_policy(), Vec::new());
    for sync in ["full", "normal"] {
        let name = format!("spool, {sync}");
        let variant = Variant {
            gateway: vec![
                ("IMPORTGUARD_SPOOL_SYNC", sync.to_owned()),
                // Longer than the bench runs at any speed.
                ("IMPORTGUARD_SPOOL_MAX_BYTES", "64GiB".to_owned()),
            ],
            ..Variant::shipped(&name, &policy)
        };
        let mut system = place.importguard(variant).await?;
        system.parts.retain(|(role, _)| *role != "nats");
        systems.push(system);
    }
    let sync = sync_micros(place)?;
    progress(format!("a page and an fdatasync take {sync:.0} µs"));
    let many = in_turns(&mut systems, 2, Load::closed(CALLERS), rounds).await?;
    let alone = in_turns(&mut systems, 2, Load::closed(1), rounds).await?;
    print(figures(&[many.clone(), alone.clone()].concat()))?;
    let found: Vec<_> = by_round(&many)
        .zip(by_round(&alone))
        .map(|([full, normal], [lone_full, lone_normal])| {
            [
                full(PER_SECOND) / normal(PER_SECOND),
                (lone_full(P50) - lone_normal(P50)) / sync,
                sync,
            ]
        })
        .collect();
    let titles = [
        (
            "throughput, full / normal, 32 callers",
            Target::AtLeast(0.8),
        ),
        (
            "a lone caller's p50, full − normal, in fdatasyncs",
            Target::AtMost(2.0),
        ),
        ("an fdatasync of a page, µs", Target::None),
    ];
    Ok(print(results(
        "the spool, NATS away",
        &lines(titles, &found),
    ))?)
}

async fn nats(place: &Place, rounds: (usize, Duration)) -> anyhow::Result<()> {
    let Some(program) = NatsServer::current() else {
        progress("nats-server is older than 2.10 and knows no sync_interval (NATS_SERVER_CURRENT)");
        return Ok(());
    };
    let config = place.dir.path().join("always.conf");
    std::fs::write(&config, "jetstream { sync_interval: always }\n")?;
    let always = format!("--config={}", config.display());
    let (policy, mut systems) = (shipped_policy(), Vec::new());
    for (name, more) in [("NATS, always", always.as_str()), ("NATS, as shipped", "")] {
        let variant = Variant {
            nats: (&program, more),
            ..Variant::shipped(name, &policy)
        };
        systems.push(place.importguard(variant).await?);
    }
    let many = in_turns(&mut systems, 2, Load::closed(CALLERS), rounds).await?;
    let paced = in_turns(&mut systems, 2, Load::paced(MODERATE), rounds).await?;
    print(figures(&[many.clone(), paced.clone()].concat()))?;
    let found: Vec<_> = by_round(&many)
        .zip(by_round(&paced))
        .map(|([always, shipped], [paced_always, _])| {
            [
                always(PER_SECOND),
                always(PER_SECOND) / shipped(PER_SECOND),
                paced_always(P99) / 1e3,
            ]
        })
        .collect();
    let titles = [
        ("callbacks a second, 32 callers", Target::None),
        ("… as a share of those as shipped", Target::None),
        ("p99 at 500 callbacks a second, ms", Target::None),
    ];
    Ok(print(results(
        "nats-server with sync_interval: always",
        &lines(titles, &found),
    ))?)
}

/// The figures of two systems in each round.
fn by_round(rows: &[Row]) -> impl Iterator<Item = [impl Fn(&str) -> f64; 2]> {
    let rounds = rows.first().map_or(0, |row| row.rounds.len());
    (0..rounds)
        .map(move |round| [0, 1].map(|row| move |column: &str| rows[row].rounds[round].get(column)))
}

/// How long it takes to append a page to a file and to have it on the disk, in microseconds.
fn sync_micros(place: &Place) -> anyhow::Result<f64> {
    let mut file = File::create(place.dir.path().join("sync"))?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0x5a; PAGE_BYTES])?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(took))
}
