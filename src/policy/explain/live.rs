//! Live lists from files, for explanations without a bucket.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use importguard_core::EventId;
use importguard_decider::{lists::live::LiveLists, policy::Policy};
use importguard_lists::{Addition, Author, Brief, ListName};
use time::OffsetDateTime;

use crate::list::file;

/// The placeholder for an author that a file does not name.
const UNKNOWN: &str = "unknown";

/// A live list and the file with its entries.
#[derive(Clone, Debug)]
pub(super) struct LiveFile {
    list: ListName,
    file: PathBuf,
}

impl FromStr for LiveFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (list, file) = text.split_once('=').ok_or(
            "must be NAME=FILE, such as blocked=blocked.jsonl from `importguard list export blocked`",
        )?;
        Ok(Self {
            list: list.parse().map_err(|error| format!("{list}: {error}"))?,
            file: file.into(),
        })
    }
}

/// The live lists of a policy, with the entries from files.
pub(super) struct Live {
    pub(super) lists: LiveLists,
    /// Live lists without a file, by their names in the bucket.
    missing: BTreeSet<String>,
}

impl Live {
    /// Reads `files`.
    ///
    /// # Errors
    /// If a file cannot be used, or is for a list that the policy does not have.
    pub(super) fn read(policy: &Policy, files: &[LiveFile]) -> anyhow::Result<Self> {
        let named = policy.live_lists().map(|(live, _)| live.to_owned());
        let mut missing: BTreeSet<_> = named.collect();
        let known: Vec<_> = missing.iter().cloned().collect();
        let mut lists = LiveLists::default();
        let standard = Addition {
            by: Author::parse(UNKNOWN)?,
            reason: None,
            at: OffsetDateTime::UNIX_EPOCH,
            until: None,
            removed: false,
            event: EventId::new(),
        };
        for LiveFile { list, file } in files {
            if !missing.remove(list.as_str()) {
                match known.iter().any(|name| name == list.as_str()) {
                    true => bail!("--live {list}: given twice"),
                    false if known.is_empty() => {
                        bail!("--live {list}: the policy has no live lists")
                    }
                    false => bail!(
                        "--live {list}: the policy has no such live list; it has {}",
                        known.join(", ")
                    ),
                }
            }
            let entries = file::read(file, list, &standard);
            for (key, entry) in entries.with_context(|| format!("--live {list}"))? {
                let until = entry.until.map(|until| until.unix_timestamp());
                let value = Brief {
                    by: entry.by.as_str().into(),
                    reason: entry.reason.as_ref().map_or("", |it| it.as_str()).into(),
                    until: until.and_then(|until| u64::try_from(until).ok()),
                    ..Brief::default()
                };
                lists.add(&key, &value);
            }
        }
        Ok(Self { lists, missing })
    }

    /// The note to print if live lists are missing.
    pub(super) fn note(&self) -> Option<String> {
        let (first, more) = (self.missing.first()?, self.missing.len() > 1);
        let names: Vec<_> = self.missing.iter().map(String::as_str).collect();
        Some(format!(
            "note: nobody is on the live {} {} here; use --live {first}=FILE with what `importguard list export {first}` prints",
            if more { "lists" } else { "list" },
            names.join(", ")
        ))
    }

    /// Whether the policy has a live list of this name in the bucket whose entries no file has.
    pub(super) fn lacks(&self, live: &str) -> bool {
        self.missing.contains(live)
    }
}
