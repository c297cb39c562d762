//! Bodies: a callback's JSON in all the forms that it may have, and in some that it may not.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;

pub(super) const MAX_BYTES: usize = 65_536;
pub(super) const MAX_FRIENDS: usize = 20;
pub(super) const MAX_ID_BYTES: usize = 256;

/// What a body asks for.
#[derive(Clone, Debug)]
pub(super) enum Asks {
    /// To import these.
    Import(String, Vec<String>),
    /// Nothing that can be understood.
    Nonsense,
}

/// A body that still wants its command's name.
#[derive(Clone, Debug)]
pub(super) struct Body {
    owner: String,
    friends: Vec<String>,
    style: Style,
    damage: Option<Damage>,
}

/// How the same may be written in JSON.
#[derive(Clone, Debug)]
struct Style {
    space: &'static str,
    escapes: bool,
    rotate: usize,
    unknown: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Damage {
    Bytes(Vec<u8>),
    Without(usize),
    Value(usize, &'static str),
    Repeated(usize),
    Before(&'static str),
    After(&'static str),
    CutShort(Index),
    Flipped(Index, u8),
    Friend(&'static [u8]),
    TooManyFriends,
    TooLongId,
    TooLong,
}

/// A friend's or an owner's id.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-d]",
        2 => prop::sample::select(vec!["user123", "blocked_owner", "blocked_1", "blocked_2", "bot_7", "bot_"]).prop_map(str::to_owned),
        1 => "\\PC{1,10}",
        1 => any::<char>().prop_map(|c| c.to_string()),
    ]
}

pub(super) fn any_body() -> impl Strategy<Value = Body> {
    let style = (
        prop::sample::select(vec!["", " ", "\n\t ", "\r\n"]),
        any::<bool>(),
        0..3usize,
        prop::option::of(prop::sample::select(vec![
            "1e999",
            "-0",
            "123456789012345678901234567890",
            "{\"a\":[1,{\"a\":null,\"a\":[]}]}",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
            "\"\\ud83e\\udd80\"",
        ])),
    )
        .prop_map(|(space, escapes, rotate, unknown)| Style {
            space,
            escapes,
            rotate,
            unknown,
        });
    (
        id(),
        vec(id(), 0..8),
        style,
        prop::option::weighted(0.4, damage()),
    )
        .prop_map(|(owner, friends, style, damage)| Body {
            owner,
            friends,
            style,
            damage,
        })
}

fn damage() -> impl Strategy<Value = Damage> {
    let values = prop::sample::select(vec![
        "7",
        "true",
        "{}",
        "\"\"",
        "1e999",
        "-0.0",
        "[7]",
        "[null]",
        "[\"a\",[]]",
        "[\"\"]",
        "[{\"a\":\"b\"}]",
        "\"\\ud800\"",
        "NaN",
        "'a'",
        "",
    ]);
    let friends: Vec<&'static [u8]> = vec![
        b"\"\"",
        b"null",
        b"7",
        b"\"\\ud83e\"",
        b"\"\\udd80\\ud83e\"",
        b"\"\xff\"",
        b"\"\xed\xa0\x80\"",
        b"\"a\nb\"",
        b"\"a\0b\"",
        b"\"\\x41\"",
        b"\"a",
        b",",
    ];
    prop_oneof![
        vec(any::<u8>(), 0..100).prop_map(Damage::Bytes),
        (0..3usize).prop_map(Damage::Without),
        (0..3usize, values).prop_map(|(field, value)| Damage::Value(field, value)),
        (0..3usize).prop_map(Damage::Repeated),
        prop::sample::select(vec!["\u{feff}", "x", "{", "[", ")]}',\n"]).prop_map(Damage::Before),
        prop::sample::select(vec!["x", "{}", "\0", "}", ",", "null"]).prop_map(Damage::After),
        any::<Index>().prop_map(Damage::CutShort),
        (any::<Index>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flipped(at, bits)),
        prop::sample::select(friends).prop_map(Damage::Friend),
        Just(Damage::TooManyFriends),
        Just(Damage::TooLongId),
        Just(Damage::TooLong),
    ]
}

impl Body {
    /// The bytes for `command`, and what they ask for.
    pub(super) fn write(&self, command: &str) -> (Vec<u8>, Asks) {
        let mut fields = vec![
            ("callbackCommand", self.string(command).into_bytes()),
            ("ownerUserID", self.string(&self.owner).into_bytes()),
            ("friendUserIDs", self.friends(&[])),
        ];
        match &self.damage {
            Some(Damage::Bytes(bytes)) => return (bytes.clone(), Asks::Nonsense),
            Some(Damage::Without(field)) => drop(fields.remove(*field)),
            Some(Damage::Value(field, value)) => fields[*field].1 = value.as_bytes().to_vec(),
            Some(Damage::Repeated(field)) => fields.push(fields[*field].clone()),
            Some(Damage::Friend(friend)) => fields[2].1 = self.friends(friend),
            Some(Damage::TooManyFriends) => {
                let friends: Vec<_> = (0..=MAX_FRIENDS).map(|n| format!("\"f{n}\"")).collect();
                fields[2].1 = format!("[{}]", friends.join(",")).into_bytes();
            }
            Some(Damage::TooLongId) => {
                fields[1].1 = self.string(&"x".repeat(MAX_ID_BYTES + 1)).into_bytes();
            }
            Some(Damage::TooLong) => {
                fields.push(("long", self.string(&"x".repeat(MAX_BYTES)).into_bytes()));
            }
            // Another reader of what comes of it should not stumble over what it need not know.
            Some(Damage::Flipped(..)) => {}
            _ => fields.extend(self.style.unknown.map(|value| ("future", value.into()))),
        }
        let rotate = self.style.rotate.min(fields.len());
        fields.rotate_left(rotate);
        let mut object = self.object(&fields);
        match &self.damage {
            None => {
                object.extend_from_slice(self.style.space.as_bytes());
                let asks = Asks::Import(self.owner.clone(), self.friends.clone());
                return (object, asks);
            }
            Some(Damage::Before(text)) => drop(object.splice(..0, text.bytes())),
            Some(Damage::After(text)) => object.extend_from_slice(text.as_bytes()),
            Some(Damage::CutShort(at)) => object.truncate(at.index(object.len())),
            Some(Damage::Flipped(at, bits)) => {
                let at = at.index(object.len());
                object[at] ^= bits;
                let asks = read(command, &object).unwrap_or(Asks::Nonsense);
                return (object, asks);
            }
            Some(_) => {}
        }
        (object, Asks::Nonsense)
    }

    fn object(&self, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let space = self.style.space.as_bytes();
        let mut object = [space, b"{"].concat();
        for (n, (name, value)) in fields.iter().enumerate() {
            let comma: &[u8] = if n > 0 { b"," } else { b"" };
            let name = format!("\"{name}\"");
            for part in [comma, space, name.as_bytes(), b":", space, value] {
                object.extend_from_slice(part);
            }
        }
        object.push(b'}');
        object
    }

    fn friends(&self, more: &[u8]) -> Vec<u8> {
        if more.is_empty() && self.friends.is_empty() && self.style.escapes {
            return b"null".to_vec();
        }
        let friends = self
            .friends
            .iter()
            .map(|friend| self.string(friend).into_bytes());
        let friends = friends.chain((!more.is_empty()).then(|| more.to_vec()));
        let friends: Vec<_> = friends.collect();
        [b"[", friends.join(&b","[..]).as_slice(), b"]"].concat()
    }

    fn string(&self, text: &str) -> String {
        if self.style.escapes {
            let units: String = text
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect();
            format!("\"{units}\"")
        } else {
            Value::from(text).to_string()
        }
    }
}

/// What another reader finds in a body.
fn read(command: &str, body: &[u8]) -> Option<Asks> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let id = |value: &Value| {
        let id = value.as_str()?;
        (!id.is_empty() && id.len() <= MAX_ID_BYTES).then(|| id.to_owned())
    };
    let friends = match body.get("friendUserIDs")? {
        Value::Null => Vec::new(),
        list => list.as_array()?.iter().map(id).collect::<Option<_>>()?,
    };
    let owner = id(body.get("ownerUserID")?)?;
    (body.get("callbackCommand")? == command).then_some(Asks::Import(owner, friends))
}
