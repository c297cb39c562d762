//! The most recent known changes, to prove that a bucket still has the same history.
//!
//! A bucket that was restored from a backup keeps its creation time, and after some changes its revision is higher than before. But NATS
//! stores each change with a timestamp in nanoseconds. If the bucket still has one of the recent changes with the same timestamp, its
//! history is the same up to that change. All changes after that one are kept here, and each of them must still be in the bucket, or have
//! been replaced by a later change of the same key.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use importguard_lists::{Announcement, Change, ChangeKind, Key};

/// How many changes are kept, and read again after each interruption. They take some 360 KB: 40 bytes each in tree nodes that are three
/// quarters full, and a table of 8,192 slots of 17 bytes. NATS sends a million changes in five seconds, so these take some 20 ms. If
/// every one of their keys changed while a decider was disconnected, everything is read again; a thousand keys that change constantly
/// are too few to cause that.
const KEPT: usize = 4096;

/// The last change of each of the most recently changed keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    /// The changes, by revision.
    changes: BTreeMap<u64, Known>,
    /// The revision of each change, by the hash of its key.
    revisions: HashMap<u64, u64>,
    /// Whether `changes` covers every key that has a value.
    are_all: bool,
    /// Whether one of the changes was found in the bucket since [`begin`](Self::begin).
    found_any: bool,
    /// Hashes of keys whose last change is no longer in the bucket, so that a later change of the key must follow.
    replaced: Vec<u64>,
}

/// A known change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// When NATS stored it, in Unix nanoseconds.
    pub(super) stored: i128,
    /// The hash of its key. A later version of Rust may hash differently; everything is then read again once.
    pub(super) key: u64,
    /// Whether its key was announced as about to be cleared.
    pub(super) may_be_cleared: bool,
    found: bool,
}

/// The bucket does not have the known history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HistoryError {
    #[error("the bucket was restored to an earlier state and changed since")]
    Restored,
    #[error(
        "a change is gone without a later one of its key: the bucket was restored, or keys were deleted without a record"
    )]
    Gone,
    #[error("so much changed meanwhile that a restoration of the bucket would not show")]
    Unknown,
}

impl Default for Recent {
    fn default() -> Self {
        Self::new(BTreeMap::new(), true)
    }
}

impl Recent {
    pub(super) fn new(changes: BTreeMap<u64, Known>, are_all: bool) -> Self {
        let revisions = changes.iter();
        let revisions = revisions.map(|(revision, known)| (known.key, *revision));
        Self {
            revisions: revisions.collect(),
            changes,
            are_all,
            found_any: false,
            replaced: Vec::new(),
        }
    }

    /// Returns the changes by revision, and whether they cover every key that has a value.
    pub(super) fn parts(&self) -> (&BTreeMap<u64, Known>, bool) {
        (&self.changes, self.are_all)
    }

    /// Starts a comparison. Returns the revision after which the bucket must be read.
    pub(super) fn begin(&mut self) -> u64 {
        self.found_any = false;
        for known in self.changes.values_mut() {
            known.found = false;
        }
        match self.changes.first_key_value() {
            Some((first, _)) if !self.are_all => first.saturating_sub(1),
            _ => 0,
        }
    }

    /// Compares a change in the bucket, up to the last known revision, with the known history.
    ///
    /// # Errors
    /// If the change is not part of that history.
    pub(super) fn compare(&mut self, change: &Change) -> Result<(), HistoryError> {
        let Some(&revision) = self.revisions.get(&hash_of(&change.kind)) else {
            return Err(HistoryError::Restored);
        };
        match self.changes.get_mut(&revision) {
            Some(known) if (revision, known.stored) == (change.revision, change.stored) => {
                known.found = true;
                self.found_any = true;
                Ok(())
            }
            // A bucket that another client created may keep replaced values.
            Some(_) if revision > change.revision => Ok(()),
            _ => Err(HistoryError::Restored),
        }
    }

    /// Ends the comparison of the changes up to the last known revision.
    ///
    /// # Errors
    /// If none of the known changes was found, so that the comparison proves nothing.
    pub(super) fn compared(&mut self) -> Result<(), HistoryError> {
        if !self.found_any && !self.are_all {
            return Err(HistoryError::Unknown);
        }
        let gone = self.changes.values();
        let gone = gone.filter(|known| !known.found && !known.may_be_cleared);
        self.replaced.extend(gone.map(|known| known.key));
        Ok(())
    }

    /// Records a new change.
    pub(super) fn apply(&mut self, change: &Change) {
        let key = hash_of(&change.kind);
        if !self.replaced.is_empty() {
            self.replaced.retain(|replaced| *replaced != key);
        }
        if let Some(before) = self.revisions.insert(key, change.revision) {
            self.changes.remove(&before);
        }
        let known = Known::new(change.stored, key, false);
        self.changes.insert(change.revision, known);
        if self.changes.len() > KEPT
            && let Some((_, first)) = self.changes.pop_first()
        {
            self.revisions.remove(&first.key);
            self.are_all = false;
        }
        if let ChangeKind::Other(key, value) = &change.kind {
            for key in Announcement::read(key, value).into_iter().flatten() {
                self.cleared(hash(&key));
            }
        }
    }

