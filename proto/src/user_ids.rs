use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};

use crate::{InvalidId, Texts, UserId};

/// Users' ids in one block of memory, none of them empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserIds(Texts);

impl UserIds {
    /// Appends an id unless it is empty.
    #[inline]
    pub fn push(&mut self, id: &str) -> Result<(), InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        self.0.push(id);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.0.iter()
    }

    /// As a JSON array, the same as serde_json writes in three times the time, unless an id has anything to escape.
    pub fn to_plain_json(&self) -> Option<String> {
        let ids = self.0.joined();
        // Without a way out in between: so the compiler looks at many bytes at once.
        if ids.bytes().fold(false, |any, byte| any | escaped(byte)) {
            return None;
        }
        let quotes_and_commas = 3 * self.len();
        let mut json = String::with_capacity("[]".len() + ids.len() + quotes_and_commas);
        json.push('[');
        for (index, id) in self.iter().enumerate() {
            json.push_str(if index == 0 { "\"" } else { ",\"" });
            json.push_str(id);
            json.push('"');
        }
        json.push(']');
        Some(json)
    }
}

impl fmt::Debug for UserIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromIterator<UserId> for UserIds {
    fn from_iter<I: IntoIterator<Item = UserId>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl Serialize for UserIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for UserIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Ids)
    }
}

/// What JSON does not take into a string as it is.
fn escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

struct Ids;

impl<'de> Visitor<'de> for Ids {
    type Value = UserIds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<UserIds, A::Error> {
        let mut ids = UserIds::default();
        while elements.next_element_seed(Next(&mut ids))?.is_some() {}
        Ok(ids)
    }
}

/// Appends the next element, wherever its text lies, without a `String` of its own.
struct Next<'a>(&'a mut UserIds);

impl<'de> DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // The refusal of an empty id is no error of the visitor's, so that its place in the text is the one that it has
        // for a `UserId`.
        deserializer
            .deserialize_str(self)?
            .map_err(D::Error::custom)
    }
}

impl Visitor<'_> for Next<'_> {
    type Value = Result<(), InvalidId>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    #[inline]
    fn visit_str<E: Error>(self, id: &str) -> Result<Self::Value, E> {
        Ok(self.0.push(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_ALIKE: &[&str] = &[
        "[]",
        r#"["a","ü","b c"]"#,
        r#"[ "a" , "\u00fc\"\\\n" ]"#,
        r#"["a","a"]"#,
    ];

    const REFUSED_ALIKE: &[&str] = &[
        "",
        "null",
        "7",
        "{}",
        r#""a""#,
        r#"[""]"#,
        r#"["a", "" , "b"]"#,
        "[\n\"a\",\n\"\"\n]",
        "[null]",
        "[7]",
        r#"["a",["b"]]"#,
        r#"["a",{"b":1}]"#,
        r#"["a""#,
        r#"["a",]"#,
        r#"["a" "b"]"#,
        r#"["\ud800"]"#,
        "[\"\n\"]",
    ];

    fn each(ids: &UserIds) -> Vec<UserId> {
        ids.iter().map(|id| UserId::parse(id).unwrap()).collect()
    }

    #[test]
    fn what_is_read_and_written_is_what_a_list_of_user_ids_would_be() {
        for json in READ_ALIKE {
            let ids: UserIds = serde_json::from_str(json).unwrap();
            let listed: Vec<UserId> = serde_json::from_str(json).unwrap();
            assert_eq!(each(&ids), listed, "{json}");
            assert_eq!(listed.iter().cloned().collect::<UserIds>(), ids);
            let written = serde_json::to_string(&ids).unwrap();
            assert_eq!(written, serde_json::to_string(&listed).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_as_for_a_list_of_user_ids() {
        for json in REFUSED_ALIKE {
            let error = serde_json::from_str::<UserIds>(json).unwrap_err();
            let listed = serde_json::from_str::<Vec<UserId>>(json).unwrap_err();
            assert_eq!(error.to_string(), listed.to_string(), "{json}");
            let error = serde_json::from_slice::<UserIds>(json.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), listed.to_string(), "{json}");
        }
        let invalid = b"[\"a\",\"\xff\"]";
        let error = serde_json::from_slice::<UserIds>(invalid).unwrap_err();
        let listed = serde_json::from_slice::<Vec<UserId>>(invalid).unwrap_err();
        assert_eq!(error.to_string(), listed.to_string());
    }

    #[test]
    fn no_id_is_empty() {
        let mut ids = UserIds::default();
        assert_eq!(ids.push(""), Err(InvalidId::Empty));
        assert_eq!(ids.push("a"), Ok(()));
        assert_eq!(each(&ids), [UserId::parse("a").unwrap()]);
        assert_eq!(ids.get(0), Some("a"));
    }

    #[test]
    fn plain_json_is_what_serde_json_writes_and_there_is_none_where_something_is_escaped() {
        let read = |json: &str| serde_json::from_str::<UserIds>(json).unwrap();
        for plain in ["[]", r#"["a"]"#, r#"["a","ü / '","b c"]"#] {
            let ids = read(plain);
            let written = serde_json::to_string(&ids).unwrap();
            assert_eq!(ids.to_plain_json(), Some(written));
        }
        for escaped in 0..=u8::MAX {
            let id = char::from(escaped).to_string();
            let json = serde_json::to_string(&["a", &id]).unwrap();
            let expected = (!json.contains('\\')).then_some(&json);
            assert_eq!(read(&json).to_plain_json().as_ref(), expected);
        }
    }
}
