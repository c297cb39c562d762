//! What the rules of a policy did, and which policy it was.

use serde::{Deserialize, Serialize};

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FiredRule {
    /// The rule's id.
    pub id: String,
    /// Whether it acted.
    pub mode: Mode,
    /// What it did, or would have done.
    pub outcome: Outcome,
}

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// It acts.
    Enforce,
    /// It is evaluated and reported only.
    Shadow,
}

impl Mode {
    /// Every one, in their order.
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

/// What a rule that fired came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It refused the import.
    Refuse,
    /// It removed friends.
    Remove,
    /// Its expression failed and it was skipped.
    Error,
    /// It is in shadow and was not evaluated, because it would have cost more than rules in shadow may.
    Skipped,
}

impl Outcome {
    /// Every one, in their order.
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

/// Whom a rule removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The rule's id.
    pub rule: String,
    /// Ascending indexes into the request's friends, from 0; at least one.
    pub friends: Vec<u32>,
}

/// Which policy a verdict follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyRevision {
    /// Its name.
    pub name: String,
    /// `sha256:` and 64 hex digits over the file.
    pub digest: String,
}

/// Which content of a list a verdict follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListRevision {
    /// Its name in the policy.
    pub name: String,
    /// `sha256:` and 64 hex digits over its content.
    pub digest: String,
    /// How many distinct ids it holds.
    pub size: u64,
}
