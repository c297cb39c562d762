//! One measurement of one system, and measurements of several in turns.

use std::{
    collections::HashMap,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::time::sleep;

use crate::{
    load::{Answers, Expected, Load, Question, run},
    system::System,
    table::{Measured, Row, progress},
    usage::{cpu_time, idle, memory, reset_peak},
};

/// Columns of the table. Latencies are those of right responses.
pub(crate) const PER_SECOND: &str = "decisions/s";
pub(crate) const P50: &str = "p50 µs";
pub(crate) const P99: &str = "p99 µs";
pub(crate) const FALLBACKS: &str = "fallbacks %";

/// Measures the systems in turns, so many rounds of such a length, and returns a row for each.
pub(crate) async fn in_turns(
    systems: &mut [System],
    friends: usize,
    load: Load,
    (rounds, length): (usize, Duration),
) -> anyhow::Result<Vec<Row>> {
    progress(format!("{friends} friends, {load}: {rounds} rounds"));
    let row = |system: &System| Row::new(&system.name, friends, load);
    let mut rows: Vec<Row> = systems.iter().map(row).collect();
    for _ in 0..rounds {
        for (system, row) in systems.iter_mut().zip(&mut rows) {
            let (measured, _) = measure(system, friends, load, lasting(length)).await?;
            row.rounds.push(measured);
        }
    }
    Ok(rows)
}

/// An event that takes so long.
pub(crate) async fn lasting(length: Duration) -> anyhow::Result<()> {
    sleep(length).await;
    Ok(())
}

/// Measures a system for as long as `event` takes.
pub(crate) async fn measure(
    system: &mut System,
    friends: usize,
    load: Load,
    event: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<(Measured, Answers)> {
    for (_, id) in system.processes() {
        reset_peak(id)?;
    }
    let question = Question::new(system.address, friends, Expected::Allow);
    let look = || Snapshot::take(system);
    let found = run(system.address, question, load, event, look).await;
    system.still_runs();
    let (answers, before, after) = found.with_context(|| system.name.clone())?;
    let mut measured = after.since(&before, &answers);
    for role in ["gateway", "decider", "nats"] {
        let mut peak = f64::NAN;
        for (_, id) in system.processes().filter(|(of, _)| *of == role) {
            peak = peak.max(memory(id)?.1);
        }
        measured.push((format!("{role} peak MiB"), peak));
    }
    Ok((Measured(measured), answers))
}

/// When, and what the processes had spent by then.
struct Snapshot {
    at: Instant,
    idle: Duration,
    cpu: Vec<(&'static str, HashMap<i32, u64>)>,
}

impl Snapshot {
    fn take(system: &System) -> anyhow::Result<Self> {
        let processes = system.processes();
        let cpu = processes.map(|(role, id)| Ok((role, cpu_time(id)?)));
        Ok(Self {
            cpu: cpu.collect::<anyhow::Result<_>>()?,
            at: Instant::now(),
            idle: idle()?,
        })
    }

    /// What was measured since `earlier`, a snapshot of the same processes.
    fn since(&self, earlier: &Self, answers: &Answers) -> Vec<(String, f64)> {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        let latencies = answers.latencies.iter();
        let mut micros: Vec<f64> = latencies.map(|took| took.as_secs_f64() * 1e6).collect();
        micros.sort_unstable_by(f64::total_cmp);
        let (right, fallbacks) = (micros.len() as f64, answers.fallbacks as f64);
        let cpus = available_parallelism().map_or(1, usize::from) as f64 * seconds / 100.0;
        let idle = self.idle.saturating_sub(earlier.idle).as_secs_f64() / cpus;
        let mut others = 100.0 - idle;
        let mut found = vec![(PER_SECOND.to_owned(), right / seconds)];
        for (name, rank) in [(P50, 500), ("p90 µs", 900), (P99, 990), ("p99.9 µs", 999)] {
            found.push((name.to_owned(), percentile(&micros, rank)));
        }
        for role in ["gateway", "decider", "nats", "sink", "client"] {
            let mut nanos = 0;
            let both = self.cpu.iter().zip(&earlier.cpu);
            for ((_, now), (_, then)) in both.filter(|((of, _), _)| *of == role) {
                // Threads that ended in between are left out; none of those that answer does.
                let spent = |(id, now): (_, &u64)| now.saturating_sub(*then.get(id).unwrap_or(&0));
                nanos += now.iter().map(spent).sum::<u64>();
            }
            others -= nanos as f64 / 1e9 / cpus;
            let micros = if nanos > 0 {
                nanos as f64 / 1e3
            } else {
                f64::NAN
            };
            found.push((format!("{role} CPU µs"), micros / right));
        }
        found.extend([
            (
                FALLBACKS.to_owned(),
                fallbacks * 100.0 / (right + fallbacks),
            ),
            ("CPUs idle %".to_owned(), idle),
            ("others %".to_owned(), others.max(0.0)),
        ]);
        found
    }
}

/// The smallest of `sorted` that so many thousandths of all do not exceed. Not a number where there are none.
fn percentile(sorted: &[f64], thousandths: u16) -> f64 {
    let rank = (sorted.len() * usize::from(thousandths)).div_ceil(1000);
    let value = sorted.get(rank.saturating_sub(1)).copied();
    value.unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_latency_that_so_many_do_not_exceed() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 500), 500.0);
        assert_eq!(percentile(&sorted, 999), 999.0);
        assert_eq!(percentile(&[7.0], 500), 7.0);
        assert!(percentile(&[], 500).is_nan());
    }
}
