//! What matching regular expressions costs for the worst IDs.
//!
//! The regex crate builds an automaton while it matches, and keeps it in a cache. If the automaton outgrows its cache, or cannot decide (`\b`
//! beside a character outside ASCII), the crate simulates every state that a match may be in, for each byte. The caller chooses the IDs, and
//! so which parts are built: matching is always fast only if the whole automaton fits.

use std::collections::HashSet;

use regex_automata::{
    Anchored, MatchKind,
    hybrid::{LazyStateID, dfa},
    nfa::thompson::{self, NFA, State, WhichCaptures},
    util::{primitives::StateID, start},
};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, Hir, HirKind, Look, Repetition,
};

/// The maximum work to find out whether an automaton fits, in transitions times states of the simulation. The largest automata that fit take
/// 50 ms.
const MAX_WORK: usize = 800_000_000;
/// The maximum number of sets of states that are tried to find the largest one.
const MAX_SETS: usize = 1_000;
/// Stands for all characters outside ASCII.
const OTHER: u8 = 0x80;
/// The bytes before a match that can make a difference: none, one of a word, another one, and the ends of lines.
const BEFORE: [Option<u8>; 5] = [None, Some(b'a'), Some(b' '), Some(b'\n'), Some(b'\r')];

/// The maximum number of states that matching simulates for each byte; 0 if the automaton always fits into `cache` bytes.
pub(super) fn simulated_states(patterns: &[&str], cache: usize) -> u64 {
    // The caller has compiled them before.
    let Some(parsed) = patterns
        .iter()
        .map(|it| regex_syntax::parse(it).ok())
        .collect::<Option<Vec<Hir>>>()
    else {
        return 0;
    };
    let all_have = |look: fn(&Hir) -> bool| parsed.iter().all(look);
    let start = all_have(|it| it.properties().look_set_prefix().contains(Look::Start));
    let end = all_have(|it| it.properties().look_set_suffix().contains(Look::End));
    // The crate searches backward from the end if that is the only place where a match can be, but finds out forward which pattern matched.
    let backward = end && !start;
    if fits(&parsed, cache, false) && (!backward || fits(&parsed, cache, true)) {
        return 0;
    }
    let coarse: Vec<Hir> = parsed.iter().map(coarse).collect();
    // Never 0, which would mean that it fits. What compiled before does so with smaller classes, too.
    compiler(false)
        .build_many_from_hir(&coarse)
        .map_or(u64::MAX, |nfa| largest_set(&nfa).max(1) as u64)
}

fn compiler(reverse: bool) -> thompson::Compiler {
    let mut compiler = thompson::Compiler::new();
    let captures = WhichCaptures::None;
    compiler.configure(NFA::config().reverse(reverse).which_captures(captures));
    compiler
}

/// Whether the whole automaton fits into `cache` bytes, and decides every ID.
fn fits(parsed: &[Hir], cache: usize, reverse: bool) -> bool {
    let Ok(nfa) = compiler(reverse).build_many_from_hir(parsed) else {
        return false;
    };
    let states = nfa.states().len();
    // As in the crate's `RegexSet`, except that it never clears the cache.
    let config = dfa::Config::new()
        .match_kind(MatchKind::All)
        .starts_for_each_pattern(true)
        .unicode_word_boundary(true)
        // An eighth is left for what the crate may do differently.
        .cache_capacity(cache - cache / 8)
        .minimum_cache_clear_count(Some(0));
    let anchored = if reverse { Anchored::Yes } else { Anchored::No };
    dfa::Builder::new()
        .configure(config)
        .build_from_nfa(nfa)
        .ok()
        .and_then(|dfa| explore(&dfa, anchored, MAX_WORK / states.max(1)))
        .is_some()
}

/// Builds the whole automaton. `None` if it does not fit, cannot decide every ID, or has more than about `transitions`.
fn explore(dfa: &dfa::DFA, anchored: Anchored, transitions: usize) -> Option<()> {
    let mut cache = dfa.create_cache();
    let mut found: HashSet<LazyStateID> = HashSet::new();
    let mut rest = Vec::new();
    for before in BEFORE {
        let config = start::Config::new().look_behind(before).anchored(anchored);
        let state = dfa.start_state(&mut cache, &config).ok()?;
        rest.extend(found.insert(state).then_some(state));
    }
    let classes = dfa.byte_classes().representatives(..);
    let bytes: Vec<u8> = classes.filter_map(|unit| unit.as_u8()).collect();
    while let Some(state) = rest.pop() {
        if found.len().saturating_mul(bytes.len()) > transitions {
            return None;
        }
        // The automaton is built one state after the end, where it reports matches.
        dfa.next_eoi_state(&mut cache, state).ok()?;
        for byte in &bytes {
            let next = dfa.next_state(&mut cache, state, *byte).ok()?;
            if next.is_quit() {
                return None;
            }
            rest.extend((!next.is_dead() && found.insert(next)).then_some(next));
        }
    }
    Some(())
}

/// The same expression with one byte in place of each character. It matches whatever the expression does, if [`OTHER`] replaces the
/// characters outside ASCII. A simulation is in at most one state for each character, but the encoding of `\w` has hundreds of them.
fn coarse(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Literal(literal) => {
            let text = String::from_utf8_lossy(&literal.0);
            Hir::concat(text.chars().map(coarse_literal).collect())
        }
        HirKind::Class(Class::Unicode(class)) => Hir::class(coarse_class(class)),
        HirKind::Class(class) => Hir::class(class.clone()),
        HirKind::Repetition(it) => Hir::repetition(Repetition {
            sub: Box::new(coarse(&it.sub)),
            ..*it
        }),
        HirKind::Capture(it) => coarse(&it.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(coarse).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(coarse).collect()),
    }
}

