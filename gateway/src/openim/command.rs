//! Recognises the callback and the dialect of a request line.

use std::{fmt, str::FromStr};

use importguard_core::Dialect;
use percent_encoding::percent_decode;
use subtle::ConstantTimeEq;

use super::Rejection;

/// The documented dialect's command, in the query and in the body.
const DOCUMENTED: &str = "ImportFriendReqBeforeCommand";
/// open-im-server's command before an import, in the path and in the body.
const SERVER_BEFORE: &str = "callbackBeforeImportFriendsCommand";
/// open-im-server's command after an import.
const SERVER_AFTER: &str = "callbackAfterImportFriendsCommand";

/// A callback that importguard handles itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Asks whether an import may proceed.
    BeforeImport(Dialect),
    /// Reports a completed import.
    AfterImport,
}

impl Command {
    /// The command's name, which the body's `callbackCommand` must repeat.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeImport(Dialect::Documented) => DOCUMENTED,
            Self::BeforeImport(Dialect::Server) => SERVER_BEFORE,
            Self::AfterImport => SERVER_AFTER,
        }
    }

    /// The response's dialect.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::BeforeImport(dialect) => dialect,
            Self::AfterImport => Dialect::Server,
        }
    }
}

/// The path prefix of OpenIM's callbacks. Begins with `/` and does not end with one, so `/` itself is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(String);

/// Why a string cannot be a base path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must begin with / and must not contain ?, # or white space, for example /hooks/openim")]
pub struct BasePathError;

impl FromStr for BasePath {
    type Err = BasePathError;

    fn from_str(text: &str) -> Result<Self, BasePathError> {
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '?' && c != '#');
        if text.starts_with('/') && plain {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(BasePathError)
        }
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BasePath {
    /// The part of `path` after the base: empty, or a string that begins with `/`; `None` if `path` is outside the base. Compares in
    /// constant time, as the base may be a secret.
    pub(crate) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (begin, rest) = path.split_at_checked(self.0.len())?;
        let inside = bool::from(begin.as_bytes().ct_eq(self.0.as_bytes()));
        (inside && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
    }
}

/// The target of a request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The callback.
    pub callback: Callback,
    /// The dialect of the response: that of the request line if it is recognised, otherwise the server's.
    pub dialect: Dialect,
    /// Whether it reports something that has already happened (`callbackAfter…`).
    pub is_after: bool,
    /// The length of the base path; `None` if the path is outside it.
    below: Option<usize>,
}

/// The callback that a request line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callback {
    /// A callback that importguard handles itself.
    Ours(Command),
    /// Another callback of OpenIM.
    Other,
    /// No callback, an import callback in a spelling that OpenIM does not use, or one in the path and another one in the query.
    Rejected(Rejection),
}

impl Callback {
    const UNKNOWN: Self = Self::Rejected(Rejection::UnknownCommand);
}

impl Target {
    /// Recognises the callback that the last segment of `path`, or `command=` in the query, names.
    pub fn of(base: &BasePath, path: &str, query: Option<&str>) -> Self {
        let named = query.and_then(command_in);
        let by_query = match named {
            Some(_) => Dialect::Documented,
            None => Dialect::Server,
        };
        let below = base.below(path);
        let within = below.unwrap_or(path);
        let last = last_segment(within);
        let by_path = match last.starts_with("callback") {
            true => Dialect::Server,
            false => by_query,
        };
        let names = |commands: &[&str]| names_a_command(within, query, commands);
        // A question is refused, whatever else its request line says.
        let is_after = last.starts_with("callbackAfter") && !names(&[DOCUMENTED, SERVER_BEFORE]);
        let callback = match below.map(|below| below.trim_start_matches('/')) {
            Some("") if named == Some(DOCUMENTED) => {
                Callback::Ours(Command::BeforeImport(by_query))
            }
            Some(SERVER_BEFORE) => checked(Command::BeforeImport(Dialect::Server), named),
            Some(SERVER_AFTER) if is_after => checked(Command::AfterImport, named),
            _ if names(&[DOCUMENTED, SERVER_BEFORE, SERVER_AFTER]) => Callback::UNKNOWN,
            Some("") if named.is_some_and(is_name) => Callback::Other,
            Some(segment) if segment.starts_with("callback") && is_name(segment) => Callback::Other,
            _ => Callback::UNKNOWN,
        };
        Self {
            callback,
            dialect: by_path,
            is_after,
            below: below.map(|below| path.len() - below.len()),
        }
    }

