//! Which of OpenIM's callbacks a request line names, and in which dialect.

use std::{fmt, str::FromStr};

use importguard_core::Dialect;
use percent_encoding::percent_decode;
use subtle::ConstantTimeEq;

/// The documented dialect's command, in the query and in the body.
const DOCUMENTED: &str = "ImportFriendReqBeforeCommand";
/// open-im-server's command before an import, in the path and in the body.
const SERVER_BEFORE: &str = "callbackBeforeImportFriendsCommand";
/// open-im-server's command after an import.
const SERVER_AFTER: &str = "callbackAfterImportFriendsCommand";

/// A callback that importguard handles itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// May this import go on?
    BeforeImport(Dialect),
    /// This import took place.
    AfterImport,
}

impl Command {
    /// The command's name, as the body's `callbackCommand` must have it.
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

/// The path below which OpenIM's callbacks arrive. Begins with `/` and has none at its end, so `/` itself is empty.
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
    /// What follows the base in `path`: empty, or a text that begins with `/`. `None` where `path` lies outside. As the base may
    /// be a secret, how much of it was guessed right makes no difference in time.
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
    /// How the response must be spoken: as the request line is, as far as that can be known, else as the server does.
    pub dialect: Dialect,
    /// Whether it reports something that is done already.
    pub is_report: bool,
    /// Where in the path what follows the base path begins; absent outside of that.
    below: Option<usize>,
}

/// Which of OpenIM's callbacks it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callback {
    /// One that importguard answers itself.
    Ours(Command),
    /// Path and query name different ones.
    Mismatch {
        /// What the path names.
        expected: &'static str,
        /// What the query names.
        found: String,
    },
    /// One of OpenIM's others.
    Other,
    /// None that is known, or the import callback in a spelling that is not OpenIM's.
    Unknown,
}

impl Target {
    /// Recognises what a request line names: the last segment of `path`, or `command=` in the query.
    pub fn of(base: &BasePath, path: &str, query: Option<&str>) -> Self {
        let named = query.and_then(command_in);
        let by_query = match named {
            Some(_) => Dialect::Documented,
            None => Dialect::Server,
        };
        let below = base.below(path);
        let last = path.rsplit('/').next().unwrap_or_default();
        let by_path = match last.starts_with("callback") {
            true => Dialect::Server,
            false => by_query,
        };
        let ours = match below.map(|below| below.trim_start_matches('/')) {
            Some("") if named == Some(DOCUMENTED) => {
                Some(Callback::Ours(Command::BeforeImport(by_query)))
            }
            Some(SERVER_BEFORE) => Some(agreed(Command::BeforeImport(Dialect::Server), named)),
            Some(SERVER_AFTER) => Some(agreed(Command::AfterImport, named)),
            _ => None,
        };
        let disguised = ours.is_none() && means_an_import(path, query);
        let other = || match below?.trim_start_matches('/') {
            _ if disguised => None,
            "" => named.filter(|name| !name.is_empty()),
            segment if segment.contains('/') => None,
            segment => Some(segment).filter(|segment| segment.starts_with("callback")),
        };
        Self {
            callback: match (ours, other()) {
                (Some(ours), _) => ours,
                (None, Some(_)) => Callback::Other,
                (None, None) => Callback::Unknown,
            },
            dialect: by_path,
            is_report: last.starts_with("callbackAfter") && !disguised,
            below: below.map(|below| path.len() - below.len()),
        }
    }

    /// What follows the base path in `path`, which this was made of.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.get(self.below?..)
    }

    /// The route that serves it. The base path, which may be a secret, is no part of it; what importguard does not answer itself
    /// has none.
    pub(crate) fn route(&self) -> Route {
        match self.callback {
            Callback::Ours(command) => Route(Some(command)),
            Callback::Mismatch { .. } | Callback::Other | Callback::Unknown => Route(None),
        }
    }
}

/// What spans and metrics call a request: its callback's name, or "other". Never its path, which may hold a secret, or anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route(Option<Command>);

impl Route {
    /// Every one.
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

    /// The route of a callback that importguard answers itself.
    pub(crate) const fn of(command: Command) -> Self {
        Self(Some(command))
    }

