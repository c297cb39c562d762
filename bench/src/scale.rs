//! How the cost of a decision grows with what an operator may have more of, and what becomes of callbacks when there is too much.

mod drain;
mod overload;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use self::{drain::drain, overload::overload};
use crate::{
    cli::{Curve, ScaleSettings, Traces},
    machine,
    measure::{Measured, measure, verify},
    system::{Options, Place, Role, System, shipped_policy},
    table::{figure, print, progress},
};

/// Enough to keep two cores busy, and far from the gateway's limits.
const CONNECTIONS: usize = 32;

const DECIDERS: [usize; 3] = [1, 2, 3];
const LISTS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
const FRIENDS: [usize; 8] = [1, 10, 50, 100, 500, 1_000, 5_000, 10_000];

/// The many friends whose cost is compared beside the usual two.
const MANY: usize = 1_000;

/// Runs the curves and prints a table for each.
pub(crate) async fn run(settings: ScaleSettings) -> anyhow::Result<()> {
    let (mut place, _dir) = Place::new(&settings.set_up)?;
    print(machine::describe())?;
    for curve in &settings.only {
        print(match curve {
            Curve::Deciders => deciders(&mut place, &settings).await?,
            Curve::List => lists(&mut place, &settings).await?,
            Curve::Friends => friends(&mut place, &settings).await?,
            Curve::Drain => drain(&mut place, &settings).await?,
            Curve::Overload => overload(&mut place, &settings).await?,
        })?;
    }
    Ok(())
}

async fn deciders(place: &mut Place, settings: &ScaleSettings) -> anyhow::Result<String> {
    let mut points = Vec::new();
    for deciders in DECIDERS {
        let options = Options {
            deciders,
            ..Options::shipped(format!("deciders-{deciders}"), Traces::Off)
        };
        points.push(Point::start(place, deciders, &options, &[2, MANY]).await?);
    }
    curve("deciders, friends", points, settings).await
}

async fn lists(place: &mut Place, settings: &ScaleSettings) -> anyhow::Result<String> {
    let mut points = Vec::new();
    for ids in LISTS {
        let options = Options {
            policy: policy_with_list(&place.dir, ids)?,
            ..Options::shipped(format!("list-{ids}"), Traces::Off)
        };
        points.push(Point::start(place, ids, &options, &[2, MANY]).await?);
    }
    curve("ids in the list, friends", points, settings).await
}

async fn friends(place: &mut Place, settings: &ScaleSettings) -> anyhow::Result<String> {
    let options = Options::shipped("friends", Traces::Off);
    let point = Point::start(place, 1, &options, &FRIENDS).await?;
    curve("deciders, friends", vec![point], settings).await
}

/// A system with so much of something, and with how many friends it is asked.
struct Point<'a> {
    much: usize,
    system: System,
    friends: &'a [usize],
}

impl<'a> Point<'a> {
    async fn start(
        place: &mut Place,
        much: usize,
        options: &Options,
        friends: &'a [usize],
    ) -> anyhow::Result<Self> {
        let mut system = place.importguard(options, None).await?;
        verify(&mut system).await?;
        Ok(Self {
            much,
            system,
            friends,
        })
    }
}

/// Measures the points in turns, round by round.
async fn curve(
    what: &str,
    mut points: Vec<Point<'_>>,
    settings: &ScaleSettings,
) -> anyhow::Result<String> {
    let mut found = BTreeMap::<(usize, usize), Vec<Measured>>::new();
    for round in 1..=settings.rounds {
        progress(format!("{what}: round {round} of {}", settings.rounds));
        for point in &mut points {
            for friends in point.friends {
                let system = &mut point.system;
                let measured = measure(system, *friends, CONNECTIONS, settings.length()).await?;
                let place = found.entry((point.much, *friends)).or_default();
                place.push(measured);
            }
        }
    }
    let mut table = Table::new(what);
    for ((much, friends), rounds) in &found {
        let label = format!("{much}, {friends}");
        table.line(&label, &Measured::median(rounds), *friends);
    }
    Ok(table.text)
}

/// The shipped policy with so many ids in its list, of which those asked for are none; `blocked_user` stays.
fn policy_with_list(dir: &Path, ids: usize) -> anyhow::Result<PathBuf> {
    let dir = dir.join(format!("policy-{ids}"));
    fs::create_dir_all(dir.join("lists"))?;
    let policy = dir.join("policy.yaml");
    fs::copy(shipped_policy(), &policy)?;
    let mut list = String::from("blocked_user\n");
    for number in 1..ids {
        // Writing to a String cannot fail.
        let _ = writeln!(list, "banned{number:010}");
    }
    fs::write(dir.join("lists/blocked.txt"), list)?;
    Ok(policy)
}

struct Table {
    text: String,
}

impl Table {
    fn new(what: &str) -> Self {
        Self {
            text: format!(
                "| {what} | decisions/s | p50 µs | p99 | gateway CPU µs | decider | nats | both pods, per friend | gateway peak MiB | decider |\n\
                 |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            ),
        }
    }

    fn line(&mut self, what: &str, measured: &Measured, friends: usize) {
        let cpu = |role| measured.cpu_micros.get(&role).copied();
        let peak = |role| figure(measured.peak_mib.get(&role).copied());
        let pods = cpu(Role::Gateway).zip(cpu(Role::Decider));
        let each = pods.map(|(gateway, decider)| (gateway + decider) / friends as f64);
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "| {what} | {:.0} | {} | {} | {} | {} | {} | {:.2} | {} | {} |",
            measured.per_second,
            figure(Some(measured.micros.p50)),
            figure(Some(measured.micros.p99)),
            figure(cpu(Role::Gateway)),
            figure(cpu(Role::Decider)),
            figure(cpu(Role::Nats)),
            each.unwrap_or(f64::NAN),
            peak(Role::Gateway),
            peak(Role::Decider),
        );
    }
}