    /// The part after the base path of `path`, which must be the path that this was made from.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.get(self.below?..)
    }

    /// The route that handles it, without the base path, which may be a secret. All callbacks that importguard does not handle itself
    /// share one.
    pub(crate) fn route(&self) -> Route {
        match self.callback {
            Callback::Ours(command) => Route(Some(command)),
            Callback::Other | Callback::Rejected(_) => Route(None),
        }
    }
}

/// The name of a request in spans and metrics: that of its callback, or "other". Never its path, which may contain a secret and has
/// unboundedly many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route(Option<Command>);

impl Route {
    /// Every route.
    pub(crate) const ALL: [Self; 4] = [
        Self(Some(Command::BeforeImport(Dialect::Documented))),
        Self(Some(Command::BeforeImport(Dialect::Server))),
        Self(Some(Command::AfterImport)),
        Self(None),
    ];

    /// Its name in spans and metrics.
    pub(crate) fn text(self) -> &'static str {
        self.0.map_or("other", Command::name)
    }

    /// The route of a callback that importguard handles itself.
    pub(crate) const fn of(command: Command) -> Self {
        Self(Some(command))
    }

    /// Its path in the router.
    pub(crate) const fn path(self) -> &'static str {
        match self.0 {
            Some(Command::BeforeImport(Dialect::Documented)) => "/ImportFriendReqBeforeCommand",
            Some(Command::BeforeImport(Dialect::Server)) => "/callbackBeforeImportFriendsCommand",
            Some(Command::AfterImport) => "/callbackAfterImportFriendsCommand",
            None => "/",
        }
    }
}

impl AsRef<str> for Route {
    fn as_ref(&self) -> &str {
        self.text()
    }
}

/// Maximum number of characters of the caller's text that an answer repeats: OpenIM's longest command name has 45.
pub(super) const MAX_QUOTED: usize = 64;

/// The path's command, unless the query names another.
fn checked(command: Command, named: Option<&str>) -> Callback {
    match named {
        Some(name) if name != command.name() => Callback::Rejected(Rejection::CommandMismatch {
            expected: command.name(),
            found: name.chars().take(MAX_QUOTED).collect(),
        }),
        _ => Callback::Ours(command),
    }
}

/// The name of a callback in a request line, for logs: the last segment of the path below the base path, or `command=` in the query. Other
/// parts of a path may be a secret.
pub(crate) fn callback_name<'a>(path: &'a str, query: Option<&'a str>) -> Option<&'a str> {
    let last = Some(last_segment(path)).filter(|name| name.starts_with("callback"));
    last.or_else(|| query.and_then(command_in))
        .filter(|name| is_name(name))
}

/// Whether it has the form of OpenIM's command names. No server reads a path out of such a name, however often it decodes it.
fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    letters && !name.is_empty() && name.len() <= MAX_QUOTED
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The value of `command` in a query; OpenIM's command names need no percent-decoding.
fn command_in(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("command="))
}

