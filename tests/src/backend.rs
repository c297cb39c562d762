use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::TestCertificate;

/// The operator's backend for other callbacks. Records requests, and answers `203` (or the status in the header `x-answer-with`) with
/// `x-backend: yes` and the request's own body, which it streams.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Parts>>>,
    server: JoinHandle<()>,
}

impl Backend {
    /// Starts a backend.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts a backend with TLS and this `certificate`.
    pub async fn with_tls(certificate: &TestCertificate) -> Self {
        Self::listen(Some(certificate)).await
    }

    async fn listen(certificate: Option<&TestCertificate>) -> Self {
        let acceptor = certificate.map(TestCertificate::acceptor);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, acceptor) = (Arc::clone(&remembered), acceptor.clone());
                tokio::spawn(async move {
                    let answer = service_fn(|request| echo(request, &asked));
                    let http = http1::Builder::new();
                    let _ = match acceptor {
                        None => http.serve_connection(TokioIo::new(stream), answer).await,
                        Some(acceptor) => {
                            let stream = acceptor.accept(stream).await.unwrap();
                            http.serve_connection(TokioIo::new(stream), answer).await
                        }
                    };
                });
            }
        });
        Self {
            address,
            asked,
            server,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<Parts> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn echo(
    request: Request<Incoming>,
    asked: &Mutex<Vec<Parts>>,
) -> Result<Response<Incoming>, Infallible> {
    let (head, body) = request.into_parts();
    let status = head.headers.get("x-answer-with");
    let status = status.map_or(&b"203"[..], HeaderValue::as_bytes);
    let status = StatusCode::from_bytes(status).unwrap();
    asked.lock().unwrap().push(head);
    let answer = Response::builder()
        .status(status)
        .header("x-backend", "yes")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .body(body);
    Ok(answer.unwrap())
}
