//! The load: one thread, connections that are kept alive, questions prepared beforehand, and every answer compared with the
//! one that is right. See "The client" in `bench/README.md` for why it is not one of the well-known tools.

mod beat;
mod closed;
mod connection;
mod counted;
mod flood;
mod paced;
mod question;
mod streams;
mod timeline;

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{cli::LoadSettings, statistics::Percentiles, table::print};

pub(crate) use self::{
    closed::closed,
    connection::Connection,
    counted::counted,
    flood::{Flood, Flooded, flood},
    paced::paced,
    question::{Expected, Question},
    streams::STREAMS,
    timeline::{Answered, timeline},
};

/// What came of the questions of one measurement.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of the right answers, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
    /// Of the refusals for an overload, 5913, likewise.
    pub(crate) overloaded: Vec<u64>,
    /// Other answers that the gateway gave without the policy: refusals with codes 5910 to 5919.
    pub(crate) other_fallbacks: u64,
}

/// Puts so many questions and says how that went.
pub(crate) async fn run(settings: LoadSettings) -> anyhow::Result<()> {
    let LoadSettings {
        address,
        friends,
        connections,
        requests,
    } = settings;
    let question = Question::new(address, friends, Expected::Allow);
    let began = Instant::now();
    let tally = counted(address, &question, connections, requests).await?;
    let (fallbacks, latencies) = (tally.fallbacks(), tally.latencies);
    ensure!(
        !latencies.is_empty(),
        "all {fallbacks} answers were fallbacks"
    );
    let per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    let right = latencies.len();
    let Percentiles { p50, p99, .. } = Percentiles::of(latencies);
    print(format!(
        "{right} right answers, {fallbacks} fallbacks, {per_second:.0} a second, p50 {p50:.0} µs, p99 {p99:.0} µs"
    ))?;
    Ok(())
}

/// How an answer compares with the expected one. One that is neither ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Right,
    /// 5913.
    Overloaded,
    /// Another code from 5910 to 5919.
    Fallback,
}

impl Tally {
    fn add(&mut self, reading: Reading, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        match reading {
            Reading::Right => self.latencies.push(nanos),
            Reading::Overloaded => self.overloaded.push(nanos),
            Reading::Fallback => self.other_fallbacks += 1,
        }
    }

    /// Answers that the gateway gave without the policy, whatever the cause.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.overloaded.len() as u64 + self.other_fallbacks
    }
}
