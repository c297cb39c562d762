use std::{path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use importguard_nats::NatsSettings;
use importguard_runtime::settings::{SettingError, duration, retention, size};

use crate::{events::PseudonymSettings, spool::SpoolSync};

/// The stream's name.
pub(super) const STREAM: &str = "IMPORTGUARD";

/// Timeout of background work: the drain's acks and requests about the stream. It is long enough for a busy cluster to elect a new
/// leader.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings for recording decisions: NATS, its stream, and the spool for when NATS is unreachable.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Recording")]
pub struct RecordSettings {
    /// How long a callback waits for NATS to acknowledge its event before the event is written to the spool
    #[arg(long, env = "IMPORTGUARD_ACK_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "250ms")]
    pub ack_timeout: Duration,

    /// Directory for events that NATS has not acknowledged yet. It must survive restarts, and each gateway process needs its own
    #[arg(
        long,
        env = "IMPORTGUARD_SPOOL",
        value_name = "DIR",
        default_value = "./spool"
    )]
    pub spool: PathBuf,

    /// Maximum size of the spool, at least 2MiB. When it is full and NATS is unreachable, IMPORTGUARD_ON_UNRECORDABLE applies
    // The default holds 750,000 events of typical imports, or two hours at 100 callbacks a second.
    #[arg(long, env = "IMPORTGUARD_SPOOL_MAX_BYTES", value_name = "SIZE", default_value = "1GiB", value_parser = size::<u64>(SPOOL_LEAST_BYTES..=i64::MAX.unsigned_abs()))]
    pub spool_max_bytes: u64,

    /// How durable the spool is before a callback is answered
    #[arg(
        long,
        env = "IMPORTGUARD_SPOOL_SYNC",
        value_name = "SYNC",
        default_value = "full"
    )]
    pub spool_sync: SpoolSync,

    // After the fields above, because it has its own help heading.
    #[command(flatten)]
    /// NATS and the credentials for it.
    pub nats: NatsSettings,

    #[command(flatten)]
    /// What the stream is created with.
    pub stream: StreamSettings,

    #[command(flatten)]
    /// Whether events hold ids or pseudonyms.
    pub pseudonyms: PseudonymSettings,
}

/// Settings with which the stream `IMPORTGUARD` is created if it is missing. An existing stream is left unchanged.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Recording")]
pub struct StreamSettings {
    /// Maximum age of events in the stream, at least 10m; 0s for no limit. Used only when importguard creates the stream
    #[arg(id = "stream_max_age", long = "stream-max-age", env = "IMPORTGUARD_STREAM_MAX_AGE", value_name = "DURATION", value_parser = stream_age, default_value = "30d")]
    pub max_age: Duration,

    /// Maximum size of the stream, at least 2MiB, which then discards its oldest events; -1 for no limit. Used only when importguard
    /// creates the stream [default: 8GiB, or 4GiB, 2GiB or 1GiB where NATS has no room for more]
    #[arg(id = "stream_max_bytes", long = "stream-max-bytes", env = "IMPORTGUARD_STREAM_MAX_BYTES", value_name = "SIZE", value_parser = stream_size, allow_negative_numbers = true)]
    pub max_bytes: Option<i64>,

    /// Number of replicas of the stream in a NATS cluster: 1, 3 or 5. Used only when importguard creates the stream
    #[arg(id = "stream_replicas", long = "stream-replicas", env = "IMPORTGUARD_STREAM_REPLICAS", value_name = "COUNT", default_value_t = 1, value_parser = replicas(), hide_possible_values = true)]
    pub replicas: u8,

    /// How long NATS recognises a repeated event by its ID.
    #[arg(skip = DUPLICATE_WINDOW)]
    pub duplicate_window: Duration,
}

/// Longer than it takes to publish again after a reconnect. NATS keeps the IDs of this period in memory, 100 bytes each: 6 MiB at 100
/// callbacks a second.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Twice 1 MiB, the largest single event at NATS's default `max_payload`: once for the event, once for the tables around it.
const SPOOL_LEAST_BYTES: u64 = 2 << 20;

/// As for the spool. NATS accepts a smaller stream, acknowledges each event, and discards it at once.
const STREAM_LEAST_BYTES: u64 = SPOOL_LEAST_BYTES;

/// A stream recognises a repeated event only as long as it keeps the events, so a shorter age would shorten the duplicate window.
fn stream_age(text: &str) -> Result<Duration, SettingError> {
    match retention(text)? {
        age if age.is_zero() || age >= DUPLICATE_WINDOW => Ok(age),
        _ => Err(SettingError::TooSmall("10m; 0s is for ever".to_owned())),
    }
}

/// Accepts -1 for no limit, but not zero: NATS treats zero as no limit too, but a user who writes it means something else.
fn stream_size(text: &str) -> Result<i64, SettingError> {
    match text.trim() {
        "-1" => Ok(-1),
        text => size(STREAM_LEAST_BYTES..=i64::MAX.unsigned_abs())(text),
    }
}

/// The replica counts that are useful in NATS: an even number tolerates no more failures than the odd number below it.
fn replicas() -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(["1", "3", "5"]).try_map(|text| text.parse())
}

#[cfg(test)]
mod tests {
    use importguard_runtime::environment::parse_arguments;

    use super::*;

    #[test]
    fn durations_sizes_and_server_lists_are_read() {
        let parsed: RecordSettings = parse_arguments([
            "--nats-url=nats://a:4222,nats://b:4222",
            "--stream-max-bytes=-1",
            "--stream-max-age=1h 30m",
            "--spool-max-bytes=4MiB",
        ])
        .unwrap();
        assert_eq!(
            parsed.nats.nats_url.to_string(),
            "nats://a:4222,nats://b:4222"
        );
        assert_eq!(parsed.stream.max_bytes, Some(-1));
        assert_eq!(parsed.stream.max_age, Duration::from_secs(90 * 60));
        assert_eq!(parsed.spool_max_bytes, 4 << 20);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "--spool-max-bytes=10",
            "--stream-max-bytes=0",
            "--stream-max-bytes=1",
            "--stream-max-age=1ms",
            "--stream-max-age=9m",
            "--ack-timeout=0s",
            "--stream-replicas=2",
            "--stream-replicas=9",
            "--ack-timeout=soon",
            "--nats-cert=only.pem",
            "--nats-password=without a user",
            "--nats-inbox-prefix=a.*",
            "--nats-inbox-prefix=a..b",
        ] {
            assert!(parse_arguments::<RecordSettings>([bad]).is_err(), "{bad}");
        }
    }
}
