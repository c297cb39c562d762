//! Live lists, exceptions and lists in shadow mode.

use std::time::{Duration, SystemTime};

use importguard_core::{Evaluation, MatchedPart, Mode, Outcome, Verdict};

use crate::{
    lists::live::LiveLists,
    policy::{Policy, Request},
};

fn policy(lists: &str, rules: &str) -> Policy {
    super::policy(&format!("lists: {{ {lists} }}\nrules: [{rules}]"))
}

const REFUSE: &str =
    "{ id: r, refuseOwner: { in: blocked }, refusal: { code: 5001, message: no } }";
const DROP: &str = "{ id: d, dropFriends: { in: blocked } }";

fn evaluate(policy: &Policy, live: &LiveLists, seconds: u64) -> Evaluation {
    policy.with_live(live).evaluate(&Request {
        operation_id: "op",
        owner: "owner",
        friends: &["a", "b", "c"],
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    })
}

fn kept(evaluation: &Evaluation) -> Vec<u32> {
    match &evaluation.verdict {
        Verdict::Allow => vec![0, 1, 2],
        Verdict::Modify(kept) => kept.indexes().to_vec(),
        Verdict::Refuse(_) => Vec::new(),
    }
}

#[test]
fn an_entry_of_a_live_list_counts_until_its_end_by_the_requests_time() {
    let live = LiveLists::of(&[("bad", "a", "#4711", Some(100)), ("bad", "b", "", None)]);
    let policy = policy("blocked: { live: bad }", DROP);
    assert_eq!(kept(&evaluate(&policy, &live, 99)), [2]);
    assert_eq!(kept(&evaluate(&policy, &live, 100)), [0, 2]);
    assert_eq!(kept(&evaluate(&policy, LiveLists::none(), 99)), [0, 1, 2]);
}

#[test]
fn a_hit_says_why_and_until_when_and_the_list_its_revision() {
    let live = LiveLists::of(&[
        ("bad", "owner", "#4711", Some(100)),
        ("other", "x", "", None),
    ]);
    let evaluation = evaluate(&policy("blocked: { live: bad }", REFUSE), &live, 50);
    let [fired] = &evaluation.rules[..] else {
        panic!("{evaluation:?}")
    };
    let MatchedPart::List(hit) = &fired.matched[0].part else {
        panic!("{fired:?}")
    };
    assert_eq!(
        (hit.list.as_str(), hit.reason.as_deref()),
        ("blocked", Some("#4711"))
    );
    assert_eq!(
        hit.until,
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100))
    );
    let [list] = &evaluation.lists[..] else {
        panic!("{evaluation:?}")
    };
    // The revision of this list, not of the bucket.
    assert_eq!((list.revision, list.size), (Some(1), 1));
}

#[test]
fn a_list_can_be_inline_and_live() {
    let live = LiveLists::of(&[("bad", "b", "", None)]);
    let both = policy("blocked: { values: [a], live: bad }", DROP);
    assert_eq!(kept(&evaluate(&both, &live, 0)), [2]);
    let sized = &evaluate(&both, &live, 0).lists[0];
    assert_eq!(sized.size, 2);
}

#[test]
fn an_expression_sees_the_entries_of_the_evaluation() {
    let rule = "{ id: e, dropFriendIf: 'friend in blocked' }";
    let policy = policy(
        "blocked: { live: bad, unless: trusted }, trusted: { live: good }",
        rule,
    );
    let live = LiveLists::of(&[
        ("bad", "a", "", Some(100)),
        ("bad", "b", "", None),
        ("good", "b", "", None),
    ]);
    assert_eq!(kept(&evaluate(&policy, &live, 99)), [1, 2]);
    assert_eq!(kept(&evaluate(&policy, &live, 100)), [0, 1, 2]);
}

