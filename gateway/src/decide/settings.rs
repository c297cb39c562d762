use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::DeciderUrls;

/// How the gateway asks a decider.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider")]
pub struct DecideSettings {
    /// Where deciders listen: http or https, a name or address, and a port; several with commas between them. All addresses of
    /// a name are asked, the least busy first
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_URL",
        value_name = "URL,…",
        default_value = "http://127.0.0.1:50051"
    )]
    pub decider_url: DeciderUrls,

    /// How long the gateway waits for a decider's verdict before it falls back
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TIMEOUT",
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = humantime::parse_duration
    )]
    pub decider_timeout: Duration,

    /// How long a decider may be silent before another one is asked as well; whichever answers first counts. A broken connection
    /// is no reason to wait: another one is asked at once. A request is put to two deciders at most that can be
    /// reached
    // A verdict takes a millisecond, on ten thousand friends some: who is silent for this long is hardly just busy, and four
    // fifths of the default time-out are left for the other one.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_RETRY_AFTER",
        value_name = "DURATION",
        default_value = "100ms",
        value_parser = humantime::parse_duration
    )]
    pub decider_retry_after: Duration,

    /// How many friends a request may have that is put to a second decider; with more, it might stop that one too
    // At some 10 ns a friend and rule (docs/policy.md) that is a millisecond for a hundred rules, a hundredth of the wait above.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_RETRY_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = 1_000
    )]
    pub decider_retry_max_friends: usize,

    /// How often the deciders' names are resolved; they are at once where a call fails
    // What Kubernetes' DNS lets an answer live.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_RESOLVE_INTERVAL",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub decider_resolve_interval: Duration,

    /// How often each decider is asked for its health; who does not answer, or says no, is put aside for as long
    // Half of the decider's shutdown grace: who is about to end is left alone before it does.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CHECK_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = humantime::parse_duration
    )]
    pub decider_check_interval: Duration,

    /// What the gateway shows deciders and believes of them.
    #[command(flatten)]
    pub tls: DeciderTlsSettings,
}

/// The gateway's side of TLS with deciders.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS with deciders (https:// in IMPORTGUARD_DECIDER_URL)")]
pub struct DeciderTlsSettings {
    /// A PEM file with the authorities that vouch for deciders. This and the next two are read again when they change, as a
    /// mounted Secret does
    #[arg(long, env = "IMPORTGUARD_DECIDER_CA_FILE", value_name = "FILE")]
    pub decider_ca_file: Option<PathBuf>,

    /// A PEM file with the certificate that the gateway shows to deciders
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
        value_name = "FILE",
        requires = "decider_client_key_file"
    )]
    pub decider_client_cert_file: Option<PathBuf>,

    /// A PEM file with that certificate's private key
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CLIENT_KEY_FILE",
        value_name = "FILE",
        requires = "decider_client_cert_file"
    )]
    pub decider_client_key_file: Option<PathBuf>,

    /// The name that deciders' certificates must hold [default: the host in IMPORTGUARD_DECIDER_URL]
    #[arg(long, env = "IMPORTGUARD_DECIDER_SERVER_NAME", value_name = "NAME")]
    pub decider_server_name: Option<String>,
}
