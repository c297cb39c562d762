use std::net::SocketAddr;

use anyhow::{Context, anyhow, bail, ensure};
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
    stream: TcpStream,
    head: Vec<u8>,
    body: Bytes,
    buffer: BytesMut,
}

impl Connection {
    /// One that will put `question`.
    pub(crate) async fn open(address: SocketAddr, question: &Question) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("{address} cannot be connected to"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            head: question.head.clone(),
            body: question.body.clone(),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    /// Puts the question under an operationID made from `number`, and compares the answer.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        number: u64,
    ) -> anyhow::Result<Reading> {
        question.stamp(&mut self.head, number);
        let mut request = Buf::chain(&self.head[..], &self.body[..]);
        self.stream.write_all_buf(&mut request).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the connection was closed before an answer");
            if let Some(answer) = Answer::parse(&self.buffer)? {
                return question
                    .read(answer.status, answer.body)
                    .map_err(|why| anyhow!(why));
            }
        }
    }
}

struct Answer<'a> {
    status: u16,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The one answer in `bytes`, once all of it is there.
    fn parse(bytes: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_bytes) = head.parse(bytes)? else {
            return Ok(None);
        };
        let length = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            })
            .context("an answer without Content-Length")?;
        let body = &bytes[head_bytes..];
        if body.len() > length {
            bail!("more bytes than one answer");
        }
        Ok((body.len() == length).then_some(Self {
            status: head.code.unwrap_or_default(),
            body,
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
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}").is_err());
    }
}
