use std::{fmt, io};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{OpenIm, Response, SOON};

/// A connection on which a test can write any bytes.
pub struct RawConnection {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl fmt::Debug for RawConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawConnection").field(&self.text()).finish()
    }
}

impl RawConnection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// The same over an established connection.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            read: Vec::new(),
        }
    }

    /// Sends `bytes`.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Shuts down the sending side, unless the peer has closed the connection.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads one answer: its head, and a body as long as `Content-Length` says.
    pub async fn answer(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read_more().await, "hung up: {:?}", self.text());
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status: StatusCode = status.expect("a status line").parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header");
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        let length = match headers.get("content-length") {
            None if status.is_informational() => 0,
            length => length.expect("a length").to_str().unwrap().parse().unwrap(),
        };
        while self.read.len() < length {
            assert!(self.read_more().await, "hung up: {:?}", self.text());
        }
        Response {
            status,
            headers,
            body: Bytes::from(self.read.drain(..length).collect::<Vec<_>>()),
        }
    }

    /// Reads all answers until the peer closes or resets the connection, without interim ones (100 Continue).
    pub async fn answers(&mut self) -> Vec<Response> {
        let mut answers = Vec::new();
        while !self.read.is_empty() || matches!(self.read_some().await, Ok(1..)) {
            let answer = self.answer().await;
            if !answer.status.is_informational() {
                answers.push(answer);
            }
        }
        answers
    }

    /// Reads until the peer closes or resets the connection, and returns what it sent: to input that is not HTTP, that is not a
    /// callback answer.
    pub async fn read_to_end(&mut self) -> String {
        while let Ok(1..) = self.read_some().await {}
        self.text()
    }

    /// Waits until the peer closes the connection. Fails the test if it sends anything first.
    pub async fn wait_for_close(&mut self) {
        while self.read_more().await {}
        assert!(self.read.is_empty(), "more: {:?}", self.text());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    async fn read_more(&mut self) -> bool {
        self.read_some().await.expect("no reset") > 0
    }

    async fn read_some(&mut self) -> io::Result<usize> {
        let read = timeout(SOON, self.stream.read_buf(&mut self.read)).await;
        read.expect("the other side does something")
    }
}

/// The bytes of a request to `path`.
pub fn post(path: &str, operation_id: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nOperationid: {operation_id}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The bytes of open-im-server's callback before an import that the usual policy allows.
pub fn callback(operation_id: &str) -> String {
    let body = OpenIm::server("").body("user123", &["user456"]);
    post("/callbackBeforeImportFriendsCommand", operation_id, &body)
}
