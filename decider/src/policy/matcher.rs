//! Which ids a rule is about.

use std::sync::Arc;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::lists::{IdHash, IdSet};

/// The most memory that one regular expression, and all of a rule's together, may take compiled. The crate's own
/// limit is ten times as much for each; at this size one compiles in some 10 ms.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// The most memory for the part of the automaton that is built while matching, for each thread.
const MAX_DFA_BYTES: usize = 2 << 20;

/// A list under the name that the policy gives it.
#[derive(Debug)]
pub(super) struct NamedIds {
    pub(super) name: String,
    pub(super) ids: Arc<IdSet>,
}

/// Matches the ids that any of its parts does.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) in_list: Option<NamedIds>,
    pub(super) not_in: Option<NamedIds>,
    pub(super) prefixes: Vec<String>,
    pub(super) suffixes: Vec<String>,
    pub(super) patterns: Option<RegexSet>,
}

/// The part of a matcher that an id came upon first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'p> {
    In(&'p str),
    NotIn(&'p str),
    Prefix(&'p str),
    Suffix(&'p str),
    Pattern(&'p str),
}

impl Matcher {
    pub(super) fn matches(&self, id: &str, hash: IdHash) -> bool {
        self.matching(id, hash).is_some()
    }

    /// The first part that matches, cheap ones first.
    #[inline]
    pub(super) fn matching(&self, id: &str, hash: IdHash) -> Option<Part<'_>> {
        if let Some(list) = &self.in_list
            && list.ids.contains_hashed(id, hash)
        {
            return Some(Part::In(&list.name));
        }
        if let Some(list) = &self.not_in
            && !list.ids.contains_hashed(id, hash)
        {
            return Some(Part::NotIn(&list.name));
        }
        if let Some(prefix) = self.prefixes.iter().find(|it| id.starts_with(it.as_str())) {
            return Some(Part::Prefix(prefix));
        }
        if let Some(suffix) = self.suffixes.iter().find(|it| id.ends_with(it.as_str())) {
            return Some(Part::Suffix(suffix));
        }
        let patterns = self.patterns.as_ref()?;
        if !patterns.is_match(id) {
            return None;
        }
        // The set says whether one of them matches much faster than which.
        let first = patterns.matches(id).iter().next()?;
        Some(Part::Pattern(patterns.patterns().get(first)?))
    }
}

/// What is wrong with a regular expression, in a few words.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    let regex: Result<Regex, regex::Error> = RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_BYTES)
        .build();
    match regex {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err(format!(
            "it takes more than {MAX_REGEX_BYTES} bytes compiled; [A-Za-z0-9_] is far smaller than \\w, which covers every alphabet"
        )),
        // The message draws the place over several lines; the last one says what it is about.
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            Err(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    }
}

/// Patterns that were checked one by one, as a set. Fails if they are too large together.
pub(super) fn compile_patterns(patterns: &[&str]) -> Result<RegexSet, String> {
    RegexSetBuilder::new(patterns)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_DFA_BYTES)
        .build()
        .map_err(|_| {
            format!(
                "these regular expressions take more than {MAX_REGEX_BYTES} bytes compiled together"
            )
        })
}