    /// The path that the router has it under.
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

/// The path's command, unless the query names another one.
fn agreed(command: Command, named: Option<&str>) -> Callback {
    match named {
        Some(name) if name != command.name() => Callback::Mismatch {
            expected: command.name(),
            found: name.to_owned(),
        },
        _ => Callback::Ours(command),
    }
}

/// The value of `command` in a query; OpenIM's command names need no percent-decoding.
fn command_in(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("command="))
}

/// Whether a request line names one of importguard's commands anywhere, in whatever case and however often percent-encoded: a
/// backend may take that for the import callback, and must not be asked in importguard's place.
fn means_an_import(path: &str, query: Option<&str>) -> bool {
    /// A proxy on the way may encode what OpenIM's caller did; nobody has five of them.
    const TIMES_ENCODED: usize = 4;
    let mut text = format!("{path}?{}", query.unwrap_or_default()).into_bytes();
    for _ in 0..TIMES_ENCODED {
        let once: Vec<u8> = percent_decode(&text).collect();
        if once.len() == text.len() {
            let mut words = text.split(|byte| !byte.is_ascii_alphanumeric());
            return words.any(is_a_command);
        }
        text = once;
    }
    // Whoever encodes it so often hides something.
    true
}

fn is_a_command(word: &[u8]) -> bool {
    let mut names = [DOCUMENTED, SERVER_BEFORE, SERVER_AFTER].into_iter();
    names.any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
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
    fn a_base_path_is_a_whole_number_of_segments() {
        let query = Some("contenttype=json&command=ImportFriendReqBeforeCommand");
        for base in ["/hook", "/hook/"] {
            assert_eq!(ours(base, "/hook", query), DOC);
            assert_eq!(ours(base, "/hook/", query), DOC);
            let path = "/hook/callbackBeforeImportFriendsCommand";
            assert_eq!(ours(base, path, None), SERVER);
            for path in ["/hooked", "/callbackBeforeImportFriendsCommand"] {
                assert_eq!(at(base, path, query).callback, Callback::Unknown);
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_unknown_in_the_dialect_of_its_line() {
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
            assert_eq!(target.callback, Callback::Unknown, "{path} {query:?}");
            assert_eq!(target.dialect, dialect, "{path} {query:?}");
        }
    }

    #[test]
    fn another_callback_is_one_of_openims() {
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
            ("/callbackBeforeAddFriendCommand", None, None),
        ] {
            let target = at("/hook", path, query);
            let other = (target.callback == Callback::Other).then(|| target.below(path));
            assert_eq!(other.flatten(), below, "{path} {query:?}");
        }
    }

    #[test]
    fn the_import_callback_is_never_another_one_however_it_is_spelt() {
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
        ] {
            let (path, query) = line.split_once('?').unwrap_or((line, ""));
            let target = at("/", path, Some(query));
            assert_eq!(target.callback, Callback::Unknown, "{line}");
            assert!(!target.is_report, "{line}");
        }
    }

    #[test]
    fn a_query_that_contradicts_the_path_is_a_mismatch() {
        let target = at(
            "/",
            "/callbackBeforeImportFriendsCommand",
            Some("command=callbackBeforeAddFriendCommand"),
        );
        assert!(matches!(target.callback, Callback::Mismatch { .. }));
        assert_eq!(target.dialect, Dialect::Server);
    }

    #[test]
    fn reports_are_known_by_their_name_wherever_they_arrive() {
        for (path, is_report) in [
            ("/callbackAfterImportFriendsCommand", true),
            ("/callbackAfterAddFriendCommand", true),
            ("/elsewhere/callbackAfterAddFriendCommand", true),
            ("/callbackBeforeAddFriendCommand", false),
        ] {
            assert_eq!(at("/", path, None).is_report, is_report, "{path}");
        }
    }

    #[test]
    fn a_base_path_is_checked_where_it_is_set() {
        for bad in ["", "hooks", "/a b", "/a?b", "/a#b"] {
            assert_eq!(bad.parse::<BasePath>(), Err(BasePathError), "{bad}");
        }
    }
}
