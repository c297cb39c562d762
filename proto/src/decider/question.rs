use std::{iter, ops::Range};

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{
        DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, skip_field, string,
    },
};

use crate::Texts;

/// The numbers of `DecideRequest`'s fields in decider.proto.
const DECISION_ID: u32 = 1;
const OPERATION_ID: u32 = 2;
const OWNER_USER_ID: u32 = 3;
const FRIEND_USER_IDS: u32 = 4;

/// What stands before a friend on the wire: the field's number, and that it has a length.
const FRIEND_KEY: u8 = (FRIEND_USER_IDS << 3) as u8 | WireType::LengthDelimited as u8;

/// A `DecideRequest` for who answers it: the same on the wire, and in memory its friends are one block instead of a `String`
/// each, which would be most of the work that a question about a thousand friends makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The gateway's id for this decision.
    pub decision_id: String,
    /// OpenIM's operationID.
    pub operation_id: String,
    /// OpenIM's ownerUserID: who imports.
    pub owner_user_id: String,
    /// OpenIM's friendUserIDs, in the order they were sent. Unchecked: some may be empty.
    pub friend_user_ids: Texts,
}

impl Question {
    fn single(&self) -> impl Iterator<Item = (u32, &String)> {
        let all = [
            (DECISION_ID, &self.decision_id),
            (OPERATION_ID, &self.operation_id),
            (OWNER_USER_ID, &self.owner_user_id),
        ];
        // As protobuf has it: what is empty is left out.
        all.into_iter().filter(|(_, text)| !text.is_empty())
    }

    fn merge_friends(
        &mut self,
        wire_type: WireType,
        wire: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if wire_type == WireType::LengthDelimited {
            let taken = self.take_row(wire.chunk());
            if taken > 0 {
                wire.advance(taken);
                return Ok(());
            }
        }
        let mut friend = String::new();
        string::merge(wire_type, &mut friend, wire, context)?;
        self.friend_user_ids.push(&friend);
        Ok(())
    }

    /// Takes the friends that [`row`] finds, up to the first that is no UTF-8, and says how many bytes that were.
    fn take_row(&mut self, wire: &[u8]) -> usize {
        let end = row(wire).last().map_or(0, |friend| friend.end);
        let text = valid(wire.get(..end).unwrap_or_default());
        let mut taken = 0;
        for friend in row(text.as_bytes()) {
            taken = friend.end;
            self.friend_user_ids
                .push(text.get(friend).unwrap_or_default());
        }
        taken
    }
}

/// Where in `wire`, which begins with the first one's length, friends stand one behind the other with a key and a length of one
/// byte each: nearly always all of them. Such bytes are ASCII. So all of the row can be looked at as one text, at a fraction of
/// the cost: it is UTF-8 if and only if each friend is, for no character reaches across a byte of ASCII.
fn row(wire: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut length_at = Some(0);
    iter::from_fn(move || {
        let at = length_at?;
        let length = wire.get(at).filter(|byte| byte.is_ascii())?;
        let friend = at + 1..at + 1 + usize::from(*length);
        length_at = (wire.get(friend.end) == Some(&FRIEND_KEY)).then_some(friend.end + 1);
        (friend.end <= wire.len()).then_some(friend)
    })
}

/// As much of it as is UTF-8.
fn valid(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_else(|_| {
        let first = bytes.utf8_chunks().next();
        first.map_or("", |chunk| chunk.valid())
    })
}

impl Message for Question {
    fn encode_raw(&self, wire: &mut impl BufMut) {
        for (field, text) in self.single() {
            string::encode(field, text, wire);
        }
        for friend in self.friend_user_ids.iter() {
            encode_key(FRIEND_USER_IDS, WireType::LengthDelimited, wire);
            encode_varint(friend.len() as u64, wire);
            wire.put_slice(friend.as_bytes());
        }
    }

