use std::time::Duration;

use clap::Args;

/// How much the public listener puts up with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct ServeSettings {
    /// How many connections may be open at once; one more is answered as an overload and closed
    // open-im-server opens at most 100 to one URL, so this is room for nine of them. It stays below the 1,024 files that
    // Linux lets a process open by default, the spool's, NATS's and the deciders' among them.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 900,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub max_connections: usize,

    /// How large a request line and its headers may be together, in bytes
    // OpenIM's own are below 1 KiB; proxies on the way add cookies, certificates and trace headers of a few KiB each.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_HEADER_BYTES",
        value_name = "BYTES",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1_024..=1_048_576)
    )]
    pub max_header_bytes: u32,

    /// How long a request's headers may take to arrive, from their first byte, and a TLS handshake
    // By then OpenIM itself has given up: its default time-out is 5 seconds.
    #[arg(
        long,
        env = "IMPORTGUARD_HEADER_READ_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub header_read_timeout: Duration,

    /// How long a connection may stay open without a request
    // Longer than the 90 seconds after which Go's client closes an idle connection itself: whoever closes first must not be
    // the side that a request may be on its way to.
    #[arg(
        long,
        env = "IMPORTGUARD_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "120s",
        value_parser = humantime::parse_duration
    )]
    pub idle_timeout: Duration,

    /// How many requests an HTTP/2 connection may have open at once
    // The least that RFC 9113 recommends, and as many as open-im-server has connections in HTTP/1.1.
    #[arg(
        long,
        env = "IMPORTGUARD_HTTP2_MAX_STREAMS",
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub http2_max_streams: u32,

    /// How long new connections are still taken after SIGTERM, while /readyz already says no
    // What it takes a load balancer or Kubernetes to notice on one node; the answers of that time ask to close their
    // connection.
    #[arg(
        long,
        env = "IMPORTGUARD_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_grace: Duration,
}
