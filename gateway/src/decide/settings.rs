use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use http::uri::{Scheme, Uri};
use importguard_runtime::settings::duration;

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
    /// connection error there is no wait. At most two reachable deciders get a request. One with more than 1000 friends gets to a
    /// second one only if the first cannot have processed it
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

/// gRPC has no default port, so a decider's must be given.
const EXAMPLE: &str =
    "write for example http://importguard-decider:50051, and commas between several";

/// The URLs of deciders: at least one, each with a host and a port, all with the same scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeciderUrls(Vec<Uri>);

/// Why a string is not a list of decider URLs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeciderUrlsError {
    /// An entry is not the URL of a decider.
    #[error(
        "{0:?} is not a decider's URL, which has http:// or https://, a host and a port: {EXAMPLE}"
    )]
    NoUrl(String),
    /// The schemes differ.
    #[error("all deciders must be http:// or all https://: {EXAMPLE}")]
    TwoSchemes,
}

impl DeciderUrls {
    /// Whether the scheme is https.
    pub(crate) fn tls(&self) -> bool {
        self.iter().any(|url| url.scheme() == Some(&Scheme::HTTPS))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Uri> {
        self.0.iter()
    }
}

/// The host and the port of a decider's URL: a DNS name, or an address without brackets.
pub(super) fn host_and_port(url: &Uri) -> (&str, u16) {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or_default();
    (host.trim_matches(['[', ']']), port)
}

impl From<SocketAddr> for DeciderUrls {
    /// The decider at `address`, without TLS.
    fn from(address: SocketAddr) -> Self {
        Self(vec![uri_of(address)])
    }
}

/// The URL of `address`, without TLS.
pub(super) fn uri_of(address: SocketAddr) -> Uri {
    // Never fails: an address with a port is a valid authority.
    format!("http://{address}/").parse().unwrap_or_default()
}

impl FromStr for DeciderUrls {
    type Err = DeciderUrlsError;

    fn from_str(text: &str) -> Result<Self, DeciderUrlsError> {
        let urls: Vec<Uri> = text.split(',').map(url).collect::<Result<_, _>>()?;
        match urls
            .windows(2)
            .all(|two| two[0].scheme() == two[1].scheme())
        {
            true => Ok(Self(urls)),
            false => Err(DeciderUrlsError::TwoSchemes),
        }
    }
}

fn url(text: &str) -> Result<Uri, DeciderUrlsError> {
    let invalid = || DeciderUrlsError::NoUrl(text.to_owned());
    let url: Uri = text.trim().parse().map_err(|_| invalid())?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let is_bare = url.path_and_query().is_none_or(|path| path == "/");
    let has_user = url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    if is_http && is_bare && !has_user && url.port().is_some() {
        Ok(url)
    } else {
        Err(invalid())
    }
}

impl fmt::Display for DeciderUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.iter().map(|url| url.to_string()).collect();
        let urls = urls.iter().map(|url| url.trim_end_matches('/'));
        f.write_str(&urls.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_are_separated_by_commas() {
        let text = "https://decider:50051, https://[::1]:50052,https://127.0.0.1:50053";
        let urls: DeciderUrls = text.parse().unwrap();
        let hosts: Vec<_> = urls.iter().map(host_and_port).collect();
        let expected = [("decider", 50051), ("::1", 50052), ("127.0.0.1", 50053)];
        assert_eq!(hosts, expected);
        assert!(urls.tls());
        assert_eq!(urls.to_string(), text.replace(' ', ""));
    }

    #[test]
    fn an_address_is_converted_to_its_url() {
        for address in ["127.0.0.1:50051", "[::1]:50051"] {
            let parsed: DeciderUrls = format!("http://{address}").parse().unwrap();
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(DeciderUrls::from(address), parsed);
        }
    }

    #[test]
    fn an_invalid_list_of_urls_is_an_error() {
        for text in [
            "",
            "decider:50051",
            "http://decider",
            "ftp://decider:1",
            "http://decider:1/path",
            "http://user@decider:1",
            "http://decider:1,",
            "http://decider:1,https://decider:2",
        ] {
            assert!(text.parse::<DeciderUrls>().is_err(), "{text}");
        }
    }
}
