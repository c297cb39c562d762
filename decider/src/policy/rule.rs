//! A rule as it is evaluated: names resolved, texts ready.

use std::sync::Arc;

use crate::lists::{IdHash, IdSet};

use super::decision::Refusal;

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    RefuseOwner { owners: Matcher, refusal: Refusal },
    DropFriends(Matcher),
    KeepFirst { max: usize },
    RefuseOver { max: usize, refusal: Refusal },
}

/// Which ids a rule is about: those that any of its parts matches.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) in_list: Option<Arc<IdSet>>,
    pub(super) not_in: Option<Arc<IdSet>>,
    pub(super) prefixes: Vec<String>,
}

impl Matcher {
    pub(super) fn matches(&self, id: &str, hash: IdHash) -> bool {
        let is_in = |list: &Arc<IdSet>| list.contains_hashed(id, hash);
        self.in_list.as_ref().is_some_and(is_in)
            || self.not_in.as_ref().is_some_and(|list| !is_in(list))
            || self
                .prefixes
                .iter()
                .any(|prefix| id.starts_with(prefix.as_str()))
    }
}
