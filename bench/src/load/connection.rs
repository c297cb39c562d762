use std::{io, net::SocketAddr};

use anyhow::{Context, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Question, Reading};

/// Room for any answer but a modified list of thousands, for which the buffer grows.
const BUFFER_BYTES: usize = 4 * 1024;

/// More than any server here sends.
const HEADERS: usize = 16;

/// A connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    head: Vec<u8>,
    body: Bytes,
    buffer: BytesMut,
}

impl Connection {
    /// One that will put `question`.
    pub(crate) async fn open(address: SocketAddr, question: &Question) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            stream: connect(address).await?,
            head: question.head.clone(),
            body: question.body.clone(),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    /// Has it put another question from now on.
    pub(crate) fn turn_to(&mut self, question: &Question) {
        self.head.clone_from(&question.head);
        self.body.clone_from(&question.body);
    }

    /// Whether nothing was heard since the last answer: what comes without a question is the connection's end, or goes before it.
    pub(crate) fn is_quiet(&self) -> bool {
        let heard = self.stream.try_read(&mut [0]);
        heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Puts the question under an operationID made from `number`, and compares the answer.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        number: u64,
    ) -> anyhow::Result<Reading> {
        question.stamp(&mut self.head, number);
        let mut request = Buf::chain(&self.head[..], &self.body[..]);
        // Who is refused before the whole body is read may not be able to send the rest, and has an answer all the same.
        let written = self.stream.write_all_buf(&mut request).await;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                written?;
                bail!("the connection was closed before an answer");
            }
            if let Some(answer) = Answer::parse(&self.buffer)? {
                let reading = question.read(answer.status, answer.body);
                if answer.closes {
                    self.stream = connect(self.address).await?;
                }
                return reading.map_err(|why| anyhow!(why));
            }
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("{address} cannot be connected to"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Answer<'a> {
    status: u16,
    body: &'a [u8],
    /// No other question can be put on this connection.
    closes: bool,
}

impl<'a> Answer<'a> {
    /// The one answer in `bytes`, once all of it is there.
    fn parse(bytes: &'a [u8]) -> anyhow::Result<Option<Self>> {
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
        let length: usize = length.context("an answer without Content-Length")?;
        let body = &bytes[head_bytes..];
        if body.len() > length {
            bail!("more bytes than one answer");
        }
        Ok((body.len() == length).then_some(Self {
            status: head.code.unwrap_or_default(),
            body,
            closes: header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_all_of_it_is_there() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..bytes.len() {
            assert!(Answer::parse(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.body), (200, &b"{}"[..]));
        assert!(!answer.closes);
        let last = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}";
        assert!(Answer::parse(last).unwrap().unwrap().closes);
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}").is_err());
    }
}