fn coarse_literal(character: char) -> Hir {
    match u8::try_from(character) {
        Ok(byte) if byte.is_ascii() => Hir::literal([byte]),
        _ => Hir::class(Class::Bytes(ClassBytes::new(others(character)))),
    }
}

fn coarse_class(class: &ClassUnicode) -> Class {
    let mut bytes = ClassBytes::empty();
    for range in class.ranges() {
        if range.start().is_ascii() {
            let end = if range.end().is_ascii() {
                range.end() as u8
            } else {
                0x7F
            };
            bytes.push(ClassBytesRange::new(range.start() as u8, end));
        }
        if !range.end().is_ascii() {
            for other in others(range.end()) {
                bytes.push(other);
            }
        }
    }
    Class::Bytes(bytes)
}

/// [`OTHER`], and a byte that depends on the character: equal beginnings of alternatives would be merged, which the crate does not do.
fn others(character: char) -> [ClassBytesRange; 2] {
    let own = OTHER + 1 + (u32::from(character) % 126) as u8;
    [OTHER, own].map(|byte| ClassBytesRange::new(byte, byte))
}

/// The size of the largest set of states that a simulation can be in; all states if there are too many sets.
fn largest_set(nfa: &NFA) -> usize {
    let classes = nfa.byte_classes().representatives(..);
    let bytes: Vec<u8> = classes.filter_map(|unit| unit.as_u8()).collect();
    let first = reachable(nfa, vec![nfa.start_unanchored()]);
    let mut largest = first.len();
    let mut found = HashSet::from([first.clone()]);
    let mut rest = vec![first];
    while let Some(set) = rest.pop() {
        for byte in &bytes {
            let after = set.iter().filter_map(|id| next(nfa.state(*id), *byte));
            let set = reachable(nfa, after.collect());
            largest = largest.max(set.len());
            if found.insert(set.clone()) {
                rest.push(set);
            }
        }
        if found.len() > MAX_SETS {
            return nfa.states().len();
        }
    }
    largest
}

/// The states that are reachable from some without a byte, in order.
fn reachable(nfa: &NFA, mut rest: Vec<StateID>) -> Vec<StateID> {
    let mut found = HashSet::new();
    while let Some(id) = rest.pop() {
        if !found.insert(id) {
            continue;
        }
        match nfa.state(id) {
            State::Union { alternates } => rest.extend(alternates.iter()),
            State::BinaryUnion { alt1, alt2 } => rest.extend([*alt1, *alt2]),
            // Where it applies depends on the ID.
            State::Look { next, .. } | State::Capture { next, .. } => rest.push(*next),
            _ => {}
        }
    }
    let mut found: Vec<StateID> = found.into_iter().collect();
    found.sort_unstable();
    found
}

fn next(state: &State, byte: u8) -> Option<StateID> {
    match state {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(transitions) => transitions.matches_byte(byte),
        State::Dense(transitions) => transitions.matches_byte(byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: usize = 2 << 20;

    fn states(patterns: &[&str]) -> u64 {
        simulated_states(patterns, CACHE)
    }

    #[test]
    fn simple_patterns_need_no_simulation() {
        for pattern in [
            r"^bot_\d+$",
            r"@example\.com$",
            "(?i)spam",
            "^tmp[_-]",
            r"^\w+$",
            r"^.{1,64}$",
            "[a-f0-9]{32}",
            "b.{6}z",
            r"^[a-z0-9]{8}-[a-z0-9]{4}-[a-z0-9]{12}$",
        ] {
            assert_eq!(states(&[pattern]), 0, "{pattern}");
        }
    }

    #[test]
    fn a_repetition_after_a_frequent_start_counts_each_of_its_positions() {
        for (pattern, positions) in [("b.{40}z", 40), ("[0f].{150}z", 150), ("z.*[bf].{60}$", 60)] {
            let states = states(&[pattern]);
            let expected = positions..positions + 10;
            assert!(expected.contains(&states), "{pattern}: {states}");
        }
    }

    #[test]
    fn patterns_that_fit_alone_may_not_fit_together() {
        let patterns = ["b.{8}z", "f.{8}z", "0.{8}z"];
        for pattern in patterns {
            assert_eq!(states(&[pattern]), 0, "{pattern}");
        }
        assert!(states(&patterns) >= 24, "{}", states(&patterns));
    }

    #[test]
    fn an_anchored_pattern_is_in_few_states_at_once() {
        let states = states(&[r"^\w{3,20}$"]);
        assert!((1..=6).contains(&states), "{states}");
    }

    #[test]
    fn a_word_boundary_is_undecided_beside_other_alphabets() {
        assert!((1..=9).contains(&states(&[r"\bspam\b"])));
        assert_eq!(states(&[r"(?-u:\b)spam(?-u:\b)"]), 0);
    }

    #[test]
    fn a_search_from_the_end_counts_as_well() {
        assert_eq!(states(&[r"^[ab]{1,8}z.{20}$"]), 0);
        assert!(states(&["[ab].{16}z[ab]*c$"]) > 0);
    }
}
