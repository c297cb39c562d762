//! One measurement of one system.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    load::{Connection, Expected, Flood, Flooded, Question, Reading, Tally, closed, flood, paced},
    machine::{Ticks, Use},
    process::{CpuTime, Memory, forget_peak},
    statistics::{Percentiles, median},
    system::{Role, System},
};

/// What was measured, once or, by the medians, several times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Right answers a second.
    pub(crate) per_second: f64,
    pub(crate) micros: Percentiles,
    /// CPU microseconds for each right answer, of each process.
    pub(crate) cpu_micros: BTreeMap<Role, f64>,
    /// The most memory, in MiB, of each process.
    pub(crate) peak_mib: BTreeMap<Role, f64>,
    /// Answers that were fallbacks, in a hundred.
    pub(crate) fallback_percent: f64,
    /// Who else was at work.
    pub(crate) machine: Use,
}

/// Puts one question of each verdict that `system` knows, and again until it is answered, as connections are made lazily.
pub(crate) async fn verify(system: &mut System) -> anyhow::Result<()> {
    const WITHIN: Duration = Duration::from_secs(10);
    for expected in system.verdicts() {
        let question = Question::new(system.address, 2, *expected);
        let deadline = Instant::now() + WITHIN;
        while ask(system.address, &question).await? != Reading::Right {
            system.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "{} answers with fallbacks only\n{}",
                system.name,
                system.tails()
            );
        }
    }
    Ok(())
}

async fn ask(address: SocketAddr, question: &Question) -> anyhow::Result<Reading> {
    Connection::open(address, question)
        .await?
        .ask(question, 0)
        .await
}

/// Asks over `connections` connections for `length`.
pub(crate) async fn measure(
    system: &mut System,
    friends: usize,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    measure_during(system, friends, Load::Closed(connections), lasting(length)).await
}

/// Asks `rate` times a second for `length`.
pub(crate) async fn measure_paced(
    system: &mut System,
    friends: usize,
    rate: f64,
    length: Duration,
) -> anyhow::Result<Measured> {
    measure_during(system, friends, Load::Paced(rate), lasting(length)).await
}

/// How questions are put.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// By so many connections, each of which asks again as soon as it is answered.
    Closed(usize),
    /// So many times a second.
    Paced(f64),
}

