//! All live lists at one revision of their bucket.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, LazyLock},
};

use importguard_lists::{Announcement, Brief, Change, ChangeKind, Key};

use super::{leaf::Entry, map::LiveMap};

/// All live lists at one revision of their bucket. Clones share the parts that neither changes.
#[derive(Clone, Debug, Default)]
pub struct LiveLists {
    revision: u64,
    lists: Arc<BTreeMap<Arc<str>, LiveList>>,
    /// Keys that do not belong to entries.
    others: Arc<HashSet<String>>,
}

/// A live list.
#[derive(Clone, Debug, Default)]
pub struct LiveList {
    /// Its entries.
    pub entries: LiveMap,
    /// The revision of the bucket at the last change of this list.
    pub revision: u64,
}

impl LiveLists {
    /// Returns an empty set of live lists, for evaluations without a bucket.
    pub fn none() -> &'static Self {
        static NONE: LazyLock<LiveLists> = LazyLock::new(LiveLists::default);
        &NONE
    }

    /// Creates live lists for tests from the list, ID, reason and end of each entry. Each entry gets the next revision.
    #[cfg(test)]
    pub(crate) fn of(entries: &[(&str, &str, &str, Option<u32>)]) -> Self {
        let mut lists = Self::default();
        for (list, id, reason, until) in entries {
            lists.revision += 1;
            let revision = lists.revision;
            let list = lists.list_mut(list);
            list.revision = revision;
            let entry = Entry {
                by: "alice",
                reason,
                until: *until,
                removed: false,
            };
            list.entries.insert(id, entry);
        }
        lists
    }

    /// Adds an entry that does not come from a bucket, with the next revision.
    pub fn add(&mut self, key: &Key, value: &Brief<'_>) {
        self.revision += 1;
        self.put(key.list.as_str(), key.id.as_str(), value, self.revision);
    }

    /// Returns the list with this name; `None` if it never had an entry.
    pub fn get(&self, name: &str) -> Option<&LiveList> {
        self.lists.get(name)
    }

    /// All lists, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LiveList)> {
        self.lists.iter().map(|(name, list)| (&**name, list))
    }

    /// The revision of the bucket up to which changes are applied.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The number of keys in the bucket, according to the applied changes.
    pub fn keys(&self) -> u64 {
        let entries: usize = self.lists.values().map(|list| list.entries.keys()).sum();
        (entries + self.others.len()) as u64
    }

    /// The number of entries in all lists, excluding removed ones.
    pub fn entries(&self) -> u64 {
        let entries = self.lists.values().map(|list| list.entries.entries());
        entries.sum::<usize>() as u64
    }

    /// The number of entries of `list` that are active at `now`, in Unix seconds. Looks at each entry.
    pub(super) fn active(&self, list: &str, now: u64) -> usize {
        let entries = self
            .get(list)
            .into_iter()
            .flat_map(|list| list.entries.iter());
        entries.filter(|(_, entry)| entry.counts(now)).count()
    }

    /// Applies the next change of the bucket, at `now` in Unix seconds. Returns the number of entries that were dropped because the
    /// change announces that they are about to be cleared.
    pub(super) fn apply(&mut self, change: &Change, now: u64) -> u64 {
        self.revision = change.revision;
        if let Some((key, value)) = change.kind.brief() {
            self.put(key.list.as_str(), key.id.as_str(), &value, change.revision);
        }
        match &change.kind {
            ChangeKind::Other(key, value) => {
                if !self.others.contains(key) {
                    Arc::make_mut(&mut self.others).insert(key.clone());
                }
                let announced = Announcement::read(key, value).into_iter().flatten();
                announced
                    .filter(|key| self.drop_dead(key.list.as_str(), key.id.as_str(), now))
                    .count() as u64
            }
            _ => 0,
        }
    }

    fn put(&mut self, list: &str, id: &str, value: &Brief<'_>, revision: u64) {
        let list = self.list_mut(list);
        list.revision = revision;
        let until = value
            .until
            .map(|until| u32::try_from(until.max(1)).unwrap_or(u32::MAX));
        list.entries.insert(
            id,
            Entry {
                by: &value.by,
                reason: &value.reason,
                until,
                removed: value.removed,
            },
        );
    }

    /// Returns the list with this name, creating it if it is missing.
    pub(super) fn list_mut(&mut self, name: &str) -> &mut LiveList {
        let lists = Arc::make_mut(&mut self.lists);
        if !lists.contains_key(name) {
            lists.insert(name.into(), LiveList::default());
        }
        lists.entry(name.into()).or_default()
    }

    /// Records that all changes up to `revision` are applied, including those that the bucket no longer has.
    pub(super) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Sets the revision and the keys that do not belong to entries, for a state that is read from a snapshot.
    pub(super) fn restore(&mut self, revision: u64, others: HashSet<String>) {
        self.revision = revision;
        self.others = Arc::new(others);
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }

    /// Drops an entry if it is removed or expired. Returns whether it was dropped.
    fn drop_dead(&mut self, list: &str, id: &str, now: u64) -> bool {
        let hash = super::super::IdHasher::get().hash(id);
        let found = self.get(list).and_then(|list| list.entries.get(id, hash));
        let dead = found.is_some_and(|entry| !entry.counts(now));
        if dead {
            self.list_mut(list).entries.remove(id);
        }
        dead
    }

    /// Shrinks the capacity to fit. Call it only on a state that is not shared, because it copies shared parts.
    pub(super) fn shrink(&mut self) {
        for list in Arc::make_mut(&mut self.lists).values_mut() {
            list.entries.shrink();
        }
    }
}