#[test]
fn an_exception_beats_an_entry_wherever_either_is() {
    for lists in [
        "blocked: { values: [a, b], unless: trusted }, trusted: { values: [b] }",
        "trusted: { live: good }, blocked: { live: bad, unless: trusted }",
    ] {
        let live = LiveLists::of(&[
            ("bad", "a", "", None),
            ("bad", "b", "", None),
            ("good", "b", "", None),
        ]);
        assert_eq!(
            kept(&evaluate(&policy(lists, DROP), &live, 0)),
            [1, 2],
            "{lists}"
        );
        // An exception is not in the list.
        let not_in = "{ id: d, dropFriends: { notIn: blocked } }";
        assert_eq!(
            kept(&evaluate(&policy(lists, not_in), &live, 0)),
            [0],
            "{lists}"
        );
    }
}

#[test]
fn a_list_in_shadow_is_reported_and_changes_nothing() {
    let live = LiveLists::of(&[("bad", "b", "maybe", None), ("bad", "owner", "maybe", None)]);
    let lists = "blocked: { live: bad, mode: shadow }";
    let evaluation = evaluate(&policy(lists, &format!("{REFUSE}, {DROP}")), &live, 0);
    assert_eq!(evaluation.verdict, Verdict::Allow);
    let fired: Vec<_> = evaluation
        .rules
        .iter()
        .map(|rule| (rule.id.as_str(), rule.mode, rule.outcome))
        .collect();
    assert_eq!(
        fired,
        [
            ("r", Mode::Shadow, Outcome::Refuse),
            ("d", Mode::Shadow, Outcome::Remove)
        ]
    );
    let part = &evaluation.rules[1].matched[0];
    assert!(matches!(&part.part, MatchedPart::List(hit) if hit.reason.as_deref() == Some("maybe")));
    assert_eq!(part.friends, [1]);
    // It does not hold up an enforced part of the same rule.
    let rule = "{ id: d, dropFriends: { in: blocked, prefixes: [c] } }";
    let evaluation = evaluate(&policy(lists, rule), &live, 0);
    assert_eq!(kept(&evaluation), [0, 1]);
    let modes: Vec<_> = evaluation.rules.iter().map(|rule| rule.mode).collect();
    assert_eq!(modes, [Mode::Shadow, Mode::Enforce]);
    // `notIn` with a list in shadow mode drops nobody.
    let rule = "{ id: d, dropFriends: { notIn: blocked } }";
    assert_eq!(kept(&evaluate(&policy(lists, rule), &live, 0)), [0, 1, 2]);
    // A rule in shadow mode reports it only once.
    let rule = "{ id: d, mode: shadow, dropFriends: { in: blocked } }";
    assert_eq!(evaluate(&policy(lists, rule), &live, 0).rules.len(), 1);
}

#[test]
fn an_explanation_says_what_lists_in_shadow_would_do() {
    let live = LiveLists::of(&[
        ("watch", "owner", "seen", Some(100)),
        ("watch", "b", "", None),
    ]);
    let lists = "blocked: { live: watch, mode: shadow }";
    for (rules, expected) in [
        (
            REFUSE,
            "no match; by lists in shadow, would refuse: the owner is in blocked: seen, until 1970-01-01T00:01:40Z",
        ),
        (
            DROP,
            "no match; by lists in shadow, would remove 1: \"b\" is in blocked",
        ),
        (
            "{ id: d, dropFriends: { in: blocked, prefixes: [c] } }",
            "removed 1: \"c\" starts with \"c\"; by lists in shadow, would remove 1: \"b\" is in blocked",
        ),
        (
            "{ id: d, dropFriends: { in: blocked, prefixes: [b] } }",
            "removed 1: \"b\" starts with \"b\"",
        ),
    ] {
        let policy = policy(lists, rules);
        let friends = ["a", "b", "c"];
        let explanation = policy.with_live(&live).explain(
            &Request {
                operation_id: "op",
                owner: "owner",
                friends: &friends,
                now: SystemTime::UNIX_EPOCH,
            },
            None,
        );
        assert_eq!(
            explanation.steps.last().unwrap().describe(&friends),
            expected
        );
    }
}
