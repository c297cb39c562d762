use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use importguard_runtime::settings::{address, count, duration, duration_or_zero, size};

use crate::{
    decide::{DecideSettings, FallbackSettings, OnFailure},
    openim::{BasePath, OnMissingOperationId, Refusals},
    recorder::RecordSettings,
    upstream::UpstreamSettings,
};

/// All settings of a gateway, one group per concern.
///
/// The variable of a new setting must be added to `importguard_runtime::environment::VARIABLES`; an unknown one is an error.
#[derive(Args, Clone, Debug)]
#[group(skip)] // Its name would collide with the decider's in one process.
pub struct Settings {
    /// The callback endpoint.
    #[command(flatten)]
    pub http: HttpSettings,
    /// The limits of the public listener.
    #[command(flatten)]
    pub serve: ServeSettings,
    /// The public listener's certificate.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// The authentication of callers.
    #[command(flatten)]
    pub authentication: AuthenticationSettings,
    /// The concurrency limit.
    #[command(flatten)]
    pub limits: LimitSettings,
    /// The calls to deciders.
    #[command(flatten)]
    pub decide: DecideSettings,
    /// The answers when no decision is available.
    #[command(flatten)]
    pub fallback: FallbackSettings,
    /// The backend for OpenIM's other callbacks.
    #[command(flatten)]
    pub upstream: UpstreamSettings,
    /// Events, NATS and the spool.
    #[command(flatten)]
    pub record: RecordSettings,
}

impl Settings {
    /// The warnings to log at startup about settings that are valid on their own but contradict each other.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let Settings {
            http,
            serve,
            tls,
            authentication,
            limits,
            decide,
            fallback,
            record,
            ..
        } = self;
        let authenticates =
            authentication.basic_auth_file.is_some() || authentication.bearer_token_file.is_some();
        let remote = !http.http_listen.ip().is_loopback();
        [
            (
                serve.shutdown_grace >= http.shutdown_timeout,
                "IMPORTGUARD_SHUTDOWN_GRACE uses up IMPORTGUARD_SHUTDOWN_TIMEOUT: callbacks in flight will be cut off, and the last events may stay in the spool",
            ),
            (
                decide.decider_timeout > http.request_budget / 2,
                "IMPORTGUARD_DECIDER_TIMEOUT exceeds half of IMPORTGUARD_REQUEST_BUDGET: a callback whose body arrives slowly leaves deciders less time",
            ),
            (
                decide.decider_retry_after >= decide.decider_timeout,
                "IMPORTGUARD_DECIDER_RETRY_AFTER uses up IMPORTGUARD_DECIDER_TIMEOUT: when a decider does not respond, no second one is tried",
            ),
            (
                http.body_read_timeout > http.request_budget,
                "IMPORTGUARD_BODY_READ_TIMEOUT exceeds IMPORTGUARD_REQUEST_BUDGET, which limits it",
            ),
            (
                record.ack_timeout > http.request_budget / 2,
                "IMPORTGUARD_ACK_TIMEOUT exceeds half of IMPORTGUARD_REQUEST_BUDGET, which limits it",
            ),
            (
                limits.queue_timeout >= http.request_budget,
                "IMPORTGUARD_QUEUE_TIMEOUT uses up IMPORTGUARD_REQUEST_BUDGET: a callback that waited that long has no time left for a decision",
            ),
            (
                fallback.on_overload == OnFailure::Allow && fallback.on_unrecordable == OnFailure::Refuse,
                "IMPORTGUARD_ON_OVERLOAD=allow applies to IMPORTGUARD_OVERLOAD_EVENTS callbacks per second only: the others are not recorded, and IMPORTGUARD_ON_UNRECORDABLE=refuse refuses them",
            ),
            (
                authenticates && remote && tls.tls_cert_file.is_none(),
                "passwords and tokens are received without TLS: set IMPORTGUARD_TLS_CERT_FILE, unless a proxy in front of importguard terminates TLS",
            ),
        ]
        .into_iter()
        .filter_map(|(holds, sentence)| holds.then_some(sentence))
        .collect()
    }
}

