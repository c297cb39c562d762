//! What a policy changes in another one, for the log line of a reload.

use std::{
    collections::hash_map::DefaultHasher,
    fmt::{self, Write},
    hash::{Hash, Hasher},
};

use importguard_core::ListRevision;

use super::{
    Policy,
    yaml::{Node, Value},
};

/// How many names of a kind are mentioned.
const MAX_NAMED: usize = 8;

/// A rule's ID, and a hash of what the file says of it, without comments and layout.
pub(super) type RuleText = (String, u64);

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
            let mut texts = policy.rule_texts.iter();
            texts.find(|(known, _)| known == id).map(|(_, text)| *text)
        };
        let without = |policy: &Self, other: &Self| -> Vec<String> {
            let ids = policy.rule_texts.iter().map(|(id, _)| id);
            ids.filter(|id| text(other, id).is_none())
                .cloned()
                .collect()
        };
        let common = |policy: &Self, other: &Self| -> Vec<String> {
            let ids = policy.rule_texts.iter().map(|(id, _)| id);
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
        let (name, size) = (&list.name, ids(list.size));
        match find(old, name) {
            None => Some(format!("list {name} added ({size})")),
            Some(old) if old.digest == list.digest && old.size == list.size => None,
            Some(old) if old.size == list.size => Some(format!("list {name} changed ({size})")),
            Some(old) => Some(format!("list {name} {} → {size}", grouped(old.size))),
        }
    });
    let removed = old.lists().filter(|list| find(new, &list.name).is_none());
    let removed = removed.map(|list| format!("list {} removed", list.name));
    present.chain(removed).collect()
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
                rules => parts.push(format!("rules {what}: {}", named(rules, ", "))),
            }
        }
        if self.reordered {
            parts.push("rules reordered".to_owned());
        }
        if self.nobody_left {
            parts.push("nobodyLeft changed".to_owned());
        }
        if !self.lists.is_empty() {
            parts.push(named(&self.lists, ", "));
        }
        match parts.as_slice() {
            [] => f.write_str("no rule and no list changed"),
            parts => f.write_str(&parts.join("; ")),
        }
    }
}

fn named(all: &[String], separator: &str) -> String {
    let mut text = all[..all.len().min(MAX_NAMED)].join(separator);
    if let more @ 1.. = all.len().saturating_sub(MAX_NAMED) {
        // Writing into a String cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

/// A number of IDs, in words.
pub(super) fn ids(count: u64) -> String {
    match count {
        1 => "1 ID".to_owned(),
        count => format!("{} IDs", grouped(count)),
    }
}

/// `1204` as `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rules of a policy file, before they are read.
pub(super) fn rule_texts(root: &Node) -> Vec<RuleText> {
    let Some(Value::Sequence(rules)) = root.entry("rules").map(|rules| &rules.value) else {
        return Vec::new();
    };
    let texts = rules
        .iter()
        .filter_map(|rule| match &rule.entry("id")?.value {
            Value::Scalar { text, .. } => Some((text.clone(), hash(rule))),
            _ => None,
        });
    texts.collect()
}

/// A hash of the value, whatever its place and the order of its keys. The depth is limited by that of the tree.
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
