use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use crate::{SOON, TestCertificate, tls};

/// An HTTP/1.1 client that keeps its connections, as OpenIM's does.
#[derive(Clone, Debug)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A request that a test can modify in every part.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status line's code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Default for Client {
    fn default() -> Self {
        Self::trusting([])
    }
}

impl Client {
    /// A client with TLS that trusts `certificates`.
    pub fn trusting<'a>(certificates: impl IntoIterator<Item = &'a TestCertificate>) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::trusting(certificates))
            .https_or_http()
            .enable_http1()
            .build();
        let inner = legacy::Client::builder(TokioExecutor::new())
            .http1_title_case_headers(true)
            .build(connector);
        Self { inner }
    }

    /// Sends `call`. Fails the test if there is no response.
    pub async fn send(&self, call: Call) -> Response {
        let line = format!("{} {}", call.method, call.url);
        self.try_send(call)
            .await
            .unwrap_or_else(|error| panic!("{line}: {error:#}"))
    }

    /// Sends `call`.
    pub async fn try_send(&self, call: Call) -> anyhow::Result<Response> {
        let request = call.into_request()?;
        timeout(SOON, async {
            let response = self.inner.request(request).await?;
            let (head, body) = response.into_parts();
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        })
        .await
        .context("no answer in time")?
    }
}

impl Call {
    /// A request without body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The same to another URL.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// The same with the header `name` set, to any bytes that HTTP can carry.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header's value");
        self.headers.insert(name, value);
        self
    }

    /// The same without the header `name`.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// The same with another body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn into_request(self) -> ::http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.url)
            .body(Full::new(self.body))?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

impl From<Call> for Request<Full<Bytes>> {
    fn from(call: Call) -> Self {
        call.into_request().expect("a request")
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The media type without parameters.
    pub fn media_type(&self) -> Option<&str> {
        let value = self.headers.get("content-type")?.to_str().ok()?;
        value.split(';').next().map(str::trim)
    }
}
