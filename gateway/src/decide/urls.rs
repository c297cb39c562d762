use std::{fmt, net::SocketAddr, str::FromStr};

use http::uri::{Scheme, Uri};

/// gRPC's usual port is none: a decider's must be written.
const EXAMPLE: &str =
    "write for example http://importguard-decider:50051, and commas between several";

/// Where deciders are: at least one URL, and all with the same scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeciderUrls {
    scheme: Scheme,
    urls: Vec<DeciderUrl>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeciderUrl {
    /// As calls name it.
    pub(super) uri: Uri,
    /// A DNS name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text does not say where deciders are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeciderUrls {
    /// A part of it is no decider's URL.
    #[error(
        "{0:?} is no decider's URL, which is http:// or https://, a host and a port: {EXAMPLE}"
    )]
    NoUrl(String),
    /// Some are http and some https.
    #[error("all deciders must be http:// or all https://: {EXAMPLE}")]
    TwoSchemes,
}

impl DeciderUrls {
    /// Whether TLS is spoken.
    pub(super) fn tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DeciderUrl> {
        self.urls.iter()
    }
}

impl From<SocketAddr> for DeciderUrls {
    /// The decider at `address`, without TLS.
    fn from(address: SocketAddr) -> Self {
        Self {
            scheme: Scheme::HTTP,
            urls: vec![DeciderUrl {
                uri: uri_of(address),
                host: address.ip().to_string(),
                port: address.port(),
            }],
        }
    }
}

impl FromStr for DeciderUrls {
    type Err = InvalidDeciderUrls;

    fn from_str(text: &str) -> Result<Self, InvalidDeciderUrls> {
        let parsed: Vec<_> = text.split(',').map(url).collect::<Result<_, _>>()?;
        let scheme = match parsed.first() {
            Some((scheme, _)) => scheme.clone(),
            None => return Err(InvalidDeciderUrls::NoUrl(text.to_owned())),
        };
        if parsed.iter().any(|(other, _)| *other != scheme) {
            return Err(InvalidDeciderUrls::TwoSchemes);
        }
        Ok(Self {
            scheme,
            urls: parsed.into_iter().map(|(_, url)| url).collect(),
        })
    }
}

impl fmt::Display for DeciderUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.urls.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let authority = url
                .uri
                .authority()
                .map_or("", |authority| authority.as_str());
            write!(f, "{comma}{}://{authority}", self.scheme)?;
        }
        Ok(())
    }
}

/// The URL of `address`, without TLS.
pub(super) fn uri_of(address: SocketAddr) -> Uri {
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(address.to_string())
        .path_and_query("/")
        .build()
        // An address and its port are an authority, so that this never fails.
        .unwrap_or_default()
}

fn url(text: &str) -> Result<(Scheme, DeciderUrl), InvalidDeciderUrls> {
    let invalid = || InvalidDeciderUrls::NoUrl(text.to_owned());
    let uri: Uri = text.trim().parse().map_err(|_| invalid())?;
    let scheme = uri.scheme().ok_or_else(invalid)?.clone();
    let authority = uri.authority().ok_or_else(invalid)?.clone();
    let port = authority.port_u16().ok_or_else(invalid)?;
    let known = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
    let bare = uri.path_and_query().is_none_or(|path| path == "/");
    if !known || !bare || authority.as_str().contains('@') {
        return Err(invalid());
    }
    let host = authority.host();
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Ok((scheme, DeciderUrl { uri, host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_are_separated_by_commas() {
        let text = "https://decider:50051, https://[::1]:50052,https://127.0.0.1:50053";
        let urls: DeciderUrls = text.parse().unwrap();
        let hosts: Vec<_> = urls
            .iter()
            .map(|url| (url.host.as_str(), url.port))
            .collect();
        let expected = [("decider", 50051), ("::1", 50052), ("127.0.0.1", 50053)];
        assert_eq!(hosts, expected);
        assert!(urls.tls());
        assert_eq!(urls.to_string(), text.replace(' ', ""));
    }

    #[test]
    fn an_address_is_the_url_that_names_it() {
        for address in ["127.0.0.1:50051", "[::1]:50051"] {
            let parsed: DeciderUrls = format!("http://{address}").parse().unwrap();
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(DeciderUrls::from(address), parsed);
        }
    }

    #[test]
    fn what_does_not_say_where_deciders_are_is_an_error() {
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
