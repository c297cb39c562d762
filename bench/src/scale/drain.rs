//! Callbacks before NATS is gone, beside the spool while that drains, and after.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::{CONNECTIONS, Table};
use crate::{
    cli::{ScaleSettings, Traces},
    line::{Line, Target, result},
    load::{Expected, Question, counted},
    measure::{Load, Measured, measure_during, verify},
    statistics::Spread,
    system::{Nats, Options, Place, System, readyz},
    table::progress,
};

/// Events that wait in the spool when NATS comes back.
const BACKLOG: u64 = 100_000;

/// Callbacks a second of a busy day, as in `gateway/benches/recorder.rs`.
const MODERATE: f64 = 500.0;

/// The share of the capacity that is asked for beside the backlog at the other pace.
const SHARE: f64 = 1.0 / 3.0;

/// How long is measured before and after a drain, at least: so that a p99 at the moderate pace is the 25th of 2,500.
const LENGTH: Duration = Duration::from_secs(5);

/// How often the spool is asked after. Each look costs the gateway a tenth of a millisecond.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the gateway may take to notice that NATS is there again: it asks every few seconds.
const BACK: Duration = Duration::from_secs(30);

/// What is measured of one load in one round.
struct Round {
    before: Measured,
    during: Measured,
    after: Measured,
    /// Events that left the spool a second.
    drained: f64,
}

/// A load, and what it is called.
struct Series {
    what: String,
    rounds: Vec<Round>,
}

pub(super) async fn drain(place: &mut Place, settings: &ScaleSettings) -> anyhow::Result<String> {
    let options = Options::shipped("drain", Traces::Off);
    let mut system = place.importguard(&options, None).await?;
    verify(&mut system).await?;
    let [mut closed, mut moderate, mut third] = [
        format!("{CONNECTIONS} connections"),
        format!("{MODERATE} a second"),
        format!("a third of what {CONNECTIONS} get"),
    ]
    .map(Series::new);
    for number in 1..=settings.rounds {
        progress(format!("drain: round {number} of {}", settings.rounds));
        let length = settings.length();
        let load = Load::Closed(CONNECTIONS);
        let capacity = closed.measure(place, &mut system, load, length).await?;
        let (paced, length) = (Load::Paced(MODERATE), length.max(LENGTH));
        moderate.measure(place, &mut system, paced, length).await?;
        let paced = Load::Paced(capacity * SHARE);
        third.measure(place, &mut system, paced, length).await?;
    }
    let all = [closed, moderate, third];
    let mut table = Table::new("the spool, 2 friends");
    all.iter().for_each(|series| series.lines(&mut table));
    let lines: Vec<Line> = all.iter().flat_map(Series::result).collect();
    let title = format!("a backlog of {BACKLOG} events, 2 friends");
    Ok(format!("{}\n{}", table.text, result(&title, &lines)))
}

impl Series {
    fn new(what: String) -> Self {
        let rounds = Vec::new();
        Self { what, rounds }
    }

    /// Measures a round, and returns how many callbacks a second were answered before the drain.
    async fn measure(
        &mut self,
        place: &Place,
        system: &mut System,
        load: Load,
        length: Duration,
    ) -> anyhow::Result<f64> {
        let before = lasting(system, load, length).await?;
        let capacity = before.per_second;
        back_up(place, system).await?;
        let admin = system.admin.context("importguard's gateway has one")?;
        let mut drained = f64::NAN;
        let drain = async {
            drained = until_drained(admin).await?;
            Ok(())
        };
        let during = measure_during(system, 2, load, drain).await?;
        let after = lasting(system, load, length).await?;
        self.rounds.push(Round {
            before,
            during,
            after,
            drained,
        });
        Ok(capacity)
    }

    fn lines(&self, table: &mut Table) {
        let mut line = |phase: &str, of: fn(&Round) -> &Measured| {
            let rounds: Vec<Measured> = self.rounds.iter().map(of).cloned().collect();
            table.line(
                &format!("{}, {phase}", self.what),
                &Measured::median(&rounds),
                2,
            );
        };
        line("before", |round| &round.before);
        line("draining", |round| &round.during);
        line("drained", |round| &round.after);
    }

    fn result(&self) -> [Line; 3] {
        let line = |what: &str, of: fn(&Round) -> f64, target, unit, digits| {
            let values: Vec<f64> = self.rounds.iter().map(of).collect();
            Line {
                what: format!("{}: {what}", self.what),
                measured: Spread::of(&values),
                target,
                unit,
                digits,
            }
        };
        let p50 = |round: &Round| round.during.micros.p50 / round.before.micros.p50;
        let p99 = |round: &Round| round.during.micros.p99 / round.before.micros.p99;
        [
            line("p50 while it drains / before", p50, None, "", 2),
            line(
                "p99 while it drains / before",
                p99,
                Some(Target::AtMost(2.0)),
                "",
                2,
            ),
            line("drained", |round| round.drained, None, " a second", 0),
        ]
    }
}

/// Has a backlog arise while NATS is gone, and returns when NATS is back and it drains.
async fn back_up(place: &Place, system: &mut System) -> anyhow::Result<()> {
    let admin = system.admin.context("importguard's gateway has one")?;
    let address = system.kill_nats()?;
    let question = Question::new(system.address, 2, Expected::Allow);
    counted(system.address, &question, CONNECTIONS, BACKLOG).await?;
    system.replace_nats(Nats::start_at(place, "drain", address).await?);
    let deadline = Instant::now() + BACK;
    while recorder(admin).await?["state"] == "spooling" {
        ensure!(
            Instant::now() < deadline,
            "the gateway does not take NATS back\n{}",
            system.tails()
        );
        sleep(GLANCE).await;
    }
    Ok(())
}

async fn lasting(system: &mut System, load: Load, length: Duration) -> anyhow::Result<Measured> {
    let event = async {
        sleep(length).await;
        Ok(())
    };
    measure_during(system, 2, load, event).await
}

/// Waits until the spool is empty, and returns how many events left it a second.
async fn until_drained(admin: SocketAddr) -> anyhow::Result<f64> {
    let (began, waiting) = (Instant::now(), spooled(admin).await?);
    while spooled(admin).await? > 0 {
        sleep(GLANCE).await;
    }
    Ok(waiting as f64 / began.elapsed().as_secs_f64())
}

/// How many events wait in the gateway's spool.
async fn spooled(admin: SocketAddr) -> anyhow::Result<u64> {
    let events = recorder(admin).await?["spooledEvents"].as_u64();
    events.context("/readyz tells of the spool")
}

/// What the gateway's recorder says of itself.
async fn recorder(admin: SocketAddr) -> anyhow::Result<Value> {
    let status: Value = serde_json::from_str(&readyz(admin).await?)?;
    let recorder = status.get("recorder").cloned();
    recorder.context("/readyz tells of the recorder")
}
