use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than any time-out of importguard's, by default.
const PATIENCE: Duration = Duration::from_secs(15);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags of RFC 9113, section 6.
pub mod frame {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

use frame::{CONTINUATION, END_HEADERS, HEADERS, SETTINGS};

/// A payload may have 16,384 bytes unless the other side allows more.
const MAX_PAYLOAD: usize = 16_384;

/// A frame that came.
#[derive(Debug, PartialEq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its content.
    pub payload: Vec<u8>,
}

/// An HTTP/2 connection on which a test writes each frame.
#[derive(Debug)]
pub struct Http2Connection(TcpStream);

impl Http2Connection {
    /// Connects to `host:port` with settings as bytes.
    pub async fn open(address: &str, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.write_all(PREFACE).await.unwrap();
        let mut connection = Self(stream);
        connection.send(SETTINGS, 0, 0, settings).await;
        connection
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).await.unwrap();
    }

    /// Sends a frame, unless the other side has hung up.
    pub async fn try_send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await
    }

    /// Begins a callback whose body is still to come, with `filler` more bytes of headers.
    pub async fn begin(&mut self, stream: u32, filler: usize) {
        self.begin_at("/callbackBeforeImportFriendsCommand", stream, filler)
            .await;
    }

    /// The same to any path.
    pub async fn begin_at(&mut self, path: &str, stream: u32, filler: usize) {
        self.begin_with(
            path,
            stream,
            &[("operationid", "op"), ("x", &"x".repeat(filler))],
        )
        .await;
    }

    /// The same with these headers.
    pub async fn begin_with(&mut self, path: &str, stream: u32, headers: &[(&str, &str)]) {
        // :method POST and :scheme http from the static table, then :path, operationid and fillers as they are.
        let mut block = vec![0x83, 0x86, 0x04];
        string(&mut block, path);
        for (name, value) in headers {
            block.push(0);
            string(&mut block, name);
            string(&mut block, value);
        }
        let mut parts = block.chunks(MAX_PAYLOAD).enumerate().peekable();
        while let Some((n, part)) = parts.next() {
            let kind = if n == 0 { HEADERS } else { CONTINUATION };
            let flags = if parts.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            self.send(kind, flags, stream, part).await;
        }
    }

    /// The next frame about `stream`.
    pub async fn next(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next_of_any().await;
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next frame that is about a stream, and not about the connection.
    pub async fn next_of_any(&mut self) -> Frame {
        loop {
            let frame = timeout(PATIENCE, self.read()).await.expect("a frame");
            if frame.stream != 0 {
                return frame;
            }
        }
    }

    /// Reads until the other side hangs up.
    pub async fn ends(&mut self) {
        let mut rest = Vec::new();
        // Cut, it may be reset.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the other side hangs up");
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        }
    }
}

/// A string as HPACK has it, without Huffman's code: its length with seven bits to begin with.
fn string(block: &mut Vec<u8>, text: &str) {
    if text.len() < 127 {
        block.push(u8::try_from(text.len()).unwrap());
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend_from_slice(text.as_bytes());
}
