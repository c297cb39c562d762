//! What live lists cost: many entries, changes on several deciders, and changes beside callbacks.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use async_nats::jetstream;
use futures_util::{StreamExt, stream};
use importguard_core::EventId;
use importguard_lists::{Addition, Author, Bucket, Entry, Key, ListName, Reason, Writer};
use importguard_tests::{DecideClient, Process};
use time::OffsetDateTime;
use tokio::{
    process::Command,
    time::{interval, sleep},
};

use crate::{
    cli::{ChangesSettings, ListsSettings},
    load::Load,
    measure::{P50, P99, lasting, measure},
    system::{Place, System, Variant, readiness, shipped_policy, until_ready},
    table::{Row, Target, figures, lines, print, progress, results},
    usage::memory,
};

/// The list's name in the bucket and in the policy.
const LIST: &str = "blocked";

/// Callbacks a second of a busy day, as in `drain`.
const MODERATE: f64 = 500.0;

/// How long is measured with and without changes: so that a p99 is the 50th of 5,000.
const LENGTH: Duration = Duration::from_secs(10);

/// Writes of entries that wait for their acknowledgements at once. async-nats allows 5,000.
const IN_FLIGHT: usize = 2_000;

/// Changes with their events that are written at once by the load.
const WRITERS: usize = 64;

/// Deciders that must see each change.
const DECIDERS: usize = 3;

/// How long a decider may take to read everything.
const READ: Duration = Duration::from_secs(120);

/// Small beside the latencies that are measured.
const POLL: Duration = Duration::from_millis(1);

/// The width of an ID: "banned" and ten digits.
const ID_BYTES: f64 = 16.0;

/// Measures entries in memory, cold starts, how fast changes reach three deciders, and callbacks beside changes.
pub(crate) async fn run(settings: ListsSettings) -> anyhow::Result<()> {
    let place = Place::new(&settings.common)?;
    let commands = place.commands()?;
    let policy = live_policy(place.dir.path())?;
    let shipped = shipped_policy();
    let without = place
        .importguard(Variant::shipped("without live lists", &shipped))
        .await?;
    let with = Variant {
        live: true,
        ..Variant::shipped("live lists", &policy)
    };
    let with = place.importguard(with).await?;
    progress(format!("writing {} entries", settings.entries));
    fill(with.nats, settings.entries).await?;
    let mut deciders = cold_starts(&place, &policy, with.nats, settings.entries).await?;
    reach(&commands, with.nats, &mut deciders, settings.additions).await?;
    drop(deciders);
    beside_changes(&place, [without, with], &settings).await
}

/// A policy like the shipped one, whose list is live as well.
fn live_policy(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let dir = dir.join("live");
    fs::create_dir_all(dir.join("lists"))?;
    let text = fs::read_to_string(shipped_policy())?;
    let live = text.replace(
        "{ file: lists/blocked.txt }",
        "{ file: lists/blocked.txt, live: blocked }",
    );
    ensure!(live != text, "the shipped policy has another list");
    fs::write(dir.join("lists/blocked.txt"), "blocked_user\n")?;
    let policy = dir.join("policy.yaml");
    fs::write(&policy, live)?;
    Ok(policy)
}

