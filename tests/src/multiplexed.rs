use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{Call, Response, TestCertificate};

/// An HTTP/2 connection over TLS, which Go's client uses for an https URL: for any number of concurrent requests.
#[derive(Clone, Debug)]
pub struct Http2Client(SendRequest<Full<Bytes>>);

impl Http2Client {
    /// Connects to `host:port`, which must present `certificate`.
    pub async fn connect(address: &str, certificate: &TestCertificate) -> Self {
        let stream = certificate.connect(address).await.expect("TLS");
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2 is spoken");
        tokio::spawn(connection);
        Self(requests)
    }

    /// Sends `call`. Fails the test if there is no response.
    pub async fn send(&self, call: Call) -> Response {
        let mut request: Request<Full<Bytes>> = call.into();
        *request.version_mut() = Version::HTTP_2;
        let mut requests = self.0.clone();
        requests.ready().await.expect("the connection lasts");
        let answer = requests.send_request(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        Response {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("a whole answer").to_bytes(),
        }
    }
}