    fn merge_field(
        &mut self,
        field: u32,
        wire_type: WireType,
        wire: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (name, merged) = match field {
            DECISION_ID => (
                "decision_id",
                string::merge(wire_type, &mut self.decision_id, wire, context),
            ),
            OPERATION_ID => (
                "operation_id",
                string::merge(wire_type, &mut self.operation_id, wire, context),
            ),
            OWNER_USER_ID => (
                "owner_user_id",
                string::merge(wire_type, &mut self.owner_user_id, wire, context),
            ),
            FRIEND_USER_IDS => (
                "friend_user_ids",
                self.merge_friends(wire_type, wire, context),
            ),
            _ => return skip_field(wire_type, field, wire, context),
        };
        merged.map_err(|mut error| {
            error.push("DecideRequest", name);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let single = self
            .single()
            .map(|(field, text)| string::encoded_len(field, text));
        let friends = self.friend_user_ids.iter().map(|friend| {
            let key = 1;
            key + encoded_len_varint(friend.len() as u64) + friend.len()
        });
        single.sum::<usize>() + friends.sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decider::DecideRequest;

    fn generated(friends: &[&str]) -> DecideRequest {
        DecideRequest {
            decision_id: "d".to_owned(),
            operation_id: String::new(),
            owner_user_id: "owner".to_owned(),
            friend_user_ids: friends.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn same(question: &Question, generated: &DecideRequest) -> bool {
        question.decision_id == generated.decision_id
            && question.operation_id == generated.operation_id
            && question.owner_user_id == generated.owner_user_id
            && question
                .friend_user_ids
                .iter()
                .eq(&generated.friend_user_ids)
    }

    /// Whatever the bytes are, both say the same, also where they come in two pieces.
    fn alike(wire: &[u8]) {
        let expected = DecideRequest::decode(wire);
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            match (Question::decode(head.chain(tail)), &expected) {
                (Ok(question), Ok(expected)) => assert!(same(&question, expected), "{question:?}"),
                (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected.to_string()),
                (question, expected) => panic!("{question:?} is not {expected:?} ({wire:?})"),
            }
        }
    }

    #[test]
    fn a_question_is_on_the_wire_what_the_generated_message_is() {
        let long = "long".repeat(100);
        for friends in [
            &[][..],
            &["a"],
            &["", "a", "", ""],
            &["ü", "b", &long, "c", &long, &long, "\u{10ffff}"],
        ] {
            let generated = generated(friends);
            let wire = generated.encode_to_vec();
            alike(&wire);
            let question = Question::decode(&*wire).unwrap();
            assert_eq!(question.encode_to_vec(), wire);
        }
    }

    #[test]
    fn what_is_no_question_is_refused_as_by_the_generated_message() {
        let wire = generated(&["a", "ü", "bc"]).encode_to_vec();
        for cut in 0..wire.len() {
            alike(&wire[..cut]);
        }
        for at in 0..wire.len() {
            for byte in [0, 1, 0x22, 0x23, 0x24, 0x2a, 0x7f, 0x80, 0xc3, 0xff] {
                let mut wire = wire.clone();
                wire[at] = byte;
                alike(&wire);
            }
        }
    }

    #[test]
    fn a_character_across_two_friends_is_none() {
        // "ü" in halves.
        alike(&[0x22, 1, 0xc3, 0x22, 1, 0xbc]);
        alike(&[0x22, 1, b'a', 0x22, 1, 0xc3, 0x22, 1, 0xbc]);
    }

    #[test]
    fn a_length_that_could_be_a_character_is_a_length() {
        // As a varint this number begins with the bytes of "Ä".
        let friend = "a".repeat(0x43 | 4 << 7 | 1 << 14);
        for friends in [&[&*friend][..], &["a", &friend, "b"]] {
            let wire = generated(friends).encode_to_vec();
            assert!(wire.windows(3).any(|bytes| bytes == [0xc3, 0x84, 1]));
            let question = Question::decode(&*wire).unwrap();
            assert!(question.friend_user_ids.iter().eq(friends.iter().copied()));
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_friends_come_in_any_place() {
        let unknown = [0x7a, 2, 0xff, 0xff];
        let one = [0x22, 1, b'a', 0x22, 0];
        let wire = [&one[..], &unknown, &one, &[0x1a, 1, b'o'], &one].concat();
        alike(&wire);
        let question = Question::decode(&*wire).unwrap();
        assert!(
            question
                .friend_user_ids
                .iter()
                .eq(["a", "", "a", "", "a", ""])
        );
        assert_eq!(question.owner_user_id, "o");
    }
}
