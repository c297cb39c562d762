use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::{net::TcpStream, task::spawn_local};

use super::{Question, Reading};

/// What the gateway allows on a connection, by the default of `IMPORTGUARD_HTTP2_MAX_STREAMS`.
pub(crate) const STREAMS: usize = 100;

/// How many bytes of answers may be under way on a connection: more than all of them together.
const WINDOW: u32 = 1024 * 1024;

/// One of the questions that an HTTP/2 connection can carry at once.
#[derive(Debug)]
pub(super) struct Stream {
    client: SendRequest<Bytes>,
    uri: Uri,
}

impl Stream {
    /// So many, over as few connections as that takes. Must be called inside a `LocalSet`.
    pub(super) async fn open(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Self>> {
        let uri = format!("http://{address}/callbackBeforeImportFriendsCommand?contenttype=json");
        let uri: Uri = uri.parse()?;
        let mut all = Vec::with_capacity(count);
        let mut left = count;
        while left > 0 {
            let stream = TcpStream::connect(address).await;
            let stream = stream.with_context(|| format!("{address} cannot be connected to"))?;
            stream.set_nodelay(true)?;
            let mut builder = h2::client::Builder::new();
            builder.initial_connection_window_size(WINDOW);
            let (client, connection) = builder.handshake(stream).await?;
            // Its end is told to each of its streams.
            spawn_local(async move { drop(connection.await) });
            let streams = left.min(STREAMS);
            all.extend((0..streams).map(|_| Self {
                client: client.clone(),
                uri: uri.clone(),
            }));
            left -= streams;
        }
        Ok(all)
    }

    /// Puts the question under an operationID made from `number`, and compares the answer.
    pub(super) async fn ask(
        &mut self,
        question: &Question,
        number: u64,
    ) -> anyhow::Result<Reading> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CONTENT_LENGTH, question.body().len().into());
        headers.insert(HeaderName::from_static("operationid"), number.into());
        let mut client = self.client.clone().ready().await?;
        let (answer, mut body) = client.send_request(request, false)?;
        body.send_data(question.body().clone(), true)?;
        let answer = answer.await?;
        let status = answer.status().as_u16();
        let mut answer = answer.into_body();
        let mut whole = BytesMut::new();
        while let Some(part) = answer.data().await {
            let part = part?;
            answer.flow_control().release_capacity(part.len())?;
            whole.extend_from_slice(&part);
        }
        question.read(status, &whole).map_err(|why| anyhow!(why))
    }
}