/// Writes entries, none of which is asked for.
async fn fill(nats: SocketAddr, entries: u64) -> anyhow::Result<()> {
    let jetstream = jetstream::new(async_nats::connect(nats.to_string()).await?);
    Bucket::open_or_create(&jetstream, 1).await?;
    let writes = stream::iter(0..entries).map(|number| {
        let jetstream = &jetstream;
        async move {
            let (key, addition) = (key(number)?, addition(number)?);
            let entry = Entry {
                by: addition.by,
                reason: addition.reason,
                at: addition.at,
                until: addition.until,
                removed: false,
                event: addition.event,
                replaces: None,
            };
            let subject = format!("$KV.IMPORTGUARD_LISTS.{key}");
            let ack = jetstream.publish(subject, entry.to_value()?.into()).await?;
            ack.await?;
            anyhow::Ok(())
        }
    });
    let mut writes = writes.buffer_unordered(IN_FLIGHT);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

fn key(number: u64) -> anyhow::Result<Key> {
    Ok(Key::new(
        ListName::parse(LIST)?,
        &format!("banned{number:010}"),
    )?)
}

/// An entry for a week, with one of a hundred reasons.
fn addition(number: u64) -> anyhow::Result<Addition> {
    let at = OffsetDateTime::now_utc();
    Ok(Addition {
        by: Author::parse("detector")?,
        reason: Some(Reason::parse(&format!("case {}", number % 100))?),
        at,
        until: Some(at + Duration::from_secs(7 * 24 * 3600)),
        removed: false,
        event: EventId::new(),
    })
}

/// A decider with the addresses for calls and of its admin listener.
type Decider = (Process, [SocketAddr; 2]);

/// Starts three deciders one after the other, and prints how long each took until it had read everything, and its memory.
async fn cold_starts(
    place: &Place,
    policy: &Path,
    nats: SocketAddr,
    entries: u64,
) -> anyhow::Result<Vec<Decider>> {
    let empty = place.decider("empty", &shipped_policy(), Vec::new()).await;
    sleep(Duration::from_secs(1)).await;
    let empty_mib = memory(empty.0.id())?.0;
    drop(empty);
    let (mut deciders, mut rounds) = (Vec::new(), Vec::new());
    for number in 1..=DECIDERS {
        progress(format!("cold start {number}"));
        let began = Instant::now();
        let variables = vec![("NATS_URL", format!("nats://{nats}"))];
        let name = format!("cold-{number}");
        let mut decider = place.decider(&name, policy, variables).await;
        let admin = decider.1[1];
        until_ready(&mut decider.0, async || {
            ensure!(began.elapsed() < READ, "it still reads");
            let lists = readiness(admin, "liveLists").await?;
            ensure!(lists["current"] == true, "{lists}");
            ensure!(lists["entries"].as_u64() >= Some(entries), "{lists}");
            Ok(())
        })
        .await;
        let took = began.elapsed().as_secs_f64();
        sleep(Duration::from_secs(2)).await;
        let (resident, peak) = memory(decider.0.id())?;
        let each = (resident - empty_mib) * 1024.0 * 1024.0 / entries as f64;
        rounds.push([took, each - ID_BYTES, resident, peak]);
        deciders.push(decider);
    }
    let titles = [
        ("cold start, s", Target::AtMost(10.0)),
        ("bytes for an entry, beside its ID", Target::AtMost(80.0)),
        ("resident, MiB", Target::None),
        ("peak, MiB", Target::None),
    ];
    let title = format!("{entries} live entries");
    print(results(&title, &lines(titles, &rounds)))?;
    Ok(deciders)
}

/// Adds users by `importguard list add`, and prints how long it takes from its start until all deciders refuse them.
async fn reach(
    commands: &Path,
    nats: SocketAddr,
    deciders: &mut [Decider],
    additions: u64,
) -> anyhow::Result<()> {
    progress(format!("{additions} additions"));
    let clients: Vec<_> = deciders
        .iter()
        .map(|(_, [grpc, _])| DecideClient::at(format!("http://{grpc}")))
        .collect();
    let mut took = Vec::new();
    for number in 0..additions {
        let id = format!("added{number}");
        let began = Instant::now();
        let mut add = Command::new(commands);
        add.args([
            "list",
            "add",
            LIST,
            &id,
            "--for",
            "1h",
            "--because",
            "bench",
            "--by",
            "bench",
        ]);
        add.env_clear().env("NATS_URL", format!("nats://{nats}"));
        let mut add = add.stdout(Stdio::null()).spawn()?;
        for client in &clients {
            while !client.refuses(&id).await? {
                ensure!(began.elapsed() < READ, "{id} is never refused");
                sleep(POLL).await;
            }
        }
        took.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(add.wait().await?.success(), "importguard list add failed");
    }
    took.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied();
    let last = took.last().copied();
    let rounds = [[at(0.5), at(0.99), last].map(|found| found.unwrap_or(f64::NAN))];
    let titles = [
        ("median, ms", Target::None),
        ("p99, ms", Target::AtMost(500.0)),
        ("greatest, ms", Target::None),
    ];
    let title = format!("from the start of `list add` to the verdict of all {DECIDERS} deciders");
    Ok(print(results(&title, &lines(titles, &rounds)))?)
}

/// Measures callbacks without live lists, and with many and changes all the time, in turns.
async fn beside_changes(
    place: &Place,
    [mut without, mut with]: [System; 2],
    settings: &ListsSettings,
) -> anyhow::Result<()> {
    let load = Load::paced(MODERATE);
    let name = format!("live lists, {} changes/s", settings.rate);
    let mut rows = ["without live lists", &name].map(|name| Row::new(name, 2, load));
    let (mut rounds, length) = (Vec::new(), settings.common.seconds.max(LENGTH));
    for number in 1..=settings.common.rounds.unwrap_or(3) {
        progress(format!("round {number}"));
        let (before, _) = measure(&mut without, 2, load, lasting(length)).await?;
        let args = format!(
            "changes --nats={} --rate={} --entries={}",
            with.nats, settings.rate, settings.entries
        );
        let changes = place.own("changes", &args)?;
        let (made, began) = (changed(with.nats).await?, Instant::now());
        let (during, _) = measure(&mut with, 2, load, lasting(length)).await?;
        let made = (changed(with.nats).await? - made) as f64 / began.elapsed().as_secs_f64();
        drop(changes);
        let ratio = |column| during.get(column) / before.get(column);
        rounds.push([ratio(P50), ratio(P99), made]);
        let measured = rows.iter_mut().zip([before, during]);
        measured.for_each(|(row, measured)| row.rounds.push(measured));
    }
    print(figures(&rows))?;
    let titles = [
        ("p50 with changes / without", Target::None),
        ("p99 with changes / without", Target::AtMost(2.0)),
        ("changes a second", Target::None),
    ];
    Ok(print(results(
        "callbacks beside changes",
        &lines(titles, &rounds),
    ))?)
}

/// How many changes the bucket ever had.
async fn changed(nats: SocketAddr) -> anyhow::Result<u64> {
    let jetstream = jetstream::new(async_nats::connect(nats.to_string()).await?);
    let bucket = Bucket::open(&jetstream).await?;
    Ok(bucket.state_when_opened().last)
}

/// Changes entries, with an event each as the commands do, until it is killed.
pub(crate) async fn change(settings: ChangesSettings) -> anyhow::Result<()> {
    let client = async_nats::connect(settings.nats.to_string()).await?;
    let bucket = Bucket::open(&jetstream::new(client)).await?;
    let writer = Writer::new(bucket);
    let ticks = interval(Duration::from_secs(1) / settings.rate);
    let changes = stream::unfold(ticks, |mut ticks| async {
        ticks.tick().await;
        Some((fastrand::u64(..settings.entries), ticks))
    });
    changes
        .map(|number| {
            let writer = &writer;
            async move {
                writer.write(&key(number)?, &addition(number)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(WRITERS)
        .fold(Ok(()), async |before, written| before.and(written))
        .await
        .context("the lists cannot be changed")
}
