//! An event as JSON. serde_json writes it but for the ids of many friends: one after the other they would take it longer than all
//! that is beside them.

use std::borrow::Cow;

use importguard_proto::UserIds;
use serde::Serialize;

/// What an event of the shipped policy has beside its friends are some 900 bytes; longer ones make the buffer grow.
const ENVELOPE: usize = 1024;

/// From how many friends on they are put in as one piece: with fewer, looking for their place costs as much.
const MANY: usize = 32;

/// The place of friends that are set apart. In a JSON string quotes are escaped, so that nobody's text is taken for it.
const PLACE: &[u8] = br#""friendUserIDs":[]"#;

/// The friends of an event whose own list is empty, as JSON.
pub(super) struct FriendsApart(String);

/// Takes an event's friends out of it, if they are many and can be put in as one piece. What is returned first is what the event is
/// to hold.
pub(super) fn set_apart(friends: Cow<'_, UserIds>) -> (Cow<'_, UserIds>, Option<FriendsApart>) {
    let many = friends.len() >= MANY;
    match many.then(|| friends.to_plain_json()).flatten() {
        Some(json) => (Cow::Owned(UserIds::default()), Some(FriendsApart(json))),
        None => (friends, None),
    }
}

/// The event's bytes, with the friends that were set apart in their place.
pub(super) fn encode(event: &impl Serialize, apart: Option<FriendsApart>) -> Vec<u8> {
    let length = apart.as_ref().map_or(0, |friends| friends.0.len());
    let mut payload = Vec::with_capacity(ENVELOPE + length);
    if serde_json::to_writer(&mut payload, event).is_err() {
        // Strings, numbers and a date of this era: writing them to memory cannot fail.
        payload.clear();
    }
    let mut places = payload.windows(PLACE.len());
    if let Some(FriendsApart(friends)) = apart
        && let Some(place) = places.position(|bytes| bytes == PLACE)
    {
        let end = place + PLACE.len();
        let rest = payload.split_off(end);
        payload.truncate(end - "[]".len());
        payload.extend_from_slice(friends.as_bytes());
        payload.extend_from_slice(&rest);
    }
    payload
}

#[cfg(test)]
mod tests {
    use importguard_proto::{OperationId, UserId, event::Imported};

    use super::*;

    const HOSTILE: &str = r#""friendUserIDs":[]"#;

    fn event<'a>(owner: &str, friends: Cow<'a, UserIds>) -> Imported<'a> {
        Imported {
            operation_id: Cow::Owned(OperationId::parse(HOSTILE).unwrap()),
            owner_user_id: Cow::Owned(UserId::parse(owner).unwrap()),
            friend_user_ids: Some(friends),
            friend_count: None,
            gateway: Cow::Borrowed(HOSTILE),
            omitted: Vec::new(),
        }
    }

    #[test]
    fn an_event_is_the_same_whether_its_friends_are_set_apart_or_not() {
        for count in [0, 1, MANY - 1, MANY, 1000] {
            for name in ["user", "ü", "\n", HOSTILE] {
                let friends = (0..count).map(|n| UserId::parse(format!("{name}{n}")).unwrap());
                let friends: UserIds = friends.collect();
                let whole = event(name, Cow::Borrowed(&friends));
                let (inside, apart) = set_apart(Cow::Borrowed(&friends));
                let plain = !name.contains(['"', '\n']);
                assert_eq!(apart.is_some(), count >= MANY && plain);
                let encoded = encode(&event(name, inside), apart);
                assert_eq!(encoded, serde_json::to_vec(&whole).unwrap());
            }
        }
    }
}