/// Whether a request line contains one of `commands`, in any case and percent-encoded any number of times. It must not be forwarded: the
/// upstream backend might take it for the import callback and decide in importguard's place.
fn names_a_command(path: &str, query: Option<&str>, commands: &[&str]) -> bool {
    /// Each proxy on the way may encode the request line once.
    const MAX_ENCODINGS: usize = 4;
    let mut text = format!("{path}?{}", query.unwrap_or_default()).into_bytes();
    for _ in 0..MAX_ENCODINGS {
        let once: Vec<u8> = percent_decode(&text).collect();
        if once.len() == text.len() {
            let mut words = text.split(|byte| !byte.is_ascii_alphanumeric());
            return words.any(|word| {
                let mut commands = commands.iter();
                commands.any(|command| word.eq_ignore_ascii_case(command.as_bytes()))
            });
        }
        text = once;
    }
    // More encodings than that can only be an evasion.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: &str, path: &str, query: Option<&str>) -> Target {
        Target::of(&base.parse().unwrap(), path, query)
    }

    fn ours(base: &str, path: &str, query: Option<&str>) -> Option<Command> {
        match at(base, path, query).callback {
            Callback::Ours(command) => Some(command),
            _ => None,
        }
    }

    const DOC: Option<Command> = Some(Command::BeforeImport(Dialect::Documented));
    const SERVER: Option<Command> = Some(Command::BeforeImport(Dialect::Server));

    #[test]
    fn a_log_line_names_a_callback_and_no_other_part_of_a_url() {
        let name = "callbackBeforeAddFriendCommand";
        assert_eq!(callback_name(&format!("/base/{name}"), None), Some(name));
        let query = format!("x=1&command={name}");
        assert_eq!(callback_name("/base", Some(&query)), Some(name));
        let long = format!("/callback{}", "x".repeat(MAX_QUOTED));
        for path in ["/secret", "/callback%0a", "/callback/secret", &long] {
            assert_eq!(callback_name(path, None), None, "{path}");
        }
    }

    #[test]
    fn a_command_of_the_callers_is_quoted_in_part() {
        let query = format!("command={}", "A".repeat(9_000));
        let target = at("/", &format!("/{SERVER_BEFORE}"), Some(&query));
        let Callback::Rejected(Rejection::CommandMismatch { found, .. }) = target.callback else {
            panic!("{target:?}");
        };
        assert_eq!(found, "A".repeat(MAX_QUOTED));
    }

    #[test]
    fn a_report_is_one_in_every_place_and_spelling_unless_it_names_a_question() {
        for path in [
            "/elsewhere/callbackAfterImportFriendsCommand",
            "/elsewhere/callbackAfterAddFriendCommand",
            "/callbackAfterImportFriendsCommand%20",
        ] {
            assert!(at("/base", path, None).is_after, "{path}");
        }
        let query = Some("command=callbackBeforeImportFriendsCommand");
        assert!(!at("/", "/callbackAfterAddFriendCommand", query).is_after);
    }

    #[test]
    fn a_base_path_makes_no_report_of_a_question() {
        let base = "/callbackAfterwards";
        let target = at(base, base, Some("command=ImportFriendReqBeforeCommand"));
        assert_eq!(
            target.callback,
            Callback::Ours(Command::BeforeImport(Dialect::Documented))
        );
        assert!(!target.is_after);
    }

    #[test]
    fn a_base_path_makes_no_question_of_a_report() {
        let base = "/ImportFriendReqBeforeCommand";
        let target = at(base, &format!("{base}/{SERVER_AFTER}"), None);
        assert_eq!(target.callback, Callback::Ours(Command::AfterImport));
        assert!(target.is_after);
    }

    #[test]
    fn the_request_line_chooses_the_dialect() {
        let query = Some("command=ImportFriendReqBeforeCommand&contenttype=json");
        assert_eq!(ours("/", "/", query), DOC);
        let path = "/callbackBeforeImportFriendsCommand";
        assert_eq!(ours("/", path, None), SERVER);
        assert_eq!(ours("/", path, Some("contenttype=json")), SERVER);
        let path = "/callbackAfterImportFriendsCommand";
        assert_eq!(ours("/", path, None), Some(Command::AfterImport));
    }

    #[test]
    fn a_base_path_matches_whole_segments_only() {
        let query = Some("contenttype=json&command=ImportFriendReqBeforeCommand");
        for base in ["/hook", "/hook/"] {
            assert_eq!(ours(base, "/hook", query), DOC);
            assert_eq!(ours(base, "/hook/", query), DOC);
            let path = "/hook/callbackBeforeImportFriendsCommand";
            assert_eq!(ours(base, path, None), SERVER);
            for path in ["/hooked", "/callbackBeforeImportFriendsCommand"] {
                assert_eq!(at(base, path, query).callback, Callback::UNKNOWN);
            }
        }
    }

    #[test]
    fn a_request_line_without_a_callback_is_unknown_and_keeps_its_dialect() {
        for (path, query, dialect) in [
            ("/", None, Dialect::Server),
            ("/", Some("command="), Dialect::Documented),
            ("/favicon.ico", None, Dialect::Server),
            (
                "/callbackBeforeAddFriendCommand",
                Some("command=ImportFriendReqBeforeCommand"),
                Dialect::Server,
            ),
        ] {
            let target = at("/", path, query);
            assert_eq!(target.callback, Callback::UNKNOWN, "{path} {query:?}");
            assert_eq!(target.dialect, dialect, "{path} {query:?}");
        }
    }

    #[test]
    fn other_callbacks_are_recognised_below_the_base_path() {
        for (path, query, below) in [
            (
                "/hook/callbackBeforeAddFriendCommand",
                None,
                Some("/callbackBeforeAddFriendCommand"),
            ),
            ("/hook", Some("command=SomethingElse"), Some("")),
            ("/hook/", Some("command=SomethingElse"), Some("/")),
            ("/hook", None, None),
            ("/hook/metrics", None, None),
            ("/hook/callbackX/../metrics", None, None),
            ("/hook/callbackX%2f..%2f..%2fmetrics", None, None),
            ("/hook/callbackX%252f..%252fmetrics", None, None),
            ("/hook/callbackX\\..\\metrics", None, None),
            ("/hook/callback%2e%2e%5cmetrics", None, None),
            ("/hook/callbackX%00", None, None),
            ("/hook", Some("command=..%2fmetrics"), None),
            ("/callbackBeforeAddFriendCommand", None, None),
        ] {
            let target = at("/hook", path, query);
            let other = (target.callback == Callback::Other).then(|| target.below(path));
            assert_eq!(other.flatten(), below, "{path} {query:?}");
        }
    }

    #[test]
    fn a_disguised_import_callback_is_unknown() {
        for line in [
            "/?command=callbackBeforeImportFriendsCommand",
            "/?command=x&command=ImportFriendReqBeforeCommand",
            "/?command=ImportFriendReq%42eforeCommand",
            "/?%63ommand=ImportFriendReqBeforeCommand",
            "/?command=importfriendreqbeforecommand%20",
            "/callbackbeforeimportfriendscommand",
            "/callback%42eforeImportFriendsCommand",
            "/callback%252542eforeImportFriendsCommand",
            "/callbackBeforeImportFriendsCommand;x",
            "/callbackBeforeImportFriendsCommand%20",
            "/callbackBeforeImportFriendsCommand/",
            "/callbackX%2f..%2fcallbackBeforeImportFriendsCommand",
            "/callbackAfterAddFriendCommand?command=ImportFriendReqBeforeCommand",
            "/callbackAfterImportFriendsCommand?command=ImportFriendReqBeforeCommand",
            "/callbackAfterImportFriendsCommand?command=callbackBeforeImportFriendsCommand",
            "/callbackAfterImportFriendsCommand?%63ommand=ImportFriendReqBeforeCommand",
            "/callbackAfterImportFriendsCommand?command=callback%2542eforeImportFriendsCommand",
            "/callbackAfterImportFriendsCommand?command=callbackAfterImportFriendsCommand&command=ImportFriendReqBeforeCommand",
            "/ImportFriendReqBeforeCommand/callbackAfterImportFriendsCommand",
        ] {
            let (path, query) = line.split_once('?').unwrap_or((line, ""));
            let target = at("/", path, Some(query));
            assert_eq!(target.callback, Callback::UNKNOWN, "{line}");
            assert!(!target.is_after, "{line}");
        }
    }

    #[test]
    fn a_query_that_contradicts_the_path_is_a_mismatch() {
        let target = at(
            "/",
            "/callbackBeforeImportFriendsCommand",
            Some("command=callbackBeforeAddFriendCommand"),
        );
        assert!(matches!(
            target.callback,
            Callback::Rejected(Rejection::CommandMismatch { .. })
        ));
        assert_eq!(target.dialect, Dialect::Server);
    }

    #[test]
    fn after_callbacks_are_recognised_by_their_name_on_any_path() {
        for (path, is_after) in [
            ("/callbackAfterImportFriendsCommand", true),
            ("/callbackAfterAddFriendCommand", true),
            ("/elsewhere/callbackAfterAddFriendCommand", true),
            ("/callbackBeforeAddFriendCommand", false),
        ] {
            assert_eq!(at("/", path, None).is_after, is_after, "{path}");
        }
    }

    #[test]
    fn an_invalid_base_path_is_an_error() {
        for bad in ["", "hooks", "/a b", "/a?b", "/a#b"] {
            assert_eq!(bad.parse::<BasePath>(), Err(BasePathError), "{bad}");
        }
    }
}
