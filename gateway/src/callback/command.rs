//! Which of OpenIM's callbacks a request line names, and in which dialect.

use std::{fmt, str::FromStr};

use importguard_proto::event::Dialect;
use subtle::ConstantTimeEq;

use super::{Reason, Rejection};

/// The documented dialect's command, in the query and in the body.
const DOCUMENTED: &str = "ImportFriendReqBeforeCommand";
/// open-im-server's command before an import, in the path and in the body.
const SERVER_BEFORE: &str = "callbackBeforeImportFriendsCommand";
/// open-im-server's command after an import.
const SERVER_AFTER: &str = "callbackAfterImportFriendsCommand";

/// A callback that importguard answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// How the answer must be spoken.
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

/// Why a text cannot be a base path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a base path begins with / and holds neither ?, # nor white space: write for example /hooks/openim"
)]
pub struct InvalidBasePath;

impl FromStr for BasePath {
    type Err = InvalidBasePath;

    fn from_str(text: &str) -> Result<Self, InvalidBasePath> {
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '?' && c != '#');
        if text.starts_with('/') && plain {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(InvalidBasePath)
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

/// Recognises the callback that a request line names: the path's last segment, or `command=` in the query.
/// A rejection speaks the dialect of the request line as far as that can be known, else the server's.
pub fn recognise(base: &BasePath, path: &str, query: Option<&str>) -> Result<Command, Rejection> {
    let named = query.and_then(command_in);
    let unknown = |dialect| Rejection {
        dialect,
        reason: Reason::UnknownCommand,
    };
    let by_query = if named.is_some() {
        Dialect::Documented
    } else {
        Dialect::Server
    };
    let Some(below) = base.below(path) else {
        return Err(unknown(by_query));
    };
    match below.trim_start_matches('/') {
        "" if named == Some(DOCUMENTED) => Ok(Command::BeforeImport(Dialect::Documented)),
        "" => Err(unknown(by_query)),
        SERVER_BEFORE => agreed(Command::BeforeImport(Dialect::Server), named),
        SERVER_AFTER => agreed(Command::AfterImport, named),
        other if other.starts_with("callback") => Err(unknown(Dialect::Server)),
        _ => Err(unknown(by_query)),
    }
}

/// What follows the base path where a request line names another of OpenIM's callbacks than importguard's, in either dialect:
/// a last segment that begins with `callback`, or `command=` in the query.
pub fn another<'a>(base: &BasePath, path: &'a str, query: Option<&str>) -> Option<&'a str> {
    let below = base.below(path)?;
    let named = query.and_then(command_in);
    let another = match below.trim_start_matches('/') {
        "" => named.is_some_and(|name| name != DOCUMENTED && !name.is_empty()),
        SERVER_BEFORE | SERVER_AFTER => false,
        segment => segment.starts_with("callback") && !segment.contains('/'),
    };
    another.then_some(below)
}

/// The path's command, unless the query names another one.
fn agreed(command: Command, named: Option<&str>) -> Result<Command, Rejection> {
    match named {
        Some(name) if name != command.name() => Err(Rejection {
            dialect: command.dialect(),
            reason: Reason::CommandMismatch {
                expected: command.name(),
                found: name.to_owned(),
            },
        }),
        _ => Ok(command),
    }
}

/// The value of `command` in a query; OpenIM's command names need no percent-decoding.
fn command_in(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("command="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: &str, path: &str, query: Option<&str>) -> Result<Command, Rejection> {
        recognise(&base.parse().unwrap(), path, query)
    }

    const DOC: Result<Command, Rejection> = Ok(Command::BeforeImport(Dialect::Documented));
    const SERVER: Result<Command, Rejection> = Ok(Command::BeforeImport(Dialect::Server));

    #[test]
    fn the_request_line_chooses_the_dialect() {
        let query = Some("command=ImportFriendReqBeforeCommand&contenttype=json");
        assert_eq!(at("/", "/", query), DOC);
        assert_eq!(at("/", "/callbackBeforeImportFriendsCommand", None), SERVER);
        assert_eq!(
            at(
                "/",
                "/callbackBeforeImportFriendsCommand",
                Some("contenttype=json")
            ),
            SERVER
        );
        assert_eq!(
            at("/", "/callbackAfterImportFriendsCommand", None),
            Ok(Command::AfterImport)
        );
    }

    #[test]
    fn a_base_path_is_a_whole_number_of_segments() {
        let query = Some("contenttype=json&command=ImportFriendReqBeforeCommand");
        for base in ["/hook", "/hook/"] {
            assert_eq!(at(base, "/hook", query), DOC);
            assert_eq!(at(base, "/hook/", query), DOC);
            assert_eq!(
                at(base, "/hook/callbackBeforeImportFriendsCommand", None),
                SERVER
            );
            assert!(at(base, "/hooked", query).is_err());
            assert!(at(base, "/callbackBeforeImportFriendsCommand", None).is_err());
        }
    }

    #[test]
    fn what_is_not_ours_is_unknown_in_the_dialect_of_its_line() {
        for (path, query, dialect) in [
            ("/", None, Dialect::Server),
            ("/", Some("command=SomethingElse"), Dialect::Documented),
            ("/favicon.ico", None, Dialect::Server),
            ("/callbackBeforeAddFriendCommand", None, Dialect::Server),
            (
                "/callbackBeforeAddFriendCommand",
                Some("command=ImportFriendReqBeforeCommand"),
                Dialect::Server,
            ),
        ] {
            let expected = Rejection {
                dialect,
                reason: Reason::UnknownCommand,
            };
            assert_eq!(at("/", path, query), Err(expected), "{path} {query:?}");
        }
    }

    #[test]
    fn another_callback_is_one_of_openims() {
        let base: BasePath = "/hook".parse().unwrap();
        for (path, query, below) in [
            (
                "/hook/callbackBeforeAddFriendCommand",
                None,
                Some("/callbackBeforeAddFriendCommand"),
            ),
            ("/hook", Some("command=SomethingElse"), Some("")),
            ("/hook/", Some("command=SomethingElse"), Some("/")),
            ("/hook", Some("command=ImportFriendReqBeforeCommand"), None),
            ("/hook", None, None),
            ("/hook/callbackBeforeImportFriendsCommand", None, None),
            ("/hook/metrics", None, None),
            ("/hook/callbackX/../metrics", None, None),
            ("/callbackBeforeAddFriendCommand", None, None),
        ] {
            assert_eq!(another(&base, path, query), below, "{path} {query:?}");
        }
    }

    #[test]
    fn a_query_that_contradicts_the_path_is_a_mismatch() {
        let rejection = at(
            "/",
            "/callbackBeforeImportFriendsCommand",
            Some("command=callbackBeforeAddFriendCommand"),
        )
        .unwrap_err();
        assert!(matches!(rejection.reason, Reason::CommandMismatch { .. }));
        assert_eq!(rejection.dialect, Dialect::Server);
    }

    #[test]
    fn a_base_path_is_checked_where_it_is_set() {
        for bad in ["", "hooks", "/a b", "/a?b", "/a#b"] {
            assert_eq!(bad.parse::<BasePath>(), Err(InvalidBasePath), "{bad}");
        }
    }
}
