use std::time::Duration;

use clap::{Args, builder::RangedU64ValueParser};

/// How much is done at once.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Overload")]
pub struct AdmissionSettings {
    /// How many callbacks are worked on at once
    // open-im-server has at most 100 connections to one URL and asks one thing at a time on each: one server never waits.
    // Each may hold its body, the request read from it, the question and the event: 4 times IMPORTGUARD_MAX_BODY_BYTES,
    // 1 GiB in all at the very worst and some megabytes on a usual day.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_IN_FLIGHT",
        value_name = "COUNT",
        default_value_t = 128,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub max_in_flight: usize,

    /// How many more may wait for that; the next one is answered by IMPORTGUARD_ON_OVERLOAD at once
    // As many again: a burst of a second server.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_QUEUED",
        value_name = "COUNT",
        default_value_t = 128,
        value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000)
    )]
    pub max_queued: usize,

    /// How long one may wait before IMPORTGUARD_ON_OVERLOAD answers it
    // A twentieth of the budget: who waits longer waits in a queue that doesn't get shorter.
    #[arg(
        long,
        env = "IMPORTGUARD_QUEUE_TIMEOUT",
        value_name = "DURATION",
        default_value = "100ms",
        value_parser = humantime::parse_duration
    )]
    pub queue_timeout: Duration,

    /// How many callbacks a second are still read and recorded in an overload; the rest are only counted
    // At some 100 µs each, a hundredth of one core: recording must not be what the overload consists of.
    #[arg(
        long,
        env = "IMPORTGUARD_OVERLOAD_EVENTS",
        value_name = "COUNT",
        default_value_t = 100
    )]
    pub overload_events: u32,
}