    fn cleared(&mut self, key: u64) {
        self.replaced.retain(|replaced| *replaced != key);
        let revision = self.revisions.get(&key);
        if let Some(known) = revision.and_then(|revision| self.changes.get_mut(revision)) {
            known.may_be_cleared = true;
        }
    }

    /// Checks the history after every new change was applied.
    ///
    /// # Errors
    /// If a known change is no longer in the bucket and was not replaced.
    pub(super) fn finish(&self) -> Result<(), HistoryError> {
        match self.replaced.is_empty() {
            true => Ok(()),
            false => Err(HistoryError::Gone),
        }
    }
}

impl Known {
    pub(super) const fn new(stored: i128, key: u64, may_be_cleared: bool) -> Self {
        Self {
            stored,
            key,
            may_be_cleared,
            found: false,
        }
    }
}

fn hash_of(kind: &ChangeKind) -> u64 {
    match kind {
        ChangeKind::Entry(key, _) | ChangeKind::Deleted(key) => hash(key),
        ChangeKind::Other(key, _) => {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish()
        }
    }
}

fn hash(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key.list.as_str(), key.id.as_str()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a change of `key` with this revision, stored at this time.
    fn change(key: &str, revision: u64, stored: i128) -> Change {
        let kind = match Key::parse(key) {
            Some(key) => ChangeKind::Entry(key, Default::default()),
            None => ChangeKind::Other(key.to_owned(), Default::default()),
        };
        Change {
            revision,
            stored,
            kind,
        }
    }

    /// Compares `known` with a bucket that has the changes in `there`, of which those after the last known revision are new.
    fn compared(known: &[Change], there: &[Change]) -> Result<(), HistoryError> {
        let mut recent = Recent::default();
        for change in known {
            recent.apply(change);
        }
        let last = known.last().map_or(0, |change| change.revision);
        let after = recent.begin();
        let there = there.iter().filter(|change| change.revision > after);
        let (before, new): (Vec<_>, Vec<_>) = there.partition(|change| change.revision <= last);
        before
            .iter()
            .try_for_each(|change| recent.compare(change))?;
        recent.compared()?;
        new.iter().for_each(|change| recent.apply(change));
        recent.finish()
    }

    fn many(from: u64, to: u64) -> Vec<Change> {
        let change = |revision| change(&format!("l.{revision}"), revision, i128::from(revision));
        (from..=to).map(change).collect()
    }

    #[test]
    fn a_bucket_that_only_went_on_has_the_history_that_is_known() {
        let known = [change("l.a", 1, 10), change("l.b", 2, 20)];
        let same = |there: &[Change]| assert_eq!(compared(&known, there), Ok(()));
        same(&[change("l.a", 1, 10), change("l.b", 2, 20)]);
        same(&[change("l.a", 1, 10), change("l.b", 7, 70)]);
        same(&[
            change("l.b", 2, 20),
            change("l.c", 3, 30),
            change("l.a", 4, 40),
        ]);
        same(&[change("l.b", 3, 30), change("l.a", 4, 40)]);
        assert_eq!(compared(&[], &many(1, 100)), Ok(()));
        assert_eq!(compared(&many(1, 5000), &many(1, 6000)), Ok(()));
    }

    #[test]
    fn a_bucket_that_was_restored_has_another_one() {
        let known = [
            change("l.a", 1, 10),
            change("l.b", 2, 20),
            change("l.a", 3, 30),
        ];
        for (there, error) in [
            // Restored to revision 2.
            (
                vec![
                    change("l.a", 1, 10),
                    change("l.b", 2, 20),
                    change("l.c", 3, 90),
                ],
                HistoryError::Restored,
            ),
            (
                vec![change("l.a", 1, 10), change("l.b", 5, 90)],
                HistoryError::Gone,
            ),
            // Restored to revision 1.
            (
                vec![change("l.b", 2, 90), change("l.a", 3, 91)],
                HistoryError::Restored,
            ),
        ] {
            assert_eq!(compared(&known, &there), Err(error), "{there:?}");
        }
        // None of the kept changes is still in the bucket.
        assert_eq!(
            compared(&many(1, 5000), &many(6000, 12_000)),
            Err(HistoryError::Unknown)
        );
    }

    #[test]
    fn what_was_announced_may_be_cleared_away() {
        let announcement = br#"{"keys":["l.a"],"next":0}"#;
        let kind = ChangeKind::Other("_cleared".to_owned(), announcement.to_vec().into());
        let cleared = Change {
            kind,
            ..change("_cleared", 3, 30)
        };
        let known = [change("l.a", 1, 10), change("l.b", 2, 20), cleared];
        let there = [change("l.b", 2, 20), change("_cleared", 3, 30)];
        assert_eq!(compared(&known, &there), Ok(()));
        assert_eq!(compared(&known[..2], &there[..1]), Err(HistoryError::Gone));
    }
}
