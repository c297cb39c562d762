//! The regular expressions of a rule.

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Look, literal::Extractor};

/// The maximum compiled size of one regular expression, and of all of a rule together. The crate's default is ten times as
/// much for each; one of this size compiles in about 10 ms.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// The maximum memory per thread for the part of the automaton that is built while matching.
const MAX_DFA_BYTES: usize = 2 << 20;

/// Regular expressions that are matched together.
#[derive(Debug)]
pub(super) struct Patterns {
    set: RegexSet,
    /// The bytes with which a match can begin, if all patterns have to match at the start. Of IDs, few begin with the `t` of
    /// `^tmp[_-]`, say, and to enter the automaton costs a hundred instructions.
    first_bytes: Option<Box<[bool; 256]>>,
}

impl Patterns {
    /// Compiles patterns that are valid on their own. Fails if they are too large together.
    pub(super) fn compile(patterns: &[&str]) -> Result<Self, String> {
        let set = RegexSetBuilder::new(patterns)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_DFA_BYTES)
            .build()
            .map_err(|_| {
                format!(
                    "these regular expressions take more than {MAX_REGEX_BYTES} bytes compiled together"
                )
            })?;
        let first_bytes: Option<Vec<_>> = patterns.iter().map(|it| first_bytes(it)).collect();
        let table = |bytes: Vec<Vec<u8>>| {
            let mut table = Box::new([false; 256]);
            for byte in bytes.concat() {
                table[usize::from(byte)] = true;
            }
            table
        };
        Ok(Self {
            set,
            first_bytes: first_bytes.map(table),
        })
    }

    /// Whether any of them matches.
    #[inline]
    pub(super) fn is_match(&self, id: &str) -> bool {
        let may_match = match (&self.first_bytes, id.as_bytes().first()) {
            (Some(table), Some(byte)) => table[usize::from(*byte)],
            _ => true,
        };
        may_match && self.set.is_match(id)
    }

    /// The first one that matches.
    #[inline]
    pub(super) fn first_match(&self, id: &str) -> Option<&str> {
        // Whether any matches is much faster to find than which.
        if !self.is_match(id) {
            return None;
        }
        let first = self.set.matches(id).iter().next()?;
        self.sources().get(first).map(String::as_str)
    }

    /// As they are written in the policy.
    pub(super) fn sources(&self) -> &[String] {
        self.set.patterns()
    }
}

/// Checks a regular expression; the error is a short explanation.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    compile_pattern(pattern, MAX_REGEX_BYTES, MAX_DFA_BYTES).map(drop)
}

/// Compiles a regular expression of at most `size` bytes, and `dfa` bytes per thread while matching; the error is a short
/// explanation.
pub(super) fn compile_pattern(pattern: &str, size: usize, dfa: usize) -> Result<Regex, String> {
    let regex: Result<Regex, regex::Error> = RegexBuilder::new(pattern)
        .size_limit(size)
        .dfa_size_limit(dfa)
        .build();
    match regex {
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(_)) => Err(format!(
            "it takes more than {size} bytes compiled; [A-Za-z0-9_] is far smaller than \\w, which covers every alphabet"
        )),
        // The message shows the position over several lines; the last line has the reason.
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            Err(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    }
}

/// The bytes with which a match of `pattern` can begin; `None` if it may match elsewhere than at the start, if it may match
/// nothing, or if there are too many.
fn first_bytes(pattern: &str) -> Option<Vec<u8>> {
    let hir = regex_syntax::parse(pattern).ok()?;
    if !hir.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let literals = Extractor::new().extract(&hir);
    let literals = literals.literals()?.iter();
    literals
        .map(|literal| literal.as_bytes().first().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_bytes_of(patterns: &[&str]) -> Option<String> {
        let table = Patterns::compile(patterns).unwrap().first_bytes?;
        let bytes = (0..=u8::MAX).filter(|byte| table[usize::from(*byte)]);
        Some(bytes.map(char::from).collect())
    }

    #[test]
    fn an_anchored_pattern_begins_with_the_first_bytes_of_its_literals() {
        for (patterns, expected) in [
            (&["^tmp[_-]"][..], "t"),
            (&["^bot_", "^(test|qa)_\\d+$"], "bqt"),
            (&["^(?i)robot"], "Rr"),
            (&["^a+b", "\\Ac?d"], "acd"),
        ] {
            let bytes = first_bytes_of(patterns);
            assert_eq!(bytes.as_deref(), Some(expected), "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_that_may_begin_elsewhere_or_with_anything_has_none() {
        for patterns in [
            &["tmp[_-]"][..],
            &["^tmp", "bot$"],
            &["^(a|)"],
            &["(?m)^tmp"],
            &["^tmp|bot"],
            &["^.*bot"],
            &["^\\w"],
        ] {
            assert_eq!(first_bytes_of(patterns), None, "{patterns:?}");
        }
    }

    proptest! {
        #[test]
        fn first_bytes_change_no_result(
            pattern in r"\^?(\(\?i\))?(a|b|\[ab\]|\(a\|bc\)|a\?|b\*|\.|\\b){1,5}\$?",
            id in "[abcA-C_]{0,6}",
        ) {
            let patterns = Patterns::compile(&[&pattern]).unwrap();
            prop_assert_eq!(patterns.is_match(&id), patterns.set.is_match(&id));
        }
    }
}