/// Asks for as long as `event` takes, which begins after the warming up.
pub(crate) async fn measure_during(
    system: &mut System,
    friends: usize,
    load: Load,
    event: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Measured> {
    let address = system.address;
    let question = Question::new(address, friends, Expected::Allow);
    let meter = Meter::of(system)?;
    let begin = || meter.begin();
    let end = |begun| meter.end(begun);
    let measured = match load {
        Load::Closed(connections) => {
            closed(address, &question, connections, event, begin, end).await
        }
        Load::Paced(rate) => paced(address, &question, rate, event, begin, end).await,
    };
    meter.measured(system, measured)
}

async fn lasting(length: Duration) -> anyhow::Result<()> {
    sleep(length).await;
    Ok(())
}

/// A flood, its answers apart by what they say.
#[derive(Debug)]
pub(crate) struct MeasuredFlood {
    /// What was decided by the policy.
    pub(crate) accepted: Measured,
    /// Refusals with 5913, in all and a second.
    pub(crate) overloaded: usize,
    pub(crate) overloaded_per_second: f64,
    /// Of those refusals.
    pub(crate) overloaded_micros: Percentiles,
    /// Other fallbacks, in all.
    pub(crate) other_fallbacks: u64,
    /// Questions that were not put as no stream was free, in a hundred.
    pub(crate) unput_percent: f64,
    /// Questions that were lost with their connection, in all.
    pub(crate) lost: u64,
    /// When the last questions were put.
    pub(crate) over: Instant,
}

/// Asks more than can be answered.
pub(crate) async fn measure_flood(
    system: &mut System,
    friends: usize,
    load: &Flood,
) -> anyhow::Result<MeasuredFlood> {
    let question = Question::new(system.address, friends, Expected::Allow);
    let meter = Meter::of(system)?;
    let begin = || meter.begin();
    let end = |begun| meter.end(begun);
    let flooded = flood(system.address, &question, load, begin, end).await;
    let flooded = Meter::ran(system, flooded)?;
    let Flooded { tally, spent, .. } = flooded;
    let put = tally.latencies.len() as u64 + tally.fallbacks();
    let unput = flooded.unput as f64;
    Ok(MeasuredFlood {
        overloaded: tally.overloaded.len(),
        overloaded_per_second: tally.overloaded.len() as f64 / spent.time.as_secs_f64(),
        overloaded_micros: Percentiles::of(tally.overloaded.clone()),
        other_fallbacks: tally.other_fallbacks,
        unput_percent: unput * 100.0 / (unput + put as f64),
        lost: flooded.lost,
        over: flooded.over,
        accepted: Measured::new(tally, &spent, meter.peaks()?),
    })
}

/// The processes of a system, and their use of the machine.
struct Meter {
    processes: Vec<(Role, u32)>,
}

impl Meter {
    fn of(system: &System) -> anyhow::Result<Self> {
        let processes: Vec<(Role, u32)> = system.processes().collect();
        for (_, id) in &processes {
            forget_peak(*id)?;
        }
        Ok(Self { processes })
    }

    fn begin(&self) -> anyhow::Result<Snapshot> {
        Snapshot::take(&self.processes)
    }

    fn end(&self, begun: Snapshot) -> anyhow::Result<Spent> {
        Ok(Snapshot::take(&self.processes)?.since(&begun))
    }

    fn measured(
        &self,
        system: &mut System,
        found: anyhow::Result<(Tally, Spent)>,
    ) -> anyhow::Result<Measured> {
        system.still_runs()?;
        let (tally, spent) = Self::ran(system, found)?;
        Ok(Measured::new(tally, &spent, self.peaks()?))
    }

    /// What was found, if nobody has ended over it.
    fn ran<T>(system: &mut System, found: anyhow::Result<T>) -> anyhow::Result<T> {
        system.still_runs()?;
        found.with_context(|| format!("{}\n{}", system.name, system.tails()))
    }

    fn peaks(&self) -> anyhow::Result<BTreeMap<Role, f64>> {
        let processes = self.processes.iter();
        processes
            .map(|(role, id)| Ok((*role, Memory::of(*id)?.peak)))
            .collect()
    }
}

/// When, and what the processes had spent by then.
struct Snapshot {
    at: Instant,
    machine: Ticks,
    cpu: Vec<(Role, CpuTime)>,
}

/// What was spent between two snapshots.
struct Spent {
    time: Duration,
    machine: Use,
    cpu: BTreeMap<Role, Duration>,
}

impl Snapshot {
    fn take(processes: &[(Role, u32)]) -> anyhow::Result<Self> {
        let cpu = processes
            .iter()
            .map(|(role, id)| Ok((*role, CpuTime::of(*id)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            at: Instant::now(),
            machine: Ticks::now(),
            cpu,
        })
    }

    fn since(&self, earlier: &Self) -> Spent {
        let mut cpu: BTreeMap<Role, Duration> = BTreeMap::new();
        // Both were taken of the same processes, in the same order; several may have one role.
        for ((role, now), (_, then)) in self.cpu.iter().zip(&earlier.cpu) {
            *cpu.entry(*role).or_default() += now.since(then);
        }
        let time = self.at.duration_since(earlier.at);
        let all = cpu.values().sum();
        Spent {
            time,
            machine: self.machine.since(&earlier.machine, all, time),
            cpu,
        }
    }
}

impl Measured {
    fn new(tally: Tally, spent: &Spent, peak_mib: BTreeMap<Role, f64>) -> Self {
        let right = tally.latencies.len() as f64;
        let fallbacks = tally.fallbacks() as f64;
        let each = |(role, cpu): (&Role, &Duration)| (*role, cpu.as_secs_f64() * 1e6 / right);
        Self {
            per_second: right / spent.time.as_secs_f64(),
            micros: Percentiles::of(tally.latencies),
            cpu_micros: spent.cpu.iter().map(each).collect(),
            peak_mib,
            fallback_percent: fallbacks * 100.0 / (right + fallbacks),
            machine: spent.machine,
        }
    }

    /// The medians of several measurements.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(rounds.iter().map(value));
        let each = |values: fn(&Self) -> &BTreeMap<Role, f64>| {
            let roles = rounds.first().map(values).into_iter().flatten();
            roles
                .map(|(role, _)| {
                    (
                        *role,
                        median(
                            rounds
                                .iter()
                                .filter_map(|one| values(one).get(role).copied()),
                        ),
                    )
                })
                .collect()
        };
        Self {
            per_second: of(|one| one.per_second),
            micros: Percentiles {
                p50: of(|one| one.micros.p50),
                p90: of(|one| one.micros.p90),
                p99: of(|one| one.micros.p99),
                p999: of(|one| one.micros.p999),
            },
            cpu_micros: each(|one| &one.cpu_micros),
            peak_mib: each(|one| &one.peak_mib),
            fallback_percent: of(|one| one.fallback_percent),
            machine: Use {
                idle: of(|one| one.machine.idle),
                others: of(|one| one.machine.others),
            },
        }
    }
}
