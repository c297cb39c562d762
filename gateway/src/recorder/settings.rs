use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::NatsSettings;
use crate::events::PseudonymSettings;

/// How decisions are recorded: NATS, its stream, and the spool for when NATS is away.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Recording")]
pub struct RecordSettings {
    /// How long a callback waits for NATS to acknowledge its event before the event goes to the spool
    #[arg(long, env = "IMPORTGUARD_ACK_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "250ms")]
    pub ack_timeout: Duration,

    /// Directory for events that NATS has not taken yet; one gateway process each, kept across restarts
    #[arg(
        long,
        env = "IMPORTGUARD_SPOOL",
        value_name = "DIR",
        default_value = "./spool"
    )]
    pub spool: PathBuf,

    /// Size the spool may grow to, in bytes; what to answer once it is full is IMPORTGUARD_ON_UNRECORDABLE
    #[arg(long, env = "IMPORTGUARD_SPOOL_MAX_BYTES", value_name = "BYTES", default_value_t = SPOOL_MAX_BYTES, value_parser = clap::value_parser!(u64).range(SPOOL_LEAST_BYTES..))]
    pub spool_max_bytes: u64,

    // Below those above, as it brings a heading of its own.
    #[command(flatten)]
    /// Where NATS is, and who we are there.
    pub nats: NatsSettings,

    #[command(flatten)]
    /// What the stream is created with.
    pub stream: StreamSettings,

    #[command(flatten)]
    /// Whether events hold ids or pseudonyms.
    pub pseudonyms: PseudonymSettings,
}

/// What the stream `IMPORTGUARD` is created with if it is missing. An existing stream is left as it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Recording")]
pub struct StreamSettings {
    /// How long the stream keeps events; only when it is created
    #[arg(id = "stream_max_age", long = "stream-max-age", env = "IMPORTGUARD_STREAM_MAX_AGE", value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "30d")]
    pub max_age: Duration,

    /// Size at which the stream drops its oldest events, in bytes; -1 for no limit; only when it is created
    #[arg(id = "stream_max_bytes", long = "stream-max-bytes", env = "IMPORTGUARD_STREAM_MAX_BYTES", value_name = "BYTES", default_value_t = STREAM_MAX_BYTES, value_parser = clap::value_parser!(i64).range(-1..), allow_negative_numbers = true)]
    pub max_bytes: i64,

    /// Copies of the stream in a NATS cluster: 1, 3 or 5; only when it is created
    #[arg(id = "stream_replicas", long = "stream-replicas", env = "IMPORTGUARD_STREAM_REPLICAS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,

    /// How long NATS recognises a repeated event by its id; only when it is created
    #[arg(id = "stream_duplicate_window", long = "stream-duplicate-window", env = "IMPORTGUARD_STREAM_DUPLICATE_WINDOW", value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10m")]
    pub duplicate_window: Duration,
}

/// 1 GiB: about a million events of a typical import, three hours of a hundred callbacks a second.
const SPOOL_MAX_BYTES: u64 = 1 << 30;

/// 1 MiB, the largest single event at NATS's default `max_payload`, twice: for the event and for the tables around it.
const SPOOL_LEAST_BYTES: u64 = 2 << 20;

/// 1 GiB, as the spool: NATS sets the space aside when it creates the stream, and refuses to where it hasn't that much.
const STREAM_MAX_BYTES: i64 = 1 << 30;

impl Default for RecordSettings {
    /// The documented defaults, whatever the environment says.
    fn default() -> Self {
        Self {
            nats: NatsSettings::default(),
            ack_timeout: Duration::from_millis(250),
            spool: PathBuf::from("./spool"),
            spool_max_bytes: SPOOL_MAX_BYTES,
            stream: StreamSettings::default(),
            pseudonyms: PseudonymSettings::default(),
        }
    }
}

impl Default for StreamSettings {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const DAY: u64 = 24 * 60 * MINUTE;
        Self {
            max_age: Duration::from_secs(30 * DAY),
            max_bytes: STREAM_MAX_BYTES,
            replicas: 1,
            duplicate_window: Duration::from_secs(10 * MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::recorder::NatsUrl;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        record: RecordSettings,
    }

    #[test]
    fn the_default_is_what_the_command_line_says_it_is() {
        let parsed = Cli::parse_from(["gateway"]).record;
        assert_eq!(
            format!("{parsed:?}"),
            format!("{:?}", RecordSettings::default())
        );
    }

    #[test]
    fn durations_sizes_and_server_lists_are_read() {
        let parsed = Cli::parse_from([
            "gateway",
            "--nats-url=nats://a:4222,nats://b:4222",
            "--stream-max-bytes=-1",
            "--stream-duplicate-window=1h 30m",
            "--spool-max-bytes=4194304",
        ])
        .record;
        assert_eq!(
            parsed.nats.nats_url,
            ["nats://a:4222", "nats://b:4222"].map(NatsUrl::from)
        );
        assert_eq!(parsed.stream.max_bytes, -1);
        assert_eq!(parsed.stream.duplicate_window, Duration::from_secs(90 * 60));
        assert_eq!(parsed.spool_max_bytes, 4 << 20);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "--spool-max-bytes=10",
            "--stream-replicas=9",
            "--ack-timeout=soon",
            "--nats-cert=only.pem",
        ] {
            assert!(Cli::try_parse_from(["gateway", bad]).is_err(), "{bad}");
        }
    }
}
