//! The whole comparison: every system at every size and concurrency, round by round.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;

use crate::{
    cli::{MatrixSettings, Traces, What},
    load::{Expected, Question},
    machine,
    measure::{Measured, measure, measure_paced, verify},
    rest::{Rest, at_rest},
    system::{Options, Place, Sink, System, SystemName, last_event_bytes},
    table::{self, print, progress},
    targets,
};

/// At which share of the floor's capacity latencies are compared. At 80 % the floor's own queue grew in some
/// rounds, to a p99 of 300 ms, as client, gateway, decider and NATS share two cores.
const PACE: f64 = 0.5;

/// With how many friends.
const PACES: [usize; 2] = [2, 1_000];

/// Who is asked at that pace.
const PACED: [SystemName; 3] = [SystemName::Floor, SystemName::Lean, targets::IMPORTGUARD];

/// Longer than the closed loop's: a 99th percentile wants many.
const PACED_TIMES: u32 = 2;

/// One line of the table, and what it is the median of.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) system: SystemName,
    pub(crate) friends: usize,
    pub(crate) concurrency: usize,
    pub(crate) median: Measured,
    pub(crate) rounds: Vec<Measured>,
}

/// Latencies at one pace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Paced {
    pub(crate) friends: usize,
    /// Questions a second.
    pub(crate) rate: f64,
    /// Round by round.
    pub(crate) systems: BTreeMap<SystemName, Vec<Measured>>,
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) paced: Vec<Paced>,
    pub(crate) rest: Option<Rest>,
}

impl Report {
    pub(crate) fn row(
        &self,
        system: SystemName,
        friends: usize,
        concurrency: usize,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            (row.system, row.friends, row.concurrency) == (system, friends, concurrency)
        })
    }
}

/// Runs it and prints the tables.
pub(crate) async fn run(settings: MatrixSettings) -> anyhow::Result<()> {
    let settings = quick(settings);
    let (mut place, _dir) = Place::new(&settings.set_up)?;
    let machine = machine::describe();
    print(&machine)?;
    let rest = match settings.no_rest || !settings.only.contains(&What::Importguard) {
        true => None,
        false => {
            progress("starts, and memory at rest");
            Some(at_rest(&mut place).await?)
        }
    };
    let mut line_up = LineUp::start(&mut place, &settings).await?;
    let mut report = Report {
        machine,
        rows: line_up.rows(&settings).await?,
        paced: Vec::new(),
        rest,
    };
    if !settings.no_paced {
        for friends in PACES {
            let paced = line_up.paced(&settings, &report, friends).await?;
            report.paced.extend(paced);
        }
    }
    print(table::rows(&report))?;
    print(table::paced(&report))?;
    print(targets::table(&report))?;
    if let Some(sink) = &line_up.sink {
        // It speaks once a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        print(format!("The sink took {} spans.", sink.spans()?))?;
    }
    if let Some(file) = &settings.json {
        fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

fn quick(settings: MatrixSettings) -> MatrixSettings {
    if !settings.quick {
        return settings;
    }
    let wanted = settings.only.into_iter();
    MatrixSettings {
        friends: vec![2, 1_000],
        concurrency: vec![32, 256],
        traces: vec![Traces::Sampled],
        only: wanted.filter(|what| *what != What::Axum).collect(),
        ..settings
    }
}

/// The systems that are compared, all running; one at a time is asked.
struct LineUp {
    systems: Vec<System>,
    sink: Option<Sink>,
}

impl LineUp {
    async fn start(place: &mut Place, settings: &MatrixSettings) -> anyhow::Result<Self> {
        progress("starting the systems, and asking each for its verdicts");
        let wanted = |what| settings.only.contains(&what);
        let traced = settings.traces.iter().any(|traces| *traces != Traces::Off);
        let sink = match traced && wanted(What::Importguard) {
            true => Some(Sink::start(place).await?),
            false => None,
        };
        let mut systems = Vec::new();
        if wanted(What::Axum) {
            systems.push(place.axum().await?);
        }
        if wanted(What::Floor) || wanted(What::Lean) {
            let extra = event_extra(place).await?;
            progress(format!("an event is its request's body and {extra} bytes"));
            for (what, lean) in [(What::Floor, false), (What::Lean, true)] {
                if wanted(what) {
                    systems.push(place.floor(extra, lean).await?);
                }
            }
        }
        if wanted(What::Importguard) {
            for traces in &settings.traces {
                let sink = sink.as_ref().filter(|_| *traces != Traces::Off);
                let files = match traces {
                    Traces::Off => "untraced",
                    Traces::Sampled => "sampled",
                    Traces::On => "traced",
                };
                let options = Options::shipped(files, *traces);
                systems.push(place.importguard(&options, sink).await?);
            }
        }
        for system in &mut systems {
            verify(system).await?;
        }
        Ok(Self { systems, sink })
    }

    /// The closed loops: all systems take turns in each round.
    async fn rows(&mut self, settings: &MatrixSettings) -> anyhow::Result<Vec<Row>> {
        let cells = settings.friends.len() * settings.concurrency.len();
        let (mut done, began) = (0, Instant::now());
        let mut rows = Vec::new();
        for friends in &settings.friends {
            for concurrency in &settings.concurrency {
                let mut found: Vec<Vec<Measured>> = vec![Vec::new(); self.systems.len()];
                for _ in 0..settings.rounds {
                    for (system, found) in self.systems.iter_mut().zip(&mut found) {
                        found.push(
                            measure(system, *friends, *concurrency, settings.length()).await?,
                        );
                    }
                }
                for (system, rounds) in self.systems.iter().zip(found) {
                    rows.push(Row {
                        system: system.name,
                        friends: *friends,
                        concurrency: *concurrency,
                        median: Measured::median(&rounds),
                        rounds,
                    });
                }
                done += 1;
                progress(format!(
                    "{done} of {cells}: {friends} friends on {concurrency} connections, {:.0} s so far",
                    began.elapsed().as_secs_f64()
                ));
            }
        }
        Ok(rows)
    }

    /// The open loop at a share of the floor's capacity, if that is known for `friends`.
    async fn paced(
        &mut self,
        settings: &MatrixSettings,
        report: &Report,
        friends: usize,
    ) -> anyhow::Result<Option<Paced>> {
        let capacity = report
            .row(SystemName::Floor, friends, targets::CONCURRENCY)
            .map(|row| row.median.per_second);
        let Some(capacity) = capacity else {
            return Ok(None);
        };
        let rate = capacity * PACE;
        progress(format!("{friends} friends at a pace of {rate:.0} a second"));
        let length = settings.length() * PACED_TIMES;
        let mut systems = BTreeMap::<_, Vec<_>>::new();
        for _ in 0..settings.rounds {
            for system in &mut self.systems {
                if PACED.contains(&system.name) {
                    let measured = measure_paced(system, friends, rate, length).await?;
                    systems.entry(system.name).or_default().push(measured);
                }
            }
        }
        Ok(Some(Paced {
            friends,
            rate,
            systems,
        }))
    }
}

/// How many bytes importguard's event has beside its request's body, so that the floor's are as large.
async fn event_extra(place: &mut Place) -> anyhow::Result<usize> {
    let mut sample = place
        .importguard(&Options::shipped("sample", Traces::Off), None)
        .await?;
    verify(&mut sample).await?;
    let question = Question::new(sample.address, 2, Expected::Allow);
    let nats = sample.nats.as_deref().context("importguard has a NATS")?;
    let event = last_event_bytes(nats).await?;
    Ok(event.saturating_sub(question.body().len()))
}
