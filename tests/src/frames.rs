use std::{collections::VecDeque, time::Duration};

use crate::SOON;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
    time::timeout,
};

/// Maximum size of a payload, unless the peer allows more.
const MAX_PAYLOAD: usize = 16_384;

/// A frame of HTTP/2.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

// Types and flags of RFC 9113, section 6.
impl Frame {
    /// What a connection begins with.
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// A head, or its beginning.
    pub const HEADERS: u8 = 1;
    /// Cancellation of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Settings of the sender.
    pub const SETTINGS: u8 = 4;
    /// A request for an answer, or with [`ACK`](Self::ACK) the answer.
    pub const PING: u8 = 6;
    /// The end of the connection, after the streams that it names.
    pub const GOAWAY: u8 = 7;
    /// A larger flow-control window.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The continuation of a head.
    pub const CONTINUATION: u8 = 9;
    /// The flag of a stream's last frame.
    pub const END_STREAM: u8 = 1;
    /// The flag of an acknowledgement.
    pub const ACK: u8 = 1;
    /// The flag of a head's last frame.
    pub const END_HEADERS: u8 = 4;

    /// A frame as it is sent.
    pub fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }
}

/// Initial flow-control window of a connection, in bytes.
const WINDOW_BYTES: usize = 65_535;

/// The number of the setting SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113).
const INITIAL_WINDOW_SIZE: u16 = 4;

/// An HTTP/2 connection, frame by frame. Frames are read immediately, but no flow-control window is ever increased.
#[derive(Debug)]
pub struct Http2Connection {
    write: OwnedWriteHalf,
    frames: mpsc::UnboundedReceiver<Frame>,
    /// Frames that were received while sending.
    kept: VecDeque<Frame>,
    /// The peer's flow-control window, in bytes.
    room: usize,
}

