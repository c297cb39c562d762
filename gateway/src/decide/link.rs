//! The HTTP/2 connection that gRPC's calls to a decider go over.
//!
//! tonic's own channel hands each call through three tasks, and makes a fourth, before its frames are written; here the caller
//! puts them into the connection's queue. With as little as a decision costs, that is a tenth of the gateway's CPU.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::{Ping, PingPong, RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderName, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tower::Service;

use super::connect::{ConnectError, Peer};

/// How long a connection may be silent before it is pinged, and the answer may take: a connection to a machine that is gone is
/// given up after both together, where TCP alone would take a quarter of an hour. A frozen decider's is too: what was sent to it
/// meanwhile it need not read when it goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What one answer may have on its way: ten thousand friends with ids of a hundred bytes, twice.
const STREAM_WINDOW: u32 = 2 << 20;
/// And all answers together: the largest of them still leaves room for the others.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Headers whose value is another one for each call. HPACK is told not to remember them: they would drive out those that are the
/// same for all.
const NEVER_THE_SAME: [HeaderName; 4] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("operationid"),
    HeaderName::from_static("grpc-timeout"),
];

/// A connection that is made when it is first used, and again after it broke. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    peer: Peer,
    live: ArcSwapOption<SendRequest<Bytes>>,
    /// One connects; who needs it too waits for that.
    connecting: Mutex<()>,
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    #[error("the question cannot be encoded: {0}")]
    Question(tonic::Status),
}

impl Link {
    /// Must be used inside a tokio runtime.
    pub(super) fn new(peer: Peer) -> Self {
        Self(Arc::new(Inner {
            peer,
            live: ArcSwapOption::empty(),
            connecting: Mutex::new(()),
        }))
    }

    async fn call(
        self,
        request: Request<tonic::body::Body>,
    ) -> Result<Response<Answer>, LinkError> {
        let mut requests = self.requests().await?;
        let (mut head, mut body) = request.into_parts();
        head.uri = self.0.peer.uri(head.uri.into_parts().path_and_query);
        head.version = Version::HTTP_2;
        for name in &NEVER_THE_SAME {
            if let Some(value) = head.headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let (answer, mut stream) = requests.send_request(Request::from_parts(head, ()), false)?;
        let mut last = Bytes::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(LinkError::Question)?.into_data() {
                let before = std::mem::replace(&mut last, data);
                if !before.is_empty() {
                    stream.send_data(before, false)?;
                }
            }
        }
        stream.send_data(last, true)?;
        Ok(answer.await?.map(Answer))
    }

    /// What a call can be begun with, on the connection that is there or on a new one.
    async fn requests(&self) -> Result<SendRequest<Bytes>, LinkError> {
        match self.live().await {
            Some(requests) => Ok(requests),
            // Boxed: it is rare, and each call's future would have to be as large.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, LinkError> {
        let _connecting = self.0.connecting.lock().await;
        if let Some(requests) = self.live().await {
            return Ok(requests);
        }
        let stream = self.0.peer.connect().await?;
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong();
        tokio::spawn(async move {
            // Either way it is over, and those who wait for an answer on it learn that from it.
            tokio::select! {
                _ = connection => {}
                () = silence(pings) => {}
            }
        });
        self.0.live.store(Some(Arc::new(requests.clone())));
        Ok(requests.ready().await?)
    }

    /// The connection, if there is one that takes calls.
    async fn live(&self) -> Option<SendRequest<Bytes>> {
        let live = self.0.live.load_full()?;
        SendRequest::clone(&live).ready().await.ok()
    }
}

/// Returns when a ping is not answered in time.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        // It is taken once, above.
        return std::future::pending().await;
    };
    loop {
        sleep(KEEP_ALIVE).await;
        // An error is the connection's, which ends by it.
        if timeout(KEEP_ALIVE, pings.ping(Ping::opaque()))
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Service<Request<tonic::body::Body>> for Link {
    type Response = Response<Answer>;
    type Error = LinkError;
    type Future = BoxFuture<'static, Result<Response<Answer>, LinkError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        // Whether it is, the call finds out.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.clone().call(request))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.peer).finish()
    }
}

/// An answer's body, and the trailers that hold gRPC's status.
#[derive(Debug)]
pub(super) struct Answer(RecvStream);

impl Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Self(stream) = &mut *self;
        if let Some(data) = ready!(stream.poll_data(cx)) {
            let data = data.and_then(|data| {
                stream.flow_control().release_capacity(data.len())?;
                Ok(Frame::data(data))
            });
            return Poll::Ready(Some(data));
        }
        let trailers = ready!(stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers: Result<HeaderMap, _>| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