/// The callback endpoint.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Callbacks")]
pub struct HttpSettings {
    /// Listen address for OpenIM's callbacks
    #[arg(
        long,
        env = "IMPORTGUARD_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        value_parser = address
    )]
    pub http_listen: SocketAddr,

    /// Path prefix of the callback URLs; it may contain a secret
    #[arg(
        long,
        env = "IMPORTGUARD_BASE_PATH",
        value_name = "PATH",
        default_value = "/",
        hide_env_values = true
    )]
    pub base_path: BasePath,

    /// How to handle a callback whose operationID is missing or unusable
    #[arg(
        long,
        env = "IMPORTGUARD_OPERATION_ID",
        value_name = "MODE",
        default_value = "require"
    )]
    pub operation_id: OnMissingOperationId,

    /// How refusals are written for open-im-server: only OpenIM 3.6.0 needs `unreadable`
    #[arg(
        long,
        env = "IMPORTGUARD_REFUSALS",
        value_name = "MODE",
        default_value = "readable"
    )]
    pub refusals: Refusals,

    /// Maximum time from the arrival of a callback to its response; a wait for IMPORTGUARD_MAX_BYTES_IN_FLIGHT comes before it. An
    /// eighth is kept for recording. OpenIM's own timeout is 5s by default
    #[arg(
        long,
        env = "IMPORTGUARD_REQUEST_BUDGET",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration
    )]
    pub request_budget: Duration,

    /// Maximum size of a callback's body, at most 1GiB
    // 10,000 IDs of 64 bytes, OpenIM's column width, take 670 kB with quotes and commas; three times that allows for white space
    // and escapes.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_BODY_BYTES",
        value_name = "SIZE",
        default_value = "2MiB",
        value_parser = size::<usize>(1..=1 << 30)
    )]
    pub max_body_bytes: usize,

    /// Maximum number of friends in a callback, at most 100000000
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = 10_000,
        value_parser = count::<usize>(1..=100_000_000)
    )]
    pub max_friends: usize,

    /// Maximum time to receive a callback's body, a part of IMPORTGUARD_REQUEST_BUDGET
    // Half of the budget; the rest is for deciding, recording and answering.
    #[arg(
        long,
        env = "IMPORTGUARD_BODY_READ_TIMEOUT",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration
    )]
    pub body_read_timeout: Duration,

    /// Total time allowed for graceful shutdown, including IMPORTGUARD_SHUTDOWN_GRACE; remaining connections are then closed
    #[arg(
        long,
        env = "IMPORTGUARD_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    /// Name of this gateway in events: letters, digits, and other characters that need no encoding in a URL [default: the host name]
    #[arg(
        long,
        env = "IMPORTGUARD_INSTANCE",
        value_name = "NAME",
        value_parser = instance
    )]
    pub instance: Option<String>,
}

impl HttpSettings {
    /// The name of this gateway in events.
    pub(crate) fn instance(&self) -> String {
        let host = || importguard_telemetry::instance().replace(|c| !is_in_segment(c), "-");
        self.instance.clone().unwrap_or_else(host)
    }
}

/// Parses the name of a gateway. The `source` of events, a URI reference, ends with it.
fn instance(text: &str) -> Result<String, &'static str> {
    match !text.is_empty() && text.chars().all(is_in_segment) {
        true => Ok(text.to_owned()),
        false => Err("use letters a-z and A-Z, digits, and any of -._~!$&'()*+,;=:@"),
    }
}

/// Whether a segment of a URI's path may contain `c` without encoding (RFC 3986, `pchar`).
fn is_in_segment(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c)
}

/// Limits of the public listener.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct ServeSettings {
    /// Maximum number of open connections, at most 1000000. When it is reached, a new connection replaces the one that has been
    /// without a request for longest
    // open-im-server opens at most 100 connections to a URL, so this suffices for nine servers.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 900,
        value_parser = count::<usize>(1..=1_000_000)
    )]
    pub max_connections: usize,

    /// Maximum size of the request line and headers together, at least 1KiB and at most 1MiB
    // OpenIM's own take less than 1 KiB; proxies may add cookies, certificates and trace headers of a few KiB each.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_HEADER_BYTES",
        value_name = "SIZE",
        default_value = "16KiB",
        value_parser = size::<u32>(1 << 10..=1 << 20)
    )]
    pub max_header_bytes: u32,

    /// Maximum time for each of: the first byte on a new connection, the TLS handshake, and a request's headers after their
    /// first byte
    // OpenIM's default timeout.
    #[arg(
        long,
        env = "IMPORTGUARD_HEADER_READ_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub header_read_timeout: Duration,

    /// How long a connection may stay open without a request
    // Longer than the 90 seconds after which Go's client closes an idle connection: if the server closed it first, a request might
    // be lost.
    #[arg(
        long,
        env = "IMPORTGUARD_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "120s",
        value_parser = duration
    )]
    pub idle_timeout: Duration,

    /// Maximum time for the client to receive its response
    // OpenIM's default timeout.
    #[arg(
        long,
        env = "IMPORTGUARD_WRITE_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub write_timeout: Duration,

    /// Maximum memory for data in flight on all connections: request bodies being received or queued, and responses not yet
    /// received by the client; at least 1MiB and at most 4294967295 bytes. When it is used up, the connection that has held its
    /// bytes for longest is closed. At least twice IMPORTGUARD_MAX_BODY_BYTES is used
    // A hundred concurrent callbacks with 10,000 IDs of 25 bytes each; processing one takes five times its bytes, or ten with IDs of 5
    // bytes.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_BYTES_IN_FLIGHT",
        value_name = "SIZE",
        default_value = "32MiB",
        value_parser = size::<usize>(1 << 20..=u32::MAX.into())
    )]
    pub max_bytes_in_flight: usize,

    /// Maximum number of concurrent requests on an HTTP/2 connection. A new connection starts with 4 being processed at a time,
    /// and gets one more for each response that the client received
    // The minimum that RFC 9113 recommends, and the number of open-im-server's connections over HTTP/1.1.
    #[arg(
        long,
        env = "IMPORTGUARD_HTTP2_MAX_STREAMS",
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = count::<u32>(1..=u32::MAX.into())
    )]
    pub http2_max_streams: u32,

    /// How long new connections are still accepted after SIGTERM, while /readyz already reports not ready; 0s to stop accepting
    /// at once
    // The time that a load balancer or Kubernetes takes to notice; meanwhile, responses close their connections.
    #[arg(
        long,
        env = "IMPORTGUARD_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration_or_zero
    )]
    pub shutdown_grace: Duration,
}