impl Http2Connection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> Self {
        Self::open_with(address, &[]).await
    }

    /// The same, with a flow-control window of `bytes` for each stream's response.
    pub async fn open_with_window(address: &str, bytes: u32) -> Self {
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend_from_slice(&bytes.to_be_bytes());
        Self::open_with(address, &setting).await
    }

    async fn open_with(address: &str, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        let (mut read, write) = stream.into_split();
        let (heard, frames) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let mut head = [0; 9];
                // An end in whatever form is one.
                if read.read_exact(&mut head).await.is_err() {
                    return;
                }
                let [a, b, c, kind, flags, stream @ ..] = head;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    return;
                }
                let frame = Frame {
                    kind,
                    flags,
                    stream: u32::from_be_bytes(stream),
                    payload,
                };
                if heard.send(frame).is_err() {
                    return;
                }
            }
        });
        let mut connection = Self {
            write,
            frames,
            kept: VecDeque::new(),
            room: WINDOW_BYTES,
        };
        connection.write.write_all(Frame::PREFACE).await.unwrap();
        connection.send(Frame::SETTINGS, 0, 0, settings).await;
        connection
    }

    /// Sends a frame, unless the peer has closed the connection.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let frame = Frame::bytes(kind, flags, stream, payload);
        let _ = self.write.write_all(&frame).await;
    }

    /// Answers `count` pings that were never sent.
    pub async fn acknowledge_pings(&mut self, count: usize) {
        for _ in 0..count {
            self.send(Frame::PING, Frame::ACK, 0, &[0; 8]).await;
        }
    }

    /// Sends the head of a callback, with `filler` more bytes of headers.
    pub async fn begin(&mut self, stream: u32, filler: usize) {
        let path = "/callbackBeforeImportFriendsCommand";
        let fields = [("operationid", "op"), ("x", &"x".repeat(filler))];
        self.head(stream, path, &fields).await;
    }

    /// Sends a `POST` of `body`, which must fit into a stream's initial window, to `path`.
    pub async fn post(&mut self, stream: u32, path: &str, body: &[u8]) {
        self.head(stream, path, &[("operationid", "op")]).await;
        self.send_body(stream, body, Frame::END_STREAM).await;
    }

    /// Sends a gRPC call with a message, its prefix included.
    pub async fn call(&mut self, stream: u32, path: &str, message: &[u8]) {
        self.grpc(stream, path, message, Frame::END_STREAM).await;
    }

    /// Begins a gRPC call with a part of a message; the rest never comes.
    pub async fn call_without_end(&mut self, stream: u32, path: &str, message: &[u8]) {
        self.grpc(stream, path, message, 0).await;
    }

    async fn grpc(&mut self, stream: u32, path: &str, message: &[u8], last_flags: u8) {
        let fields = [("operationid", "op"), ("content-type", "application/grpc")];
        self.head(stream, path, &fields).await;
        self.send_body(stream, message, last_flags).await;
    }

    /// Sends a body, with `last_flags` in its last frame.
    async fn send_body(&mut self, stream: u32, body: &[u8], last_flags: u8) {
        let mut parts = body.chunks(MAX_PAYLOAD).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let flags = if last { last_flags } else { 0 };
            while self.room < part.len() {
                let heard = timeout(SOON, self.hear()).await;
                match heard.expect("there is room for a body, or an end") {
                    Some(frame) => self.kept.push_back(frame),
                    None => return,
                }
            }
            self.room -= part.len();
            self.send(Frame::DATA, flags, stream, part).await;
        }
    }

    async fn head(&mut self, stream: u32, path: &str, fields: &[(&str, &str)]) {
        // :method POST and :scheme http from the static table, then :path and the fields as they are.
        let mut block = vec![0x83, 0x86, 0x04];
        string(&mut block, path);
        for (name, value) in fields {
            block.push(0);
            string(&mut block, name);
            string(&mut block, value);
        }
        let mut parts = block.chunks(MAX_PAYLOAD).enumerate().peekable();
        while let Some((n, part)) = parts.next() {
            let kind = if n == 0 {
                Frame::HEADERS
            } else {
                Frame::CONTINUATION
            };
            let last = parts.peek().is_none();
            let flags = if last { Frame::END_HEADERS } else { 0 };
            self.send(kind, flags, stream, part).await;
        }
    }

    /// The next frame of `stream`.
    pub async fn next(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next_on_any_stream().await;
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next frame of any stream.
    pub async fn next_on_any_stream(&mut self) -> Frame {
        loop {
            let frame = timeout(SOON, self.receive()).await;
            let frame = frame.expect("a frame in time").expect("a frame");
            if frame.stream != 0 {
                return frame;
            }
        }
    }

    /// Waits until the peer says that it will close the connection. Panics if it closes it without a word.
    pub async fn is_told_to_leave(&mut self) {
        let told = async { while self.receive().await.expect("a frame").kind != Frame::GOAWAY {} };
        timeout(SOON, told).await.expect("GOAWAY in time");
    }

    async fn receive(&mut self) -> Option<Frame> {
        match self.kept.pop_front() {
            None => self.hear().await,
            kept => kept,
        }
    }

    /// The next frame, unless the peer has closed the connection.
    async fn hear(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        if let (Frame::WINDOW_UPDATE, 0, Ok(more)) = (
            frame.kind,
            frame.stream,
            frame.payload.as_slice().try_into(),
        ) {
            self.room += u32::from_be_bytes(more) as usize;
        }
        Some(frame)
    }

    /// The types of all frames that the peer sends until it closes the connection.
    pub async fn kinds_until_closed(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        let ended = async {
            while let Some(frame) = self.receive().await {
                kinds.push(frame.kind);
            }
        };
        timeout(SOON, ended).await.expect("it is closed");
        kinds
    }

    /// Whether the peer closes the connection within `time`.
    pub async fn closes_within(&mut self, time: Duration) -> bool {
        let end = async { while self.receive().await.is_some() {} };
        timeout(time, end).await.is_ok()
    }
}

/// A string in HPACK, without Huffman coding: its length with a 7-bit prefix, and its bytes.
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
