//! Request lines and headers.

use importguard_core::Dialect::{self, Documented, Server};
use proptest::{collection::vec, prelude::*};

pub(super) const MAX_BYTES: usize = 16_384;

/// What becomes of a request with this part in it, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It is heard, if nothing else is wrong.
    Heard,
    /// It may be heard or refused.
    Unclear,
    /// It is refused in its dialect.
    Refused,
    /// It is no request in HTTP, or more than is read of one, so nothing in it counts.
    NoHttp,
}

/// What a request line names.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) text: String,
    pub(super) dialect: Dialect,
    pub(super) command: &'static str,
    pub(super) fate: Fate,
}

/// A part of a head, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    pub(super) fate: Fate,
}

pub(super) const AFTER: &str = "callbackAfterImportFriendsCommand";
const BEFORE: &str = "callbackBeforeImportFriendsCommand";
const DOCUMENTED: &str = "ImportFriendReqBeforeCommand";

pub(super) fn any_target() -> impl Strategy<Value = Target> {
    let target = |text: &str, dialect, command, fate| Target {
        text: text.to_owned(),
        dialect,
        command,
        fate,
    };
    let known = prop::sample::select(vec![
        target(
            "/callbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Heard,
        ),
        target(
            "/callbackBeforeImportFriendsCommand?contenttype=json",
            Server,
            BEFORE,
            Fate::Heard,
        ),
        target(
            "/callbackBeforeImportFriendsCommand?command=callbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Heard,
        ),
        target(
            "http://elsewhere:1/callbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Heard,
        ),
        target(
            "/callbackAfterImportFriendsCommand",
            Server,
            AFTER,
            Fate::Heard,
        ),
        target(
            "/?command=ImportFriendReqBeforeCommand&contenttype=json",
            Documented,
            DOCUMENTED,
            Fate::Heard,
        ),
        target(
            "/?contenttype=json&command=ImportFriendReqBeforeCommand",
            Documented,
            DOCUMENTED,
            Fate::Heard,
        ),
        target(
            "http://elsewhere?command=ImportFriendReqBeforeCommand",
            Documented,
            DOCUMENTED,
            Fate::Heard,
        ),
    ]);
    let unknown = prop::sample::select(vec![
        target(
            "/callbackbeforeimportfriendscommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/%63allbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeImportFriendsCommand%00",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeImportFriendsCommand/",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/x/../callbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeAddFriendCommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeAddFriendCommand?command=ImportFriendReqBeforeCommand",
            Server,
            DOCUMENTED,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeImportFriendsCommand?command=callbackBeforeAddFriendCommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target(
            "/callbackBeforeImportFriendsCommand?command=",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target("/?command=", Documented, DOCUMENTED, Fate::Refused),
        target(
            "/?command=%49mportFriendReqBeforeCommand",
            Documented,
            DOCUMENTED,
            Fate::Refused,
        ),
        target(
            "/?command=ImportFriendReqBeforeCommand%20",
            Documented,
            DOCUMENTED,
            Fate::Refused,
        ),
        target(
            "/?command=other&command=ImportFriendReqBeforeCommand",
            Documented,
            DOCUMENTED,
            Fate::Refused,
        ),
        target(
            "/x?command=ImportFriendReqBeforeCommand",
            Documented,
            DOCUMENTED,
            Fate::Refused,
        ),
        target(
            "/?Command=ImportFriendReqBeforeCommand",
            Server,
            DOCUMENTED,
            Fate::Refused,
        ),
        target("*", Server, BEFORE, Fate::Refused),
        target(
            "callbackBeforeImportFriendsCommand",
            Server,
            BEFORE,
            Fate::Refused,
        ),
        target("", Server, BEFORE, Fate::NoHttp),
        target("/a b", Server, BEFORE, Fate::NoHttp),
        target("/\u{7f}", Server, BEFORE, Fate::NoHttp),
        target("/ü", Server, BEFORE, Fate::Refused),
    ]);
    let somewhere = "/[a-z%+~.;:@!-]{0,300}(\\?[a-z0-9%+&-]{0,300})?".prop_map(move |text| {
        let other = text == format!("/{BEFORE}") || text == format!("/{AFTER}");
        assert!(!other);
        target(&text, Server, BEFORE, Fate::Refused)
    });
    let endless = (MAX_BYTES..100_000).prop_map(move |length| {
        let text = format!("/{}", "x".repeat(length));
        target(&text, Server, BEFORE, Fate::NoHttp)
    });
    prop_oneof![16 => known, 4 => unknown, 1 => somewhere, 1 => endless]
}

pub(super) fn any_method() -> impl Strategy<Value = (&'static str, Fate)> {
    // Not HEAD, whose answers HTTP leaves without a body.
    let other = prop::sample::select(vec![
        "GET", "PUT", "DELETE", "OPTIONS", "TRACE", "post", "BREW",
    ]);
    let none = prop::sample::select(vec!["", "PO\0ST", "PÖST", "\u{16}\u{3}\u{1}"]);
    prop_oneof![
        20 => Just(("POST", Fate::Heard)),
        2 => other.prop_map(|method| (method, Fate::Refused)),
        1 => none.prop_map(|method| (method, Fate::NoHttp)),
    ]
}

/// Version, and whether the connection stays open by itself.
pub(super) fn any_version() -> impl Strategy<Value = (&'static str, Fate)> {
    let none = prop::sample::select(vec!["HTTP/2.0", "HTTP/1.11", "http/1.1", "HTTP/1", ""]);
    prop_oneof![
        20 => Just(("HTTP/1.1", Fate::Heard)),
        1 => Just(("HTTP/1.0", Fate::Heard)),
        1 => none.prop_map(|version| (version, Fate::NoHttp)),
    ]
}

pub(super) fn any_operation_id() -> impl Strategy<Value = Part> {
    let name = prop::sample::select(vec!["operationID", "Operationid", "OPERATIONID"]);
    let good = (name, "[!-~]{1,256}")
        .prop_map(|(name, id)| part(format!("{name}: {id}\r\n"), Fate::Heard));
    let bad = prop::sample::select(vec![
        part("", Fate::Refused),
        part("operationID:\r\n", Fate::Refused),
        part("operationID: a b\r\n", Fate::Refused),
        part("operationID: a\tb\r\n", Fate::Refused),
        part("operationID: ä\r\n", Fate::Refused),
        part(b"operationID: \xff\r\n", Fate::Refused),
        part("operationID: a\r\nOperationid: a\r\n", Fate::Refused),
        part("operationID: a\0b\r\n", Fate::NoHttp),
        part("operationID : a\r\n", Fate::NoHttp),
        part("operationID: a\r\n b\r\n", Fate::NoHttp),
        part(
            format!("operationID: {}\r\n", "x".repeat(257)),
            Fate::Refused,
        ),
    ]);
    prop_oneof![8 => good, 1 => bad]
}

pub(super) fn any_headers() -> impl Strategy<Value = Vec<Part>> {
    let kind = prop_oneof![
        3 => prop::sample::select(vec!["application/json", "application/json; charset=utf-8", "Text/JSON", "application/x+json;"])
            .prop_map(|kind| part(format!("Content-Type: {kind}\r\n"), Fate::Heard)),
        1 => prop::sample::select(vec!["Content-Type: text/plain\r\n", "Content-Type:\r\n", "Content-Type: \u{fc}\r\n", "Content-Encoding: gzip\r\n"])
            .prop_map(|header| part(header, Fate::Refused)),
    ];
    let harmless = prop::sample::select(vec![
        "Connection: keep-alive\r\n",
        "Expect: 100-continue\r\n",
        "Accept-Encoding: gzip\r\n",
        "Content-Encoding: identity\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Authorization: Basic \u{fc}\r\n",
        "traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "traceparent: \u{fc}\r\ntracestate: ,,=,\r\n",
        "baggage: %%%;=,,a=%ff,b=\u{fc}\r\n",
        "X-Empty:\r\nX-Empty:\r\n",
    ]);
    let hopeless = prop::sample::select(vec![
        part("no colon\r\n", Fate::NoHttp),
        part("bad name: x\r\n", Fate::NoHttp),
        part(": x\r\n", Fate::NoHttp),
        part(b"n\xff: x\r\n", Fate::NoHttp),
        part("x: \0\r\n", Fate::NoHttp),
        part(format!("x: {}\r\n", "x".repeat(MAX_BYTES)), Fate::NoHttp),
        part("x: x\r\n".repeat(101), Fate::NoHttp),
    ]);
    let header = prop_oneof![
        3 => kind,
        6 => harmless.prop_map(|header| part(header, Fate::Heard)),
        1 => (0..3000usize).prop_map(|length| part(format!("x: {}\r\n", "x".repeat(length)), Fate::Heard)),
        1 => hopeless,
    ];
    vec(header, 0..4)
}

fn part(bytes: impl AsRef<[u8]>, fate: Fate) -> Part {
    Part {
        bytes: bytes.as_ref().to_vec(),
        fate,
    }
}
