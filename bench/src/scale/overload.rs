//! Twice as many callbacks as importguard can answer, and what is left of it afterwards.

mod table;

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::time::sleep;

use self::table::{figures, lines};
use crate::{
    cli::{ScaleSettings, Traces},
    line::result,
    load::{Answered, Expected, Flood, Question, Reading, STREAMS, timeline},
    measure::{Measured, MeasuredFlood, measure_flood, verify},
    process::Memory,
    statistics::Percentiles,
    system::{Options, Place, Role, System, counter},
    table::progress,
};

/// The default of `IMPORTGUARD_MAX_IN_FLIGHT`: with so many questions at once every place is taken and nobody waits for one.
const AT_CAPACITY: usize = 128;

/// How many times its capacity is asked of it.
const TIMES: f64 = 2.0;

/// In which it is looked whether the throughput is back: hundreds of answers, and far shorter than anybody would mind.
const WINDOW: Duration = Duration::from_millis(100);

/// The share of the capacity at which it counts as back: half of what neighbouring windows differ by on a machine at rest.
const BACK: f64 = 0.9;

/// One round.
struct Round {
    before: Measured,
    flood: MeasuredFlood,
    /// Refusals without an event, in a hundred; none where nobody was refused.
    unrecorded_percent: Option<f64>,
    memory: Memories,
    after: After,
}

/// The pods' memory before the flood, half-way through it, at its end, and after what followed it. The first seconds are not
/// compared: then each connection's buffers come into being.
struct Memories {
    before: Pods,
    half: Pods,
    late: Pods,
    after: Pods,
}

/// The pods' memory at one moment, in MiB.
#[derive(Clone, Copy)]
struct Pods {
    gateway: f64,
    decider: f64,
}

/// The load at capacity, right after the flood.
struct After {
    per_second: f64,
    micros: Percentiles,
    refused: usize,
    /// From the flood's last question until the end of the first window with the old throughput.
    back: Option<Duration>,
}

pub(super) async fn overload(
    place: &mut Place,
    settings: &ScaleSettings,
) -> anyhow::Result<String> {
    let options = Options::shipped("overload", Traces::Off);
    let mut system = place.importguard(&options, None).await?;
    verify(&mut system).await?;
    let mut rounds = Vec::new();
    for number in 1..=settings.rounds {
        progress(format!("overload: round {number} of {}", settings.rounds));
        rounds.push(round(&mut system, settings).await?);
    }
    let figures = figures(&rounds, settings.overload_connections * STREAMS);
    Ok(format!(
        "{}\n{}",
        figures,
        result("overload, 2 friends", &lines(&rounds))
    ))
}

async fn round(system: &mut System, settings: &ScaleSettings) -> anyhow::Result<Round> {
    let admin = system.admin.context("importguard's gateway has one")?;
    let pods = Processes::of(system)?;
    let at_capacity = Flood {
        streams: AT_CAPACITY,
        rate: None,
        length: settings.length(),
    };
    let before = measure_flood(system, 2, &at_capacity).await?.accepted;
    let memory_before = pods.memory()?;
    let load = Flood {
        streams: settings.overload_connections * STREAMS,
        rate: Some(before.per_second * TIMES),
        length: settings.overload_length(),
    };
    let unrecorded = counter(admin, UNRECORDED).await?;
    let half = async {
        sleep(load.length / 2).await;
        pods.memory()
    };
    let (flood, half) = tokio::join!(measure_flood(system, 2, &load), half);
    let flood = flood?;
    let late = pods.memory()?;
    let after = after(system, &flood, before.per_second, settings.length()).await?;
    let memory = Memories {
        before: memory_before,
        half: half?,
        late,
        after: pods.memory()?,
    };
    let unrecorded = counter(admin, UNRECORDED).await? - unrecorded;
    let refused = (flood.overloaded > 0).then_some(flood.overloaded as f64);
    Ok(Round {
        unrecorded_percent: refused.map(|refused| unrecorded as f64 * 100.0 / refused),
        before,
        flood,
        memory,
        after,
    })
}

const UNRECORDED: &str = "importguard_overload_unrecorded_total";

/// The load at capacity again, from the moment at which the flood's last answer has come.
async fn after(
    system: &mut System,
    flood: &MeasuredFlood,
    capacity: f64,
    length: Duration,
) -> anyhow::Result<After> {
    let question = Question::new(system.address, 2, Expected::Allow);
    let (began, since_flood) = (Instant::now(), flood.over.elapsed());
    let answers = timeline(system.address, &question, AT_CAPACITY, length).await?;
    let took = began.elapsed();
    system.still_runs()?;
    let right = |answer: &&Answered| answer.reading == Reading::Right;
    let nanos = |answer: &Answered| u64::try_from(answer.took.as_nanos()).unwrap_or(u64::MAX);
    let latencies: Vec<u64> = answers.iter().filter(right).map(nanos).collect();
    Ok(After {
        per_second: latencies.len() as f64 / took.as_secs_f64(),
        refused: answers.len() - latencies.len(),
        micros: Percentiles::of(latencies),
        back: back(&answers, capacity, length).map(|after| since_flood + after),
    })
}

/// When the first window ends in which nobody was refused and so many were answered as at capacity. In a closed loop the mean
/// latency is then what it was, too.
fn back(answers: &[Answered], capacity: f64, length: Duration) -> Option<Duration> {
    let enough = capacity * BACK * WINDOW.as_secs_f64();
    let windows = (1..).map(|number| WINDOW * number);
    let mut windows = windows.take_while(|end| *end <= length);
    windows.find(|end| {
        let inside = |answer: &&Answered| answer.at < *end && answer.at + WINDOW >= *end;
        let inside = answers.iter().filter(inside);
        let (mut right, mut others) = (0.0, 0);
        inside.for_each(|answer| match answer.reading {
            Reading::Right => right += 1.0,
            Reading::Overloaded | Reading::Fallback => others += 1,
        });
        others == 0 && right >= enough
    })
}

/// The pods' ids.
struct Processes {
    gateway: u32,
    decider: u32,
}

impl Processes {
    fn of(system: &System) -> anyhow::Result<Self> {
        Ok(Self {
            gateway: system.process(Role::Gateway)?,
            decider: system.process(Role::Decider)?,
        })
    }

    fn memory(&self) -> anyhow::Result<Pods> {
        Ok(Pods {
            gateway: Memory::of(self.gateway)?.now,
            decider: Memory::of(self.decider)?.now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(every: Duration, reading: Reading, from: Duration, to: Duration) -> Vec<Answered> {
        let moments = (0..).map(|number| from + every * number);
        let took = Duration::from_millis(1);
        moments
            .take_while(|at| *at < to)
            .map(|at| Answered { at, took, reading })
            .collect()
    }

    #[test]
    fn it_is_back_when_a_whole_window_is_as_it_was() {
        let (slow, fast) = (Duration::from_millis(4), Duration::from_millis(1));
        let (turn, end) = (Duration::from_millis(250), Duration::from_secs(1));
        let mut all = answers(slow, Reading::Right, Duration::ZERO, turn);
        all.extend(answers(fast, Reading::Right, turn, end));
        assert_eq!(back(&all, 1000.0, end), Some(Duration::from_millis(400)));
        assert_eq!(back(&all, 2000.0, end), None);
        all.extend(answers(
            end,
            Reading::Overloaded,
            Duration::from_millis(350),
            end,
        ));
        assert_eq!(back(&all, 1000.0, end), Some(Duration::from_millis(500)));
    }
}
