use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use importguard_runtime::settings::duration;

/// How live lists are kept up to date. Without a policy that has some, these settings have no effect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Live lists")]
pub struct LiveSettings {
    /// Directory for a snapshot of the live lists, with which a decider starts while NATS is unreachable. Each decider process needs
    /// its own [default: no snapshot]
    #[arg(long, env = "IMPORTGUARD_LISTS_SNAPSHOT", value_name = "DIR")]
    pub lists_snapshot: Option<PathBuf>,

    /// How long live lists count as current without a confirmation by NATS, which is asked once a second. Startup waits as long for
    /// the first one
    #[arg(
        long,
        env = "IMPORTGUARD_LISTS_MAX_AGE",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub lists_max_age: Duration,

    /// What to do while live lists are not current: decide with those that there are, or report the decider as not ready
    #[arg(
        long,
        env = "IMPORTGUARD_ON_STALE_LISTS",
        value_name = "ACTION",
        default_value = "continue"
    )]
    pub on_stale_lists: OnStale,
}

/// What a decider does while its live lists are not current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum OnStale {
    /// Decide with the lists that there are
    Continue,
    /// Report that it is not ready, so that gateways use other deciders or their fallback
    NotReady,
}
