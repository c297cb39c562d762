//! The changes from one policy to another, for the log line of a reload.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fmt::{self, Write},
    hash::{Hash, Hasher},
};

use importguard_core::ListRevision;

use super::{
    Policy,
    numbers::{grouped, number_of_ids},
    yaml::{Entry, Node, Value},
};

/// Maximum number of names that are listed per kind of change.
const MAX_NAMED: usize = 8;

/// The definitions in a policy file, as hashes that do not depend on comments and layout.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Each rule's ID and hash.
    rules: Vec<(String, u64)>,
    /// Each list's keys and the hashes of their values, by the list's name. Without `values`: those are compared as IDs.
    lists: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What changed from one policy to the next. Displays as `rule added: a; list blocked 1,204 → 1,207 IDs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    renamed: Option<(String, String)>,
    added_rules: Vec<String>,
    removed_rules: Vec<String>,
    changed_rules: Vec<String>,
    reordered: bool,
    nobody_left: bool,
    lists: Vec<String>,
}

impl Policy {
    /// What changed from `previous` to this policy.
    pub fn changes_since(&self, previous: &Self) -> Changes {
        let text = |policy: &Self, id: &str| {
            let mut texts = policy.definitions.rules.iter();
            texts.find(|(known, _)| known == id).map(|(_, text)| *text)
        };
        let without = |policy: &Self, other: &Self| -> Vec<String> {
            let ids = policy.definitions.rules.iter().map(|(id, _)| id);
            ids.filter(|id| text(other, id).is_none())
                .cloned()
                .collect()
        };
        let common = |policy: &Self, other: &Self| -> Vec<String> {
            let ids = policy.definitions.rules.iter().map(|(id, _)| id);
            ids.filter(|id| text(other, id).is_some())
                .cloned()
                .collect()
        };
        let kept = common(self, previous);
        Changes {
            renamed: (self.name() != previous.name())
                .then(|| (previous.name().to_owned(), self.name().to_owned())),
            added_rules: without(self, previous),
            removed_rules: without(previous, self),
            reordered: kept != common(previous, self),
            changed_rules: kept
                .into_iter()
                .filter(|id| text(self, id) != text(previous, id))
                .collect(),
            nobody_left: self.nobody_left != previous.nobody_left,
            lists: lists(self, previous),
        }
    }
}

fn lists(new: &Policy, old: &Policy) -> Vec<String> {
    fn find<'p>(policy: &'p Policy, name: &str) -> Option<&'p ListRevision> {
        policy.lists().find(|list| list.name == name)
    }
    let present = new.lists().filter_map(|list| {
        let (name, size) = (&list.name, number_of_ids(list.size));
        match find(old, name) {
            None => Some(format!("list {name} added ({size})")),
            Some(old) if old.digest == list.digest && old.size == list.size => None,
            Some(old) if old.size == list.size => Some(format!("list {name} changed ({size})")),
            Some(old) => Some(format!("list {name} {} → {size}", grouped(old.size))),
        }
    });
    let removed = old.lists().filter(|list| find(new, &list.name).is_none());
    let removed = removed.map(|list| format!("list {} removed", list.name));
    let redefined = new.lists().filter_map(|list| {
        let keys = new.definitions.keys_changed(&old.definitions, &list.name);
        (!keys.is_empty()).then(|| format!("{} of list {} changed", keys.join(" and "), list.name))
    });
    present.chain(removed).chain(redefined).collect()
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some((old, new)) = &self.renamed {
            parts.push(format!("renamed from {old} to {new}"));
        }
        for (what, rules) in [
            ("added", &self.added_rules),
            ("removed", &self.removed_rules),
            ("changed", &self.changed_rules),
        ] {
            match rules.as_slice() {
                [] => {}
                [rule] => parts.push(format!("rule {what}: {rule}")),
                rules => parts.push(format!("rules {what}: {}", named(rules))),
            }
        }
        if self.reordered {
            parts.push("rules reordered".to_owned());
        }
        if self.nobody_left {
            parts.push("nobodyLeft changed".to_owned());
        }
        if !self.lists.is_empty() {
            parts.push(named(&self.lists));
        }
        match parts.as_slice() {
            [] => f.write_str("no rule and no list changed"),
            parts => f.write_str(&parts.join("; ")),
        }
    }
}

fn named(all: &[String]) -> String {
    let mut text = all[..all.len().min(MAX_NAMED)].join(", ");
    if let more @ 1.. = all.len().saturating_sub(MAX_NAMED) {
        // Writing into a String cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

impl Definitions {
    /// The definitions in a policy file's YAML tree.
    pub(super) fn of(root: &Node) -> Self {
        let rules = match root.entry("rules").map(|rules| &rules.value) {
            Some(Value::Sequence(rules)) => rules.as_slice(),
            _ => &[],
        };
        let rules = rules
            .iter()
            .filter_map(|rule| match &rule.entry("id")?.value {
                Value::Scalar { text, .. } => Some((text.clone(), hash(rule))),
                _ => None,
            });
        let lists = root.entry("lists").map(entries).unwrap_or_default().iter();
        let lists = lists.map(|list| {
            let keys = entries(&list.value).iter();
            let keys = keys.filter(|entry| entry.key != "values");
            let keys = keys.map(|entry| (entry.key.clone(), hash(&entry.value)));
            (list.key.clone(), keys.collect())
        });
        Self {
            rules: rules.collect(),
            lists: lists.collect(),
        }
    }

    /// The keys that differ between two definitions of a list that both policies have.
    fn keys_changed(&self, previous: &Self, list: &str) -> Vec<String> {
        let (Some(new), Some(old)) = (self.lists.get(list), previous.lists.get(list)) else {
            return Vec::new();
        };
        let keys: BTreeSet<_> = new.keys().chain(old.keys()).collect();
        let differ = |key: &&String| new.get(*key) != old.get(*key);
        keys.into_iter().filter(differ).cloned().collect()
    }
}

/// The entries of a mapping; none of anything else.
fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Mapping(entries) => entries,
        _ => &[],
    }
}

/// Hashes the value, independent of its position and of the order of its keys. The tree's depth limits the recursion.
fn hash(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &node.value {
        Value::Scalar { text, quoted } => (text, quoted).hash(&mut hasher),
        Value::Sequence(items) => {
            items.len().hash(&mut hasher);
            for item in items {
                self::hash(item).hash(&mut hasher);
            }
        }
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|entry| {
                let mut hasher = DefaultHasher::new();
                (&entry.key, self::hash(&entry.value)).hash(&mut hasher);
                hasher.finish()
            });
            entries.fold(0, u64::wrapping_add).hash(&mut hasher);
        }
        Value::Broken => {}
    }
    hasher.finish()
}
