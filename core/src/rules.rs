//! What the rules of a policy did, and the revision of the policy.

use serde::{Deserialize, Serialize};

use crate::Match;

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredRule {
    /// The rule's ID.
    pub id: String,
    /// Whether it was enforced.
    pub mode: Mode,
    /// What it did, or would have done.
    pub outcome: Outcome,
    /// Why its expression failed, without user IDs; only with [`Outcome::Error`].
    pub reason: Option<String>,
    /// What made it act, in order of the first friend that each applied to. Empty for the built-in rules.
    pub matched: Vec<Match>,
    /// How many more friends it acted on, whose matches are left out: their number is limited.
    pub unlisted: u32,
}

/// Whether a rule is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// It is enforced.
    Enforce,
    /// It is evaluated and reported, and changes nothing.
    Shadow,
}

impl Mode {
    /// All values, in order.
    pub const ALL: [Self; 2] = [Self::Enforce, Self::Shadow];

    /// Its name in events, logs, spans and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

impl AsRef<str> for Mode {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The outcome of a rule that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It refused the import.
    Refuse,
    /// It removed friends.
    Remove,
    /// Its expression failed: it was skipped or, if `onError` says so, refused the import.
    Error,
    /// It is in shadow mode and was not evaluated, because that would have exceeded the cost limit of shadow rules.
    Skipped,
}

impl Outcome {
    /// All values, in order.
    pub const ALL: [Self; 4] = [Self::Refuse, Self::Remove, Self::Error, Self::Skipped];

    /// Its name in events, logs, spans and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Remove => "remove",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

impl AsRef<str> for Outcome {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The friends that a rule removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The rule's ID.
    pub rule: String,
    /// Ascending indexes into the request's friends, from 0; at least one.
    pub friends: Vec<u32>,
}

/// The policy that a verdict is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyRevision {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file: `sha256:` and 64 hex digits.
    pub digest: String,
}

/// The content of a list that a verdict is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListRevision {
    /// Its name in the policy.
    pub name: String,
    /// SHA-256 of its content: `sha256:` and 64 hex digits. Of a live list: of the file or values beside it, if there are any.
    pub digest: String,
    /// Number of distinct IDs. With a live list, its entries are counted as well, even if the file has the same IDs.
    pub size: u64,
    /// Of a live list: the revision of the bucket with the list's last change, or 0 if it never had an entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
}
