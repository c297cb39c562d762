//! Sends requests as open-im-server's HTTP client does, and reports what goes wrong.

use std::{env, fs, io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, Version, header, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use importguard_runtime::whole_text;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Maximum size of an answer, in bytes. importguard's own answers to these requests are below 1 KiB.
const MAX_ANSWER: usize = 1 << 20;

/// OpenIM's webhook URL. It may contain a password or a secret path, so it is never printed in full.
pub(super) struct Webhook {
    url: String,
    https: bool,
    host: String,
    port: u16,
    authorization: Option<String>,
}

/// A request below the webhook's URL.
pub(super) struct Question<'a> {
    /// What is appended to the URL.
    pub(super) suffix: String,
    pub(super) operation_id: &'a str,
    pub(super) body: String,
}

/// An answer.
pub(super) struct Response {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{0} is not a known host: {1}")]
    Host(String, io::Error),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    #[error("no TLS connection to {0}: {text}", text = in_words(.1))]
    Tls(String, io::Error),
    #[error("SSL_CERT_FILE names {0}, and no certificate can be read from it: {1}")]
    Trust(String, String),
    #[error("no answer from {0}: {1}")]
    Http(String, String),
    #[error("no answer from {0} within {timeout}", timeout = seconds(*.1))]
    Timeout(String, Duration),
}

/// The text of a TLS error. rustls shows some causes as they are in its code.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.contains(CA_AS_SERVER) {
        true => "the server's certificate is the certificate of a CA".to_owned(),
        false => text,
    }
}

/// What [`in_words`] describes: a server that presents the certificate of a CA as its own.
pub(super) const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Checks that there are certificates in SSL_CERT_FILE if that is set. Go ignores a file that it cannot read, and so trusts nobody.
fn check_trust() -> Result<(), AskError> {
    let Some(file) = env::var_os("SSL_CERT_FILE") else {
        return Ok(());
    };
    let file = Path::new(&file);
    let loaded = rustls_native_certs::load_certs_from_paths(Some(file), None);
    if !loaded.certs.is_empty() {
        return Ok(());
    }
    let cause = match (fs::File::open(file), loaded.errors.first()) {
        (Err(error), _) => error.to_string(),
        (Ok(_), Some(error)) => error.to_string(),
        (Ok(_), None) => "it has none in PEM format".to_owned(),
    };
    Err(AskError::Trust(file.display().to_string(), cause))
}

/// OpenIM's timeouts are whole seconds.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

