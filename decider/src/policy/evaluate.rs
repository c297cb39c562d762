//! From a request to a decision. One hash for each friend serves every look-up, and nothing is allocated for a rule
//! that does not fire.

use hashbrown::HashTable;

use crate::lists::{IdHash, IdHasher};

use super::decision::{Decision, Fired, Mode, Outcome, Refusal, Removal, Verdict};
use super::read::{DUPLICATE, SELF};
use super::rule::{Action, Matcher};
use super::{Policy, Request};

pub(super) fn evaluate<'p, S: AsRef<str>>(
    policy: &'p Policy,
    request: &Request<'_, S>,
) -> Decision<'p> {
    let hasher = IdHasher::get();
    let owner_hash = hasher.hash(request.owner);
    let mut trail = Trail::default();
    let mut friends = Friends::new(request, hasher, &mut trail);
    for rule in &policy.rules {
        match &rule.action {
            Action::RefuseOwner { owners, refusal } => {
                if owners.matches(request.owner, owner_hash) {
                    return trail.refuse(refusal);
                }
            }
            Action::DropFriends(matcher) => trail.remove(&rule.id, friends.drop_matching(matcher)),
            Action::KeepFirst { max } => trail.remove(&rule.id, friends.keep_first(*max)),
            Action::RefuseOver { max, refusal } => {
                if friends.count() > *max {
                    return trail.refuse(refusal);
                }
            }
        }
    }
    match friends.kept {
        Kept::All => trail.decide(Verdict::Allow),
        Kept::These(kept) if kept.is_empty() => trail.refuse(&policy.nobody_left),
        Kept::These(kept) => trail.decide(Verdict::Modify(kept)),
    }
}

/// What happened so far.
#[derive(Default)]
struct Trail<'p> {
    fired: Vec<Fired<'p>>,
    removed: Vec<Removal<'p>>,
}

impl<'p> Trail<'p> {
    fn remove(&mut self, rule: &'p str, friends: Vec<u32>) {
        if !friends.is_empty() {
            self.fire(rule, Outcome::Remove);
            self.removed.push(Removal { rule, friends });
        }
    }

    fn refuse(mut self, refusal: &'p Refusal) -> Decision<'p> {
        self.fire(&refusal.rule, Outcome::Refuse);
        self.decide(Verdict::Refuse(refusal))
    }

    fn fire(&mut self, id: &'p str, outcome: Outcome) {
        self.fired.push(Fired {
            id,
            mode: Mode::Enforce,
            outcome,
        });
    }

    fn decide(self, verdict: Verdict<'p>) -> Decision<'p> {
        Decision {
            verdict,
            fired: self.fired,
            removed: self.removed,
        }
    }
}

/// The friends of a request and which of them are left.
struct Friends<'r, S> {
    ids: &'r [S],
    hashes: Vec<IdHash>,
    kept: Kept,
}

/// Indexes into the request's friends, of which a message cannot hold 2³².
enum Kept {
    All,
    These(Vec<u32>),
}

impl<'r, S: AsRef<str>> Friends<'r, S> {
    /// Takes the request's friends without the owner and without repetitions.
    fn new(request: &Request<'r, S>, hasher: IdHasher, trail: &mut Trail<'_>) -> Self {
        let ids = request.friends;
        let mut hashes: Vec<IdHash> = Vec::with_capacity(ids.len());
        let mut seen: HashTable<u32> = HashTable::with_capacity(ids.len());
        let mut owners = Vec::new();
        let mut repeated = Vec::new();
        for (index, id) in (0u32..).zip(ids) {
            let id = id.as_ref();
            let hash = hasher.hash(id);
            hashes.push(hash);
            if id == request.owner {
                owners.push(index);
                continue;
            }
            let same = |&other: &u32| {
                let other = other as usize;
                hashes[other] == hash && ids[other].as_ref() == id
            };
            if seen.find(hash.get(), same).is_some() {
                repeated.push(index);
            } else {
                seen.insert_unique(hash.get(), index, |&other| hashes[other as usize].get());
            }
        }
        let mut friends = Self {
            ids,
            hashes,
            kept: Kept::All,
        };
        friends.remove(&owners);
        friends.remove(&repeated);
        trail.remove(SELF, owners);
        trail.remove(DUPLICATE, repeated);
        friends
    }

    fn count(&self) -> usize {
        match &self.kept {
            Kept::All => self.ids.len(),
            Kept::These(kept) => kept.len(),
        }
    }

    /// Removes the friends that match and returns them.
    fn drop_matching(&mut self, matcher: &Matcher) -> Vec<u32> {
        let matches = |index: u32| {
            let index = index as usize;
            matcher.matches(self.ids[index].as_ref(), self.hashes[index])
        };
        let removed: Vec<u32> = match &self.kept {
            Kept::All => (0u32..)
                .zip(self.ids)
                .map(|(index, _)| index)
                .filter(|&index| matches(index))
                .collect(),
            Kept::These(kept) => kept
                .iter()
                .copied()
                .filter(|&index| matches(index))
                .collect(),
        };
        self.remove(&removed);
        removed
    }

    /// Removes the friends after the first `max` and returns them.
    fn keep_first(&mut self, max: usize) -> Vec<u32> {
        if self.count() <= max {
            return Vec::new();
        }
        let all = std::mem::replace(&mut self.kept, Kept::All);
        let mut kept = all.into_indexes(self.ids.len());
        let removed = kept.split_off(max);
        self.kept = Kept::These(kept);
        removed
    }

    /// Removes the friends with these ascending indexes, each of which is there.
    fn remove(&mut self, removed: &[u32]) {
        if removed.is_empty() {
            return;
        }
        let mut removed = removed.iter().copied().peekable();
        let mut stays = |index: u32| removed.next_if_eq(&index).is_none();
        match &mut self.kept {
            Kept::These(kept) => kept.retain(|&index| stays(index)),
            Kept::All => {
                let mut kept = Vec::with_capacity(self.ids.len());
                kept.extend(
                    (0u32..)
                        .zip(self.ids)
                        .map(|(index, _)| index)
                        .filter(|&index| stays(index)),
                );
                self.kept = Kept::These(kept);
            }
        }
    }
}

impl Kept {
    fn into_indexes(self, count: usize) -> Vec<u32> {
        match self {
            Self::All => (0u32..).zip(0..count).map(|(index, _)| index).collect(),
            Self::These(kept) => kept,
        }
    }
}
