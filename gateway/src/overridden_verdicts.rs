//! Notices imports that OpenIM reports as done although this gateway refused or shortened them.

use std::hash::{BuildHasher, RandomState};

use hashlink::LruCache;
use importguard_core::{ImportRequest, VerdictKind};
use parking_lot::Mutex;

/// Maximum number of imports that are remembered. OpenIM reports an import right after it, so that even under load few are pending.
const MAX_REMEMBERED: usize = 10_000;

/// The latest imports that this gateway refused or shortened, as hashes: some 40 bytes each.
///
/// OpenIM sends the report of an import with its operationID, owner and friends. The report of a shortened import has the shortened
/// list, so a report with the requested list means that the verdict was ignored.
#[derive(Debug)]
pub(crate) struct OverriddenVerdicts {
    /// Its keys are random, so that nobody can craft two imports with the same hash.
    hasher: RandomState,
    /// By the hash of operationID and owner.
    remembered: Mutex<LruCache<u64, OverriddenVerdict>>,
}

#[derive(Clone, Copy, Debug)]
struct OverriddenVerdict {
    /// The hash of the requested friends.
    friends: u64,
    verdict: VerdictKind,
}

impl Default for OverriddenVerdicts {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            remembered: Mutex::new(LruCache::new(MAX_REMEMBERED)),
        }
    }
}

impl OverriddenVerdicts {
    /// Remembers the verdict that a callback is answered with. An allowed import is forgotten: its caller may have repeated a refused
    /// one with the same operationID.
    pub(crate) fn answered(&self, request: &ImportRequest, verdict: VerdictKind) {
        let import = self.import(request);
        if verdict == VerdictKind::Allow {
            self.remembered.lock().remove(&import);
            return;
        }
        let friends = self.hasher.hash_one(&request.friends);
        let overridden = OverriddenVerdict { friends, verdict };
        self.remembered.lock().insert(import, overridden);
    }

    /// The verdict that the import `reported` as done contradicts, if there is one.
    pub(crate) fn contradicted(&self, reported: &ImportRequest) -> Option<VerdictKind> {
        let import = self.import(reported);
        let friends = self.hasher.hash_one(&reported.friends);
        let mut remembered = self.remembered.lock();
        let overridden = remembered.peek(&import);
        let verdict = overridden.filter(|it| it.friends == friends)?.verdict;
        remembered.remove(&import);
        Some(verdict)
    }

    fn import(&self, request: &ImportRequest) -> u64 {
        self.hasher
            .hash_one((request.operation_id.as_str(), request.owner.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use importguard_core::{OperationId, UserId};

    use super::*;

    fn import(operation_id: &str, friends: &[&str]) -> ImportRequest {
        ImportRequest {
            operation_id: OperationId::parse(operation_id).unwrap(),
            owner: UserId::parse("user123").unwrap(),
            friends: friends
                .iter()
                .map(|id| UserId::parse(*id).unwrap())
                .collect(),
        }
    }

    #[test]
    fn a_report_of_a_refused_import_contradicts_its_verdict_once() {
        let overridden_verdicts = OverriddenVerdicts::default();
        overridden_verdicts.answered(&import("1", &["a"]), VerdictKind::Refuse);
        assert_eq!(overridden_verdicts.contradicted(&import("2", &["a"])), None);
        let refused = import("1", &["a"]);
        assert_eq!(
            overridden_verdicts.contradicted(&refused),
            Some(VerdictKind::Refuse)
        );
        assert_eq!(overridden_verdicts.contradicted(&refused), None);
    }

    #[test]
    fn a_shortened_import_may_be_reported_with_the_shortened_list_only() {
        let overridden_verdicts = OverriddenVerdicts::default();
        overridden_verdicts.answered(&import("1", &["a", "b"]), VerdictKind::Modify);
        assert_eq!(overridden_verdicts.contradicted(&import("1", &["a"])), None);
        assert_eq!(
            overridden_verdicts.contradicted(&import("1", &["a", "b"])),
            Some(VerdictKind::Modify)
        );
    }

    #[test]
    fn an_import_that_was_repeated_and_allowed_may_be_reported() {
        let overridden_verdicts = OverriddenVerdicts::default();
        let repeated = import("1", &["a"]);
        overridden_verdicts.answered(&repeated, VerdictKind::Refuse);
        overridden_verdicts.answered(&repeated, VerdictKind::Allow);
        assert_eq!(overridden_verdicts.contradicted(&repeated), None);
    }

    #[test]
    fn an_import_that_was_allowed_and_then_refused_again_is_remembered_as_long_as_others() {
        let overridden_verdicts = OverriddenVerdicts::default();
        let repeated = import("repeated", &["a"]);
        overridden_verdicts.answered(&repeated, VerdictKind::Refuse);
        overridden_verdicts.answered(&repeated, VerdictKind::Allow);
        for number in 1..MAX_REMEMBERED {
            overridden_verdicts.answered(&import(&number.to_string(), &["a"]), VerdictKind::Refuse);
        }
        overridden_verdicts.answered(&repeated, VerdictKind::Refuse);
        overridden_verdicts.answered(&import("later", &["a"]), VerdictKind::Refuse);
        assert!(overridden_verdicts.contradicted(&repeated).is_some());
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let overridden_verdicts = OverriddenVerdicts::default();
        for number in 0..=MAX_REMEMBERED {
            overridden_verdicts.answered(&import(&number.to_string(), &["a"]), VerdictKind::Refuse);
        }
        assert_eq!(overridden_verdicts.contradicted(&import("0", &["a"])), None);
        let latest = import(&MAX_REMEMBERED.to_string(), &["a"]);
        assert!(overridden_verdicts.contradicted(&latest).is_some());
        assert!(overridden_verdicts.remembered.lock().len() <= MAX_REMEMBERED);
    }
}
