//! The regular expressions of a rule.

mod automaton;

use regex::{RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Look, literal::Extractor};

use super::diagnostic::quoted;

/// The maximum length of a regular expression, in bytes; longer ones belong in a list.
const MAX_PATTERN_BYTES: usize = 256;
/// The maximum compiled size of one regular expression, and of all of a rule together, in bytes. The crate's default is ten times as much
/// for each; one of this size compiles in about 10 ms.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// The maximum memory per thread for the part of the automaton that is built while matching, in bytes.
const MAX_DFA_BYTES: usize = 2 << 20;

/// Regular expressions that are matched together.
#[derive(Debug)]
pub(super) struct Patterns {
    set: RegexSet,
    /// The bytes with which a match can begin, if all patterns are anchored at the start. Few IDs begin with the `t` of `^tmp[_-]`, for
    /// example, and entering the automaton costs a hundred instructions.
    first_bytes: Option<Box<[bool; 256]>>,
    /// How many states matching may simulate for each byte; 0 if the automaton fits into its cache.
    states: u64,
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
            states: automaton::simulated_states(patterns, MAX_DFA_BYTES),
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
        // It is much faster to find out whether any matches than which one does.
        if !self.is_match(id) {
            return None;
        }
        let first = self.set.matches(id).iter().next()?;
        self.sources().get(first).map(String::as_str)
    }

    /// How many states matching may simulate for each byte; 0 if its time does not depend on that.
    pub(super) fn simulated_states(&self) -> u64 {
        self.states
    }

    /// Which regular expressions may outgrow their cache, for a message; `None` if they do not.
    pub(super) fn slow(&self) -> Option<String> {
        if self.states == 0 {
            return None;
        }
        let alone = |it: &&String| automaton::simulated_states(&[it], MAX_DFA_BYTES) > 0;
        let slow = self.sources().iter().find(alone);
        let together = || "the regular expressions of a rule together".to_owned();
        Some(slow.map_or_else(together, |it| named(it)))
    }

    /// The regular expressions as written in the policy.
    pub(super) fn sources(&self) -> &[String] {
        self.set.patterns()
    }
}

/// Checks a regular expression; the error is a short explanation.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    compile_pattern(pattern, MAX_REGEX_BYTES, MAX_DFA_BYTES).map(drop)
}

/// Compiles a regular expression that takes at most `size` bytes compiled, and `dfa` bytes per thread while matching; the error is a short
/// explanation.
///
/// It is a set of one: for a `Regex`, the crate may also search backward from literals, with an automaton of its own, and simulate although all
/// fits.
pub(super) fn compile_pattern(pattern: &str, size: usize, dfa: usize) -> Result<RegexSet, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "it has {} bytes; the maximum is {MAX_PATTERN_BYTES}",
            pattern.len()
        ));
    }
    let regex: Result<RegexSet, regex::Error> = RegexSetBuilder::new([pattern])
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

/// A regular expression in a message.
pub(super) fn named(pattern: &str) -> String {
    format!("the regular expression {}", quoted(pattern))
}

/// How many states matching with the result of [`compile_pattern`] may simulate for each byte; 0 if its time does not depend on that.
pub(super) fn simulated_states(pattern: &str, dfa: usize) -> u64 {
    automaton::simulated_states(&[pattern], dfa)
}

/// The bytes with which a match of `pattern` can begin; `None` if it may match elsewhere than at the start, if it may match the empty
/// string, or if there are too many.
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
