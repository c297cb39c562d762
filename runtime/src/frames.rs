//! The frames of HTTP/2, as they pass.

/// The length of a frame's header (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;

/// Follows the frames that a peer sends, to tell the bodies of requests from everything else.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// How much of a frame's header has arrived.
    header: usize,
    length: usize,
    is_data: bool,
    /// How much of its payload has not arrived yet.
    payload: usize,
}

impl Frames {
    /// How many of the next `bytes` are not the payload of a DATA frame.
    pub(crate) fn beside_data(&mut self, mut bytes: &[u8]) -> usize {
        let mut beside = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let (payload, rest) = bytes.split_at(self.payload.min(bytes.len()));
                self.payload -= payload.len();
                beside += if self.is_data { 0 } else { payload.len() };
                bytes = rest;
                continue;
            }
            match self.header {
                0..3 => self.length = self.length << 8 | usize::from(first),
                3 => self.is_data = first == 0,
                _ => {}
            }
            self.header += 1;
            if self.header == HEADER_BYTES {
                *self = Self {
                    payload: self.length,
                    is_data: self.is_data,
                    ..Self::default()
                };
            }
            beside += 1;
            bytes = rest;
        }
        beside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let header = [&length[1..], &[kind, 0, 0, 0, 0, 1]].concat();
        [header, vec![7; payload]].concat()
    }

    #[test]
    fn only_the_payload_of_data_does_not_count_however_it_arrives() {
        let sent = [
            frame(0, 70_000),
            frame(6, 8),
            frame(0, 0),
            frame(1, 300),
            frame(0, 1),
        ]
        .concat();
        for size in [1, 7, 9, 4_096, sent.len()] {
            let mut frames = Frames::default();
            let counted = sent.chunks(size).map(|bytes| frames.beside_data(bytes));
            assert_eq!(counted.sum::<usize>(), 5 * HEADER_BYTES + 308, "{size}");
        }
    }
}
