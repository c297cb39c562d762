//! The rules: which owners are added to which list, and for how long.

mod read;
#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use importguard_lists::ListName;
use importguard_yaml::{diagnostic::Diagnostics, file::FileKind, yaml::MAX_SOURCE_BYTES};

/// The maximum length of a window. When the detector starts, it reads twice as much of the stream to rebuild windows.
pub const MAX_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum duration of an entry.
pub const MAX_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const FILE: FileKind = FileKind {
    max_bytes: MAX_SOURCE_BYTES as u64,
    if_missing: "name the file of rules with --rules or IMPORTGUARD_DETECT_RULES; `importguard policy init` writes one to begin with",
    if_larger: "write fewer rules",
};

/// The rules of a file, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its ID, of at most 64 bytes.
    pub id: String,
    /// What is counted per owner.
    pub kind: Kind,
    /// The threshold: the count at which the rule acts; at least 1.
    pub least: usize,
    /// The length of the window.
    pub within: Duration,
    /// Which decisions count.
    pub only: Filter,
    /// Which of these decisions do not count.
    pub except: Filter,
    /// The live list that the owner is added to.
    pub list: ListName,
    /// How long the owner stays on the list.
    pub duration: Duration,
    /// Whether decisions count while the owner is on the list.
    pub prolong: bool,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refused imports.
    Refusals,
    /// Different friends in an owner's imports.
    DifferentFriends,
}

/// Conditions on decisions. An empty field is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Verdicts.
    pub verdicts: Vec<&'static str>,
    /// IDs of the policy's rules.
    pub rules: Vec<String>,
    /// Codes of refusals.
    pub codes: Vec<i64>,
    /// Causes of fallbacks.
    pub causes: Vec<&'static str>,
}

impl Rules {
    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid: every error in it.
    pub(crate) fn load(path: &Path) -> Result<Self, Diagnostics> {
        let source = FILE.read_text(path, "the file")?;
        Self::parse(&path.display().to_string(), &source)
    }

    /// Reads the content of a file; `name` is its name in messages.
    ///
    /// # Errors
    /// If the content is invalid: every error in it.
    pub fn parse(name: &str, source: &str) -> Result<Self, Diagnostics> {
        read::rules(name, source).map(Self)
    }

    /// The rules, at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.0.iter()
    }

    /// Returns the rule with this index in the file, from 0.
    pub fn get(&self, index: usize) -> Option<&Rule> {
        self.0.get(index)
    }

    /// The longest window of all rules.
    pub fn longest_window(&self) -> Duration {
        let windows = self.0.iter().map(|rule| rule.within);
        windows.max().unwrap_or_default()
    }

    /// The longest entry duration of all rules.
    pub fn longest_entry(&self) -> Duration {
        let entries = self.0.iter().map(|rule| rule.duration);
        entries.max().unwrap_or_default()
    }
}

impl Rule {
    /// Returns the evidence, which is the reason of an entry: `hammering: 20 refusals within 10m`.
    pub fn evidence(&self) -> String {
        let what = match (self.kind, self.least) {
            (Kind::Refusals, 1) => "refusal",
            (Kind::Refusals, _) => "refusals",
            (Kind::DifferentFriends, 1) => "different friend",
            (Kind::DifferentFriends, _) => "different friends",
        };
        let within = humantime::format_duration(self.within);
        format!("{}: {} {what} within {within}", self.id, self.least)
    }
}
