//! The question as it goes over the wire, written straight from the request: a list of ten thousand ids is not copied into a
//! message first, id by id.

use bytes::{BufMut, Bytes, BytesMut};
use importguard_proto::decider::DecideResponse;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{openim::ImportRequest, record::EventId};

/// The numbers of `DecideRequest`'s fields in decider.proto.
const DECISION_ID: u32 = 1;
const OPERATION_ID: u32 = 2;
const OWNER_USER_ID: u32 = 3;
const FRIEND_USER_IDS: u32 = 4;

/// A `DecideRequest`, encoded.
#[derive(Debug)]
pub(super) struct Encoded(Bytes);

impl Encoded {
    /// The question about `request`.
    pub(super) fn question(id: &EventId, request: &ImportRequest) -> Self {
        let mut id_text = EventId::buffer();
        let single = [
            (DECISION_ID, id.encoded(&mut id_text)),
            (OPERATION_ID, request.operation_id.as_str()),
            (OWNER_USER_ID, request.owner.as_str()),
        ];
        let friends = request.friends.iter();
        let bytes: usize = single.iter().map(|(_, text)| length(text)).sum();
        let mut message =
            BytesMut::with_capacity(bytes + friends.clone().map(length).sum::<usize>());
        for (field, text) in single {
            put(field, text, &mut message);
        }
        for friend in friends {
            put(FRIEND_USER_IDS, friend, &mut message);
        }
        Self(message.freeze())
    }
}

fn put(field: u32, text: &str, message: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(text.len() as u64, message);
    message.put_slice(text.as_bytes());
}

/// Of a field below number 16, whose key is one byte.
fn length(text: &str) -> usize {
    1 + encoded_len_varint(text.len() as u64) + text.len()
}

/// `Decide`'s codec on the asking side.
#[derive(Debug, Default)]
pub(super) struct DecideCodec;

impl Codec for DecideCodec {
    type Encode = Encoded;
    type Decode = DecideResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for DecideCodec {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, Encoded(message): Encoded, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.len());
        to.put(message);
        Ok(())
    }
}

impl Decoder for DecideCodec {
    type Item = DecideResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DecideResponse>, Status> {
        let decoded = DecideResponse::decode(from);
        // What the generated code says of a message that is none.
        decoded
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use importguard_proto::{OperationId, UserId, decider::DecideRequest};

    use super::*;

    #[test]
    fn the_question_is_what_the_contract_says() {
        let id = EventId::new();
        for friends in [vec![], vec!["a"], vec!["ü", "b", &*"long".repeat(100)]] {
            let request = ImportRequest {
                operation_id: OperationId::parse("op").unwrap(),
                owner: UserId::parse("owner").unwrap(),
                friends: friends
                    .iter()
                    .map(|id| UserId::parse(*id).unwrap())
                    .collect(),
            };
            let Encoded(message) = Encoded::question(&id, &request);
            let decoded = DecideRequest::decode(message.clone()).unwrap();
            assert_eq!(decoded.decision_id, id.to_string());
            assert_eq!(decoded.operation_id, "op");
            assert_eq!(decoded.owner_user_id, "owner");
            assert_eq!(decoded.friend_user_ids, friends);
            assert_eq!(decoded.encode_to_vec(), message);
        }
    }
}
