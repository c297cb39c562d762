//! How a body's length is told, truly or not.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::head::Fate;

#[derive(Clone, Debug)]
pub(super) enum Framing {
    Length,
    Chunks(Vec<usize>),
    Shorter(Index),
    Longer(usize),
    Untold,
    Twice,
    LengthAndChunks,
    Unusable(&'static str),
    BadChunk(&'static str),
}

/// A body on the wire.
pub(super) struct Framed {
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    pub(super) fate: Fate,
    /// Whether HTTP leaves no doubt about where it ends.
    pub(super) ends_clearly: bool,
    /// Whether a reader may wait for more than there is.
    pub(super) waits: bool,
}

pub(super) fn any_framing() -> impl Strategy<Value = Framing> {
    let unusable = prop::sample::select(vec![
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: abc",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
    ]);
    let bad_chunk = prop::sample::select(vec![
        "zz\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "-1\r\n",
        "2{}0",
        "2\r\n{}}\r\n0\r\n\r\n",
    ]);
    prop_oneof![
        8 => Just(Framing::Length),
        4 => vec(1..200usize, 1..20).prop_map(Framing::Chunks),
        1 => any::<Index>().prop_map(Framing::Shorter),
        1 => (1..1000usize).prop_map(Framing::Longer),
        1 => Just(Framing::Untold),
        1 => Just(Framing::Twice),
        1 => Just(Framing::LengthAndChunks),
        1 => unusable.prop_map(Framing::Unusable),
        1 => bad_chunk.prop_map(Framing::BadChunk),
    ]
}

impl Framing {
    pub(super) fn is_chunked(&self) -> bool {
        matches!(
            self,
            Self::Chunks(_) | Self::LengthAndChunks | Self::BadChunk(_)
        )
    }

    pub(super) fn frame(&self, body: Vec<u8>) -> Framed {
        let length = |bytes: usize| format!("Content-Length: {bytes}\r\n");
        let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
        let framed = |headers, body, fate| Framed {
            headers,
            body,
            fate,
            // With a length and chunks the connection ends after the answer, as RFC 9112 (6.3) has it.
            ends_clearly: matches!(self, Self::Length | Self::Chunks(_) | Self::Twice),
            waits: matches!(
                self,
                Self::Shorter(_) | Self::Longer(_) | Self::Untold | Self::BadChunk(_)
            ),
        };
        match self {
            Self::Length => framed(length(body.len()), body, Fate::Heard),
            Self::Chunks(sizes) => framed(chunked, chunks(&body, sizes), Fate::Heard),
            Self::Shorter(at) => {
                // Without its last brace no body is a request.
                let last = body.iter().rposition(|&byte| byte == b'}').unwrap_or(0);
                framed(length(at.index(last + 1)), body, Fate::Refused)
            }
            Self::Longer(by) => framed(length(body.len() + by), body, Fate::Refused),
            Self::Untold => framed(String::new(), body, Fate::Refused),
            Self::Twice => framed(length(body.len()).repeat(2), body, Fate::Unclear),
            Self::LengthAndChunks => {
                let headers = length(body.len()) + &chunked;
                framed(headers, chunks(&body, &[7]), Fate::Unclear)
            }
            Self::Unusable(headers) => framed(format!("{headers}\r\n"), body, Fate::NoHttp),
            Self::BadChunk(bytes) => framed(chunked, bytes.as_bytes().to_vec(), Fate::Refused),
        }
    }
}

/// `body` in chunks of `sizes`, over and over; every other one with an extension, and a trailer at the end.
fn chunks(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut chunked = Vec::new();
    let mut rest = body;
    for (n, &size) in sizes.iter().cycle().enumerate() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        let extension = if n % 2 == 1 { ";name=value" } else { "" };
        chunked.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
        rest = after;
    }
    chunked.extend_from_slice(b"0\r\nX-Trailer: x\r\n\r\n");
    chunked
}
