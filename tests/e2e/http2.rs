//! HTTP/2 on the public listener, frame by frame: what h2 answers before importguard sees a request lets nobody through.

use std::time::Duration;

use importguard_tests::{Service, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(15);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Frame types and flags of RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: [u8; 4] = [0, 0, 0, 0];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// A payload may have 16,384 bytes unless the other side allows more.
const MAX_PAYLOAD: usize = 16_384;

#[derive(Debug, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Connection(TcpStream);

impl Connection {
    async fn open(gateway: &Service) -> Self {
        let mut stream = TcpStream::connect(gateway.http_address()).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut connection = Self(stream);
        connection.send(SETTINGS, 0, 0, &[]).await;
        connection
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// Begins a callback whose body is still to come, with `filler` more bytes of headers.
    async fn begin(&mut self, stream: u32, filler: usize) {
        let path = "/callbackBeforeImportFriendsCommand";
        // :method POST and :scheme http from the static table, then :path, operationid and fillers as they are.
        let mut block = vec![0x83, 0x86, 0x04];
        string(&mut block, path);
        for (name, value) in [("operationid", "op"), ("x", &"x".repeat(filler))] {
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
    async fn next(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next_of_any().await;
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next frame that is about a stream, and not about the connection.
    async fn next_of_any(&mut self) -> Frame {
        loop {
            let frame = timeout(PATIENCE, self.read()).await.expect("a frame");
            if frame.stream != 0 {
                return frame;
            }
        }
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

#[tokio::test]
async fn one_request_too_many_on_a_connection_is_refused_and_the_others_are_answered() {
    let settings = Settings::new()
        .set("IMPORTGUARD_HTTP2_MAX_STREAMS", "2")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s");
    let gateway = Service::gateway(settings).await;
    let mut connection = Connection::open(&gateway).await;
    for stream in [1, 3, 5] {
        connection.begin(stream, 0).await;
    }
    let refused = connection.next(5).await;
    assert_eq!(refused.kind, RST_STREAM);
    assert_eq!(refused.payload, REFUSED_STREAM);

    // An empty body is none, which is said in a body.
    connection.send(DATA, END_STREAM, 3, &[]).await;
    assert_eq!(connection.next(3).await.kind, HEADERS);
    let answer = connection.next(3).await;
    assert_eq!(answer.kind, DATA);
    let answer = String::from_utf8(answer.payload).unwrap();
    assert!(answer.contains(r#""errCode":5900"#), "{answer}");
    // There is room again.
    connection.begin(7, 0).await;
    connection.send(DATA, END_STREAM, 7, &[]).await;
    assert_eq!(connection.next(7).await.kind, HEADERS);
}

#[tokio::test]
async fn headers_that_h2_itself_does_not_take_get_no_body_to_misunderstand() {
    let settings = Settings::new().set("IMPORTGUARD_MAX_HEADER_BYTES", "4096");
    let gateway = Service::gateway(settings).await;
    let mut connection = Connection::open(&gateway).await;
    // Between one and four times the bound the answer is importguard's.
    connection.begin(1, 8_000).await;
    assert_eq!(connection.next(1).await.kind, HEADERS);
    let answer = connection.next(1).await;
    assert_eq!(answer.kind, DATA);
    let answer = String::from_utf8(answer.payload).unwrap();
    assert!(answer.contains(r#""errCode":5903"#), "{answer}");
    // Beyond that it is h2's: a status, and no body that could be read as consent.
    connection.begin(3, 20_000).await;
    let answer = connection.next(3).await;
    assert_eq!(
        (answer.kind, answer.flags),
        (HEADERS, END_HEADERS | END_STREAM)
    );
    // The connection goes on.
    connection.begin(5, 0).await;
    connection.send(DATA, END_STREAM, 5, &[]).await;
    assert_eq!(connection.next(5).await.kind, HEADERS);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_does_not_reset_the_stream_under_a_caller_that_still_sends()
 {
    let settings = Settings::new().set("IMPORTGUARD_BASE_PATH", "/secret");
    let gateway = Service::gateway(settings).await;
    let mut connection = Connection::open(&gateway).await;
    connection.begin(1, 0).await;
    assert_eq!(connection.next(1).await.kind, HEADERS);
    let answer = connection.next(1).await;
    assert_eq!((answer.kind, answer.flags), (DATA, END_STREAM));
    connection.send(DATA, END_STREAM, 1, b"{}").await;
    // The next that is heard is about the next request.
    connection.begin(3, 0).await;
    let next = connection.next_of_any().await;
    assert_eq!((next.stream, next.kind), (3, HEADERS));
    assert_eq!(connection.next_of_any().await.kind, DATA);
    // This one's body never ends, and that is not waited for for ever.
    let reset = connection.next_of_any().await;
    assert_eq!((reset.stream, reset.kind), (3, RST_STREAM));
    assert_eq!(reset.payload, NO_ERROR);
}