impl Webhook {
    /// Parses a URL as Go does. Errors do not repeat the URL.
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().ok().context("the URL is not valid")?;
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        ensure!(
            https || uri.scheme() == Some(&Scheme::HTTP),
            "the URL must begin with http:// or https://"
        );
        let Some(authority) = uri.authority() else {
            bail!("the URL has no host");
        };
        let credentials = authority.as_str().rsplit_once('@');
        let authorization = credentials.map(|(credentials, _)| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
            let plain = [decoded(user), b":".to_vec(), decoded(password)].concat();
            format!("Basic {}", BASE64_STANDARD.encode(plain))
        });
        let host = uri.host().unwrap_or_default();
        ensure!(!host.is_empty(), "the URL has no host");
        Ok(Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authorization,
            url: url.to_owned(),
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.https
    }

    pub(super) fn has_password(&self) -> bool {
        self.authorization.is_some()
    }

    /// Scheme, host and port.
    pub(super) fn address(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        match self.host.contains(':') {
            true => format!("{scheme}://[{}]:{}", self.host, self.port),
            false => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }

    /// Sends `question` on a new connection.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
        within: Duration,
    ) -> Result<Response, AskError> {
        let answer = timeout(within, self.exchange(question)).await;
        answer.unwrap_or_else(|_| Err(AskError::Timeout(self.address(), within)))
    }

    async fn exchange(&self, question: &Question<'_>) -> Result<Response, AskError> {
        let tcp = self.connect().await?;
        if !self.https {
            return self.send(tcp, false, question).await;
        }
        check_trust()?;
        let tls = self.handshake(tcp).await;
        let tls = tls.map_err(|error| AskError::Tls(self.address(), error))?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        self.send(tls, http2, question).await
    }

    async fn connect(&self) -> Result<TcpStream, AskError> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await;
        let addresses = addresses.map_err(|error| AskError::Host(self.host.clone(), error))?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error,
            }
        }
        Err(AskError::Connect(self.address(), last))
    }

    /// Trusts the same CAs as Go: those in SSL_CERT_FILE and SSL_CERT_DIR, or the system's.
    async fn handshake(
        &self,
        tcp: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    async fn send<S>(
        &self,
        stream: S,
        http2: bool,
        question: &Question<'_>,
    ) -> Result<Response, AskError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |text: String| AskError::Http(self.address(), text);
        let broken = |error: hyper::Error| failed(whole_text(&error));
        let request = self.request(question, http2);
        let request = request.map_err(|error| failed(error.to_string()))?;
        let io = TokioIo::new(stream);
        let response = if http2 {
            let handshake = http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = handshake.map_err(broken)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(broken)?
        } else {
            let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(broken)?
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?;
        Ok(Response {
            version: head.version,
            status: head.status,
            body: body.to_bytes(),
        })
    }

    fn request(
        &self,
        question: &Question<'_>,
        http2: bool,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        // OpenIM also appends to the string, whatever it ends with.
        let uri: Uri = [&self.url, question.suffix.as_str()].concat().parse()?;
        let mut target = uri.clone().into_parts();
        let authority = self.address();
        let authority = authority.split_once("://").map_or("", |(_, rest)| rest);
        let mut request = Request::builder().method(Method::POST);
        if http2 {
            target.authority = Some(authority.parse()?);
            request = request.uri(Uri::from_parts(target)?);
        } else {
            let path = target.path_and_query.map(|path| path.to_string());
            request = request
                .uri(path.unwrap_or_else(|| "/".to_owned()))
                .header(header::HOST, authority);
        }
        request = request
            .header(header::USER_AGENT, "Go-http-client/1.1")
            .header("operationID", question.operation_id)
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let body = Bytes::from(question.body.clone() + "\n");
        Ok(request.body(Full::new(body))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_extended_as_openim_does_and_shown_without_secrets() {
        let webhook = Webhook::parse("http://us%40er:p%3Aw@gateway:8080/secret").unwrap();
        assert_eq!(webhook.address(), "http://gateway:8080");
        let question = Question {
            suffix: "/callbackX".to_owned(),
            operation_id: "1",
            body: "{}".to_owned(),
        };
        let request = webhook.request(&question, false).unwrap();
        assert_eq!(request.uri().path(), "/secret/callbackX");
        assert_eq!(request.headers()[header::HOST], "gateway:8080");
        let authorization = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        let credentials = authorization.strip_prefix("Basic ").unwrap();
        assert_eq!(BASE64_STANDARD.decode(credentials).unwrap(), b"us@er:p:w");
    }

    #[test]
    fn a_ca_that_is_a_server_is_described_in_words() {
        let rustls = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))";
        let error = AskError::Tls("https://g:1".to_owned(), io::Error::other(rustls));
        let text = error.to_string();
        assert!(text.ends_with("is the certificate of a CA"), "{text}");
    }

    #[test]
    fn what_is_no_webhook_url_is_an_error_that_does_not_repeat_it() {
        for url in [
            "gateway:8080",
            "ftp://u:pw@gateway",
            "http://",
            "http://u:pw@h ost",
        ] {
            let error = Webhook::parse(url).err().unwrap().to_string();
            assert!(
                !error.contains("pw") && !error.contains("gateway"),
                "{error}"
            );
        }
    }
}
