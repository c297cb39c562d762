//! Matching of user IDs.

use std::{mem, ptr};

use super::patterns::Patterns;
use crate::lists::{Hit, IdHash, Ids, View};

/// A list of the policy.
#[derive(Debug)]
pub struct NamedIds {
    pub(super) name: String,
    pub(super) ids: Ids,
}

/// Matches the IDs that match any of its parts.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) in_list: Option<NamedIds>,
    pub(super) not_in: Option<NamedIds>,
    pub(super) prefixes: Vec<String>,
    pub(super) suffixes: Vec<String>,
    pub(super) patterns: Option<Patterns>,
    /// Matches IDs that fit none of these; has no effect if empty.
    pub(super) not_prefixes: Vec<String>,
    /// Matches IDs that fit none of these; has no effect if empty.
    pub(super) not_suffixes: Vec<String>,
    pub(super) not_patterns: Option<Patterns>,
}

/// A part of a rule that can make it act.
#[derive(Clone, Copy, Debug)]
pub enum Part<'p> {
    /// The ID is in this list.
    In(&'p NamedIds),
    /// The ID is not in this list.
    NotIn(&'p NamedIds),
    /// The ID starts with this.
    Prefix(&'p str),
    /// The ID ends with this.
    Suffix(&'p str),
    /// The ID matches this regular expression.
    Pattern(&'p str),
    /// The ID starts with none of these.
    NoPrefix(&'p [String]),
    /// The ID ends with none of these.
    NoSuffix(&'p [String]),
    /// The ID matches none of these regular expressions.
    NoPattern(&'p [String]),
    /// More friends remain than the limit.
    Limit {
        /// The limit.
        max: usize,
        /// How many remain.
        left: usize,
    },
    /// This expression is true.
    Expression(&'p str),
}

impl Part<'_> {
    /// Whether both are the same part of the same rule.
    pub(super) fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Prefix(one), Self::Prefix(other))
            | (Self::Suffix(one), Self::Suffix(other))
            | (Self::Pattern(one), Self::Pattern(other)) => ptr::eq(one, other),
            // A rule has at most one of each.
            (one, other) => mem::discriminant(&one) == mem::discriminant(&other),
        }
    }

    /// The details of the entry by which the list has an ID.
    pub(super) fn hit(self, id: &str, view: View<'_>) -> Hit {
        match self {
            Self::In(list) => list.ids.hit(id, view),
            _ => Hit::default(),
        }
    }
}

impl Matcher {
    /// Whether it refers to `list`.
    pub(super) fn uses(&self, list: &str) -> bool {
        let mut named = self.in_list.iter().chain(&self.not_in);
        named.any(|it| it.name == list)
    }

    /// Whether it has keys for IDs that fit and for IDs that do not. Nearly every ID matches one of the latter.
    pub(super) fn is_mixed(&self) -> bool {
        let fits = self.in_list.is_some()
            || !self.prefixes.is_empty()
            || !self.suffixes.is_empty()
            || self.patterns.is_some();
        let fits_not = self.not_in.is_some()
            || !self.not_prefixes.is_empty()
            || !self.not_suffixes.is_empty()
            || self.not_patterns.is_some();
        fits && fits_not
    }

    /// The first part that the ID matches, cheap ones first.
    #[inline]
    pub(super) fn matching(&self, id: &str, hash: IdHash, view: View<'_>) -> Option<Part<'_>> {
        self.in_lists(id, hash, view, false)
            .or_else(|| self.other_part(id))
    }

    /// The first part that matches. Lists in shadow mode count only if `shadow` is true, which it is for a rule in shadow mode.
    #[inline]
    pub(super) fn matching_as(
        &self,
        shadow: bool,
        id: &str,
        hash: IdHash,
        view: View<'_>,
    ) -> Option<Part<'_>> {
        let part = self.matching(id, hash, view);
        match shadow {
            true => part.or_else(|| self.in_lists(id, hash, view, true)),
            false => part,
        }
    }

    /// The list in shadow mode that matches the ID, if no part outside shadow mode matches it.
    pub(super) fn only_in_shadow(
        &self,
        id: &str,
        hash: IdHash,
        view: View<'_>,
    ) -> Option<Part<'_>> {
        let part = self.in_lists(id, hash, view, true)?;
        self.matching(id, hash, view).is_none().then_some(part)
    }

    /// Whether any of its lists is in shadow mode.
    pub(super) fn has_shadow(&self) -> bool {
        let lists = [&self.in_list, &self.not_in].into_iter().flatten();
        lists.into_iter().any(|list| list.ids.is_shadow())
    }

    /// The first list that matches, among those in shadow mode or among the others.
    #[inline]
    pub(super) fn in_lists(
        &self,
        id: &str,
        hash: IdHash,
        view: View<'_>,
        shadow: bool,
    ) -> Option<Part<'_>> {
        if let Some(list) = &self.in_list
            && list.ids.is_shadow() == shadow
            && list.ids.contains_hashed(id, hash, view)
        {
            return Some(Part::In(list));
        }
        if let Some(list) = &self.not_in
            && list.ids.is_shadow() == shadow
            && !list.ids.contains_hashed(id, hash, view)
        {
            return Some(Part::NotIn(list));
        }
        None
    }

    /// The first part that matches, except lists.
    #[inline]
    fn other_part(&self, id: &str) -> Option<Part<'_>> {
        if let Some(prefix) = self.prefixes.iter().find(|it| id.starts_with(it.as_str())) {
            return Some(Part::Prefix(prefix));
        }
        if let Some(suffix) = self.suffixes.iter().find(|it| id.ends_with(it.as_str())) {
            return Some(Part::Suffix(suffix));
        }
        if let Some(part) = self.no_affix(id) {
            return Some(part);
        }
        if let Some(pattern) = self.patterns.as_ref().and_then(|it| it.first_match(id)) {
            return Some(Part::Pattern(pattern));
        }
        let patterns = self.not_patterns.as_ref()?;
        (!patterns.is_match(id)).then(|| Part::NoPattern(patterns.sources()))
    }

    fn no_affix(&self, id: &str) -> Option<Part<'_>> {
        let (prefixes, suffixes) = (&self.not_prefixes, &self.not_suffixes);
        if !prefixes.is_empty() && !prefixes.iter().any(|it| id.starts_with(it.as_str())) {
            return Some(Part::NoPrefix(prefixes));
        }
        if !suffixes.is_empty() && !suffixes.iter().any(|it| id.ends_with(it.as_str())) {
            return Some(Part::NoSuffix(suffixes));
        }
        None
    }
}
