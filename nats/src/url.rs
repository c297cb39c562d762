//! `NATS_URL`: the addresses of the servers, and optionally credentials.

use std::{fmt, net::IpAddr, str::FromStr};

use async_nats::ServerAddr;
use importguard_runtime::Secret;
use percent_encoding::percent_decode_str;

use crate::login::Login;

/// The addresses of NATS servers, and the credentials in them. `Debug` and `Display` omit the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrls {
    servers: Vec<ServerAddr>,
    tls: bool,
    login: Option<Login>,
}

/// Why `NATS_URL` cannot be used. Never contains a part of it, which may be part of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsUrlError {
    /// There is no address.
    #[error("there is no address; write for example nats://127.0.0.1:4222")]
    Empty,
    /// The scheme is neither `nats` nor `tls`, but WebSocket, for example.
    #[error("the scheme must be nats:// or tls://")]
    Scheme,
    /// The host or the port is invalid.
    #[error("the host or the port is invalid; write for example nats://127.0.0.1:4222")]
    Address,
    /// Something follows the host and the port.
    #[error("nothing can follow the port; write for example nats://127.0.0.1:4222")]
    Path,
    /// The credentials are ambiguous.
    #[error(
        "it cannot be split into credentials and addresses: in a user, password or token, write % as %25, @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, a comma as %2C and a space as %20; or set NATS_USER and NATS_PASSWORD, or NATS_TOKEN, where they are written as they are"
    )]
    Encoding,
    /// An address has other credentials than the first one.
    #[error(
        "it has several credentials, and a connection has one: write them before the first host only"
    )]
    SeveralCredentials,
    /// The user, the password or the token is empty.
    #[error("the user, the password or the token is empty; write user:password@ or token@")]
    EmptyCredentials,
}

impl NatsUrls {
    /// Returns the servers without credentials, which the NATS client would log.
    pub fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// Whether one of the URLs is `tls://`.
    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Whether all servers are on this machine.
    pub(super) fn are_local(&self) -> bool {
        self.servers.iter().all(|server| {
            let host = server.host();
            let ip = host.parse::<IpAddr>();
            ip.map_or(host == "localhost", |ip| ip.is_loopback())
        })
    }
}

impl FromStr for NatsUrls {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        let mut urls = Self {
            servers: Vec::new(),
            tls: false,
            login: None,
        };
        let has_credentials = text.contains('@');
        for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let first = urls.servers.is_empty();
            let url = Url::parse(url).map_err(|error| match error {
                // Most likely, an unencoded character in the password is the cause.
                NatsUrlError::Address | NatsUrlError::Path if has_credentials => {
                    NatsUrlError::Encoding
                }
                error => error,
            })?;
            match url.login {
                // An unencoded comma in the password splits the URL before the @.
                Some(_) if !first && urls.login.is_none() => return Err(NatsUrlError::Encoding),
                Some(login) if first => urls.login = Some(login),
                Some(login) if urls.login != Some(login.clone()) => {
                    return Err(NatsUrlError::SeveralCredentials);
                }
                _ => {}
            }
            urls.servers.push(url.server);
            urls.tls |= url.tls;
        }
        if urls.servers.is_empty() {
            return Err(NatsUrlError::Empty);
        }
        Ok(urls)
    }
}

struct Url {
    server: ServerAddr,
    tls: bool,
    login: Option<Login>,
}

impl Url {
    fn parse(text: &str) -> Result<Self, NatsUrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "nats" => false,
            "tls" => true,
            // The URL has no scheme, and the `://` is part of the credentials.
            _ if scheme.contains([':', '@']) => return Err(NatsUrlError::Encoding),
            _ => return Err(NatsUrlError::Scheme),
        };
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        let login = credentials.map(login).transpose()?;
        let address = address.strip_suffix('/').unwrap_or(address);
        if address.contains(['/', '?', '#']) {
            return Err(NatsUrlError::Path);
        }
        let scheme = if tls { "tls" } else { "nats" };
        let server = ServerAddr::from_str(&format!("{scheme}://{address}"))
            .ok()
            .filter(|server| !server.host().is_empty())
            .ok_or(NatsUrlError::Address)?;
        Ok(Self { server, tls, login })
    }
}

