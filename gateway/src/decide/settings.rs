use std::{path::PathBuf, time::Duration};

use clap::Args;
use importguard_runtime::settings::duration;

use super::DeciderUrls;

/// How the gateway calls deciders.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider")]
pub struct DecideSettings {
    /// URLs of the deciders, comma-separated: http:// or https://, a host name or IP address, and a port. Calls are balanced over all
    /// addresses of a name; each goes to the least busy one
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_URL",
        value_name = "URL,…",
        default_value = "http://127.0.0.1:50051"
    )]
    pub decider_url: DeciderUrls,

    /// Maximum time for a decider's verdict, including a second attempt; then IMPORTGUARD_ON_DECIDER_TIMEOUT applies
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TIMEOUT",
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = duration
    )]
    pub decider_timeout: Duration,

    /// How long to wait for a decider before the request is sent to a second one as well; the first response is used. After a
    /// connection error there is no wait. At most two reachable deciders get a request, and only one gets a request with more
    /// than 1000 friends
    // A verdict takes about a millisecond, on ten thousand friends a few: a decider that has not responded by then probably will not,
    // and four fifths of the default timeout are left for the second one.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_RETRY_AFTER",
        value_name = "DURATION",
        default_value = "100ms",
        value_parser = duration
    )]
    pub decider_retry_after: Duration,

    /// Health-check interval. A decider that fails a check gets no requests until a later check succeeds
    // Half of the decider's shutdown grace, so that gateways stop calling a decider before it stops.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CHECK_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration
    )]
    pub decider_check_interval: Duration,

    /// The gateway's side of TLS.
    #[command(flatten)]
    pub tls: DeciderTlsSettings,
}

/// The gateway's side of TLS with deciders.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS to deciders (https:// in IMPORTGUARD_DECIDER_URL)")]
pub struct DeciderTlsSettings {
    /// PEM file with the CA certificates to verify deciders with. Reloaded when it changes, as are the client certificate and its
    /// key
    #[arg(long, env = "IMPORTGUARD_DECIDER_CA_FILE", value_name = "FILE")]
    pub decider_ca_file: Option<PathBuf>,

    /// PEM file with the client certificate that the gateway presents to deciders
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
        value_name = "FILE",
        requires = "decider_client_key_file"
    )]
    pub decider_client_cert_file: Option<PathBuf>,

    /// PEM file with the private key of the client certificate
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_CLIENT_KEY_FILE",
        value_name = "FILE",
        requires = "decider_client_cert_file"
    )]
    pub decider_client_key_file: Option<PathBuf>,

    /// Name that deciders' certificates must contain [default: the host in IMPORTGUARD_DECIDER_URL]
    #[arg(long, env = "IMPORTGUARD_DECIDER_SERVER_NAME", value_name = "NAME")]
    pub decider_server_name: Option<String>,
}
