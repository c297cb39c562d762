use std::{str::FromStr, time::Duration};

use clap::Args;
use http::uri::{InvalidUri, Uri};
use importguard_runtime::settings::{count, duration};

/// The backend for OpenIM's other callbacks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Other OpenIM callbacks")]
pub struct UpstreamSettings {
    /// URL (http:// or https://) of the backend for OpenIM's other callbacks. They are forwarded unchanged, with this URL in place
    /// of importguard's own [default: they are refused with 404]
    #[arg(
        long,
        env = "IMPORTGUARD_UPSTREAM",
        value_name = "URL",
        hide_env_values = true
    )]
    pub upstream: Option<UpstreamUrl>,

    /// Maximum time for the backend to start its response, and between two parts of it
    // Below OpenIM's default timeout of 5 seconds, so that OpenIM gets the error.
    #[arg(
        long,
        env = "IMPORTGUARD_UPSTREAM_TIMEOUT",
        value_name = "DURATION",
        default_value = "4s",
        value_parser = duration
    )]
    pub upstream_timeout: Duration,

    /// Maximum number of callbacks being forwarded to the backend at a time, at most 1000000
    // Half of the connection limit, so that a slow backend does not block imports.
    #[arg(
        long,
        env = "IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
        value_name = "COUNT",
        default_value_t = 450,
        value_parser = count::<usize>(1..=1_000_000)
    )]
    pub upstream_max_in_flight: usize,

    /// Forward the Authorization header to the backend even when importguard checks it itself (IMPORTGUARD_BASIC_AUTH_FILE,
    /// IMPORTGUARD_BEARER_TOKEN_FILE)
    #[arg(long, env = "IMPORTGUARD_UPSTREAM_FORWARD_AUTHORIZATION")]
    pub upstream_forward_authorization: bool,
}

/// The backend's URL: scheme, host and path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    uri: Uri,
    /// Without a trailing `/`.
    text: String,
}

/// Why a string is not a backend's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be http:// or https:// with a host and an optional path, without a query or credentials, for example http://chat-backend:10008/callback"
)]
pub struct UpstreamUrlError;

impl FromStr for UpstreamUrl {
    type Err = UpstreamUrlError;

    fn from_str(text: &str) -> Result<Self, UpstreamUrlError> {
        let uri: Uri = text.parse().map_err(|_| UpstreamUrlError)?;
        let authority = uri.authority().ok_or(UpstreamUrlError)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(UpstreamUrlError);
        }
        let text = uri.to_string().trim_end_matches('/').to_owned();
        Ok(Self { uri, text })
    }
}

impl UpstreamUrl {
    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The port, by default that of the scheme.
    pub(super) fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(default)
    }

    /// The URL for a callback whose path is `below` importguard's base path.
    pub(super) fn target(&self, below: &str, query: Option<&str>) -> Result<Uri, InvalidUri> {
        // A request line must not begin with the question mark.
        let below = match below {
            "" if self.uri.path().trim_start_matches('/').is_empty() => "/",
            below => below,
        };
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        Uri::try_from(format!("{}{below}{mark}{query}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backends_url_replaces_the_base_path() {
        for (url, below, query, target) in [
            ("http://b", "/callbackX", None, "http://b/callbackX"),
            (
                "http://b/",
                "/callbackX",
                Some("a=b"),
                "http://b/callbackX?a=b",
            ),
            (
                "http://b:1/h/",
                "/callbackX",
                None,
                "http://b:1/h/callbackX",
            ),
            (
                "https://b/h",
                "",
                Some("command=X"),
                "https://b/h?command=X",
            ),
            ("https://b", "", Some("command=X"), "https://b/?command=X"),
            ("http://b//", "", Some("command=X"), "http://b/?command=X"),
            ("http://b/#part", "/callbackX", None, "http://b/callbackX"),
        ] {
            let url: UpstreamUrl = url.parse().unwrap();
            let url = url.target(below, query).unwrap();
            assert_eq!(url.to_string(), target);
            assert!(url.path_and_query().unwrap().as_str().starts_with('/'));
        }
    }

    #[test]
    fn an_invalid_url_is_an_error() {
        for text in [
            "",
            "b",
            "/b",
            "ftp://b",
            "http://u:p@b",
            "http://b/?q",
            "b:80",
        ] {
            assert_eq!(text.parse::<UpstreamUrl>(), Err(UpstreamUrlError), "{text}");
        }
    }
}