/// Parses a percent-encoded `user:password` or token.
fn login(text: &str) -> Result<Login, NatsUrlError> {
    let login = match text.split_once(':') {
        Some((user, password)) => Login::Password {
            user: decode(user)?,
            password: Secret::new(decode(password)?),
        },
        None => Login::Token(Secret::new(decode(text)?)),
    };
    let is_empty = match &login {
        Login::Password { user, password } => user.is_empty() || password.expose().is_empty(),
        Login::Token(token) => token.expose().is_empty(),
    };
    if is_empty {
        return Err(NatsUrlError::EmptyCredentials);
    }
    Ok(login)
}

fn decode(text: &str) -> Result<String, NatsUrlError> {
    let ambiguous = |c: char| "@/?#,".contains(c) || c.is_whitespace() || c.is_control();
    let is_encoded = |rest: &str| {
        let digits = rest.get(..2);
        digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    if text.contains(ambiguous) || !text.split('%').skip(1).all(is_encoded) {
        return Err(NatsUrlError::Encoding);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| NatsUrlError::Encoding)?.into_owned())
}

impl fmt::Debug for NatsUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NatsUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.servers.iter().map(ServerAddr::as_url_str);
        f.write_str(&urls.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NatsUrls, NatsUrlError> {
        text.parse()
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn servers_and_credentials_are_read_apart() {
        let urls = parse("nats://guard:s3%40%2C%3a%25%C3%A4@a:1, tls://[::1]:2,b").unwrap();
        assert_eq!(urls.to_string(), "nats://a:1,tls://[::1]:2,nats://b");
        assert_eq!(urls.login(), Some(&password("guard", "s3@,:%ä")));
        assert!(urls.tls() && !urls.are_local());
        assert!(!format!("{urls:?}").contains("s3"), "{urls:?}");

        let token = parse("to%2Fken@127.0.0.1:4222/").unwrap();
        assert_eq!(token.login(), Some(&Login::Token(Secret::new("to/ken"))));
        assert!(!token.tls() && token.are_local());

        let same = parse("nats://a:b=c:d@h,nats://a:b=c:d@i").unwrap();
        assert_eq!(same.login(), Some(&password("a", "b=c:d")));
    }

    #[test]
    fn what_cannot_be_split_without_doubt_is_an_error_that_says_how_to_encode_and_not_what() {
        for secret in [
            "s3@cret", "s3#cret", "s3,cret", "s3/cret", "s3?cret", "1/cret", "1,cret", "1?cret",
            "s3%cret", "s3 cret", "%ff", "100%",
        ] {
            let urls = parse(&format!("nats://guard:{secret}@127.0.0.1:4222,nats://b"));
            let error = urls.unwrap_err();
            assert_eq!(error, NatsUrlError::Encoding, "{secret}");
            assert!(error.to_string().contains("@ as %40"), "{error}");
            assert!(!error.to_string().contains("cret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for (text, expected) in [
            (" , ", NatsUrlError::Empty),
            ("wss://a", NatsUrlError::Scheme),
            ("nats://a:b", NatsUrlError::Address),
            ("nats://:4222", NatsUrlError::Address),
            ("nats://", NatsUrlError::Address),
            ("nats://a/b", NatsUrlError::Path),
            (
                "nats://a:b@h,nats://a:c@h",
                NatsUrlError::SeveralCredentials,
            ),
            ("nats://a:@h", NatsUrlError::EmptyCredentials),
            ("nats://:b@h", NatsUrlError::EmptyCredentials),
            ("nats://@h", NatsUrlError::EmptyCredentials),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
