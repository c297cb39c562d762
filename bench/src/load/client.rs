use std::{iter::repeat_n, net::SocketAddr};

use anyhow::{Context, anyhow, bail};
use axum::http::{Method, Request, header};
use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};

use super::{Question, Reading};

/// How many bytes of responses may be under way on an HTTP/2 connection: more than all of them together.
const WINDOW: u32 = 1024 * 1024;

/// Room for any response but a modified list of thousands, for which the buffer grows.
const BUFFER_BYTES: usize = 4 * 1024;

/// More than any server here sends.
const HEADERS: usize = 16;

/// An HTTP/1.1 connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    head: Vec<u8>,
    buffer: BytesMut,
}

impl Connection {
    /// One that will send `question`.
    pub(crate) async fn open(address: SocketAddr, question: &Question) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            stream: connect(address).await?,
            head: question.head.clone(),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends the request with an operationID made from `number`, and compares the response.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        number: u64,
    ) -> anyhow::Result<Reading> {
        question.stamp(&mut self.head, number);
        let mut request = Buf::chain(&self.head[..], &question.body[..]);
        // A request that is refused before its whole body is read may fail to be sent, and has a response all the same.
        let written = self.stream.write_all_buf(&mut request).await;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                written?;
                bail!("the connection was closed before the response");
            }
            if let Some((status, body, closes)) = parse(&self.buffer)? {
                let reading = question.read(status, body);
                if closes {
                    self.stream = connect(self.address).await?;
                }
                return reading.map_err(|why| anyhow!(why));
            }
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The one response in `bytes`, once it is complete: its status, its body, and whether no other request can be sent after it.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u16, &[u8], bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(bytes)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let mut headers = head.headers.iter();
        let header = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let length = header("content-length").and_then(|value| value.parse().ok());
    let length: usize = length.context("a response without Content-Length")?;
    let body = &bytes[head_bytes..];
    if body.len() > length {
        bail!("more bytes than one response");
    }
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let status = head.code.unwrap_or_default();
    Ok((body.len() == length).then_some((status, body, closes)))
}

/// One of the streams that an HTTP/2 connection can carry at once.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    client: SendRequest<Bytes>,
    request: Request<()>,
}

impl Stream {
    /// So many, spread evenly over `connections`. Must be called inside a `LocalSet`.
    pub(crate) async fn open(
        address: SocketAddr,
        count: usize,
        connections: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for left in (1..=connections.min(count)).rev() {
            let mut builder = h2::client::Builder::new();
            builder.initial_connection_window_size(WINDOW);
            let (client, connection) = builder.handshake(connect(address).await?).await?;
            // Each of its streams reports its end.
            spawn_local(async move { drop(connection.await) });
            let uri = format!("http://{address}/callbackBeforeImportFriendsCommand");
            let request = Request::builder().method(Method::POST).uri(uri);
            let request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
            let (request, streams) = (request.body(())?, (count - all.len()).div_ceil(left));
            all.extend(repeat_n(Self { client, request }, streams));
        }
        Ok(all)
    }

    /// Sends the request with an operationID made from `number`, and compares the response.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        number: u64,
    ) -> anyhow::Result<Reading> {
        let mut request = self.request.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_LENGTH, question.body.len().into());
        headers.insert("operationid", number.into());
        let mut client = self.client.clone().ready().await?;
        let (response, mut body) = client.send_request(request, false)?;
        body.send_data(question.body.clone(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut whole = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            whole.extend_from_slice(&part);
        }
        let reading = question.read(head.status.as_u16(), &whole);
        reading.map_err(|why| anyhow!(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_when_all_of_it_is_there() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(parse(bytes).unwrap(), Some((200, &b"{}"[..], false)));
        assert!(parse(&[&bytes[..], b"}"].concat()).is_err());
    }
}