/// The public listener's certificate.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS for callbacks")]
pub struct TlsSettings {
    /// PEM file with the server certificate and its intermediates. When set, the callback listener accepts only TLS. Reloaded when
    /// it changes, as is the key
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// PEM file with the private key of the server certificate
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,
}

/// The authentication of callers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication (none by default)")]
pub struct AuthenticationSettings {
    /// File with accepted HTTP Basic credentials, one user:password per line; lines that start with # are comments. OpenIM sends
    /// those that its webhook URL contains as user:password@. Reloaded when it changes
    #[arg(long, env = "IMPORTGUARD_BASIC_AUTH_FILE", value_name = "FILE")]
    pub basic_auth_file: Option<PathBuf>,

    /// File with accepted bearer tokens, one per line; lines that start with # are comments. Reloaded when it changes
    #[arg(long, env = "IMPORTGUARD_BEARER_TOKEN_FILE", value_name = "FILE")]
    pub bearer_token_file: Option<PathBuf>,
}

/// The concurrency limit.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Overload")]
pub struct LimitSettings {
    /// Maximum number of callbacks processed at a time, at most 1000000
    // open-im-server opens at most 100 connections to a URL, with one request at a time on each: a single server never waits. A
    // callback holds its body, the parsed request, the call to the decider and the event. IMPORTGUARD_MAX_BYTES_IN_FLIGHT bounds the
    // bodies: 128 callbacks at once with 10,000 friends took 205 MB at most, some megabytes in practice.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_IN_FLIGHT",
        value_name = "COUNT",
        default_value_t = 128,
        value_parser = count::<usize>(1..=1_000_000)
    )]
    pub max_in_flight: usize,

    /// How long a received callback may wait to be processed before it gets the answer of IMPORTGUARD_ON_OVERLOAD; 0s to never
    /// wait
    // What IMPORTGUARD_REQUEST_BUDGET leaves beside the time for deciders and for recording. For three thousand callbacks at once over HTTPS, OpenIM's client
    // opens some 300 connections, whose handshakes delay the callbacks: on two cores, the slowest responses took 0.7 to 1.8 seconds,
    // and half of that time refused 500 to 900 of them. During overload, IMPORTGUARD_MAX_BYTES_IN_FLIGHT bounds the wait.
    #[arg(
        long,
        env = "IMPORTGUARD_QUEUE_TIMEOUT",
        value_name = "DURATION",
        default_value = "1250ms",
        value_parser = duration_or_zero
    )]
    pub queue_timeout: Duration,

    /// Maximum number of shed callbacks per second that are still parsed and recorded; the others are only counted. 0 to record
    /// none
    // At about 100 µs each, this takes a hundredth of a core, so that recording does not add to the overload.
    #[arg(
        long,
        env = "IMPORTGUARD_OVERLOAD_EVENTS",
        value_name = "COUNT",
        default_value_t = 100
    )]
    pub overload_events: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_gateway_fits_into_a_uri() {
        for name in ["gateway-0", "gw_1.example.org", "Gateway@rack:7"] {
            assert_eq!(instance(name), Ok(name.to_owned()));
        }
        for name in ["", "gw 1", "%zz", "ü", "a/b", "a?b", "a#b", "a\nb"] {
            assert!(instance(name).is_err(), "{name}");
        }
    }
}
