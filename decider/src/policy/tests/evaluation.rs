use importguard_core::{Evaluation, Verdict};

use super::policy;
use crate::policy::{Policy, Request};

/// A decision as one line: `allow`, `modify [a b]` or `refuse 5001 rule`, then what fired, then which rule removed which friends.
pub(super) fn decide(policy: &Policy, owner: &str, friends: &[&str]) -> String {
    let decision = policy.evaluate(&Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner,
        friends,
    });
    format!(
        "{} | {}",
        verdict(&decision, friends),
        trail(&decision, friends)
    )
}

fn verdict(decision: &Evaluation, friends: &[&str]) -> String {
    match &decision.verdict {
        Verdict::Allow => "allow".to_owned(),
        Verdict::Modify(kept) => format!("modify {}", names(kept.indexes(), friends)),
        Verdict::Refuse(refusal) => {
            let rule = refusal.rule.as_deref().unwrap_or_default();
            format!("refuse {} {rule}", refusal.code)
        }
    }
}

fn trail(decision: &Evaluation, friends: &[&str]) -> String {
    let fired = decision
        .rules
        .iter()
        .map(|fired| format!("{} {:?}", fired.id, fired.outcome));
    let removed = decision
        .removed
        .iter()
        .map(|removal| format!("{}{}", removal.rule, names(&removal.friends, friends)));
    fired.chain(removed).collect::<Vec<_>>().join(", ")
}

fn names(indexes: &[u32], friends: &[&str]) -> String {
    let names: Vec<_> = indexes
        .iter()
        .map(|&index| format!("{}@{index}", friends[index as usize]))
        .collect();
    format!("[{}]", names.join(" "))
}

const LISTS: &str = "lists: { blocked: { file: blocked.txt }, known: { file: known.txt }, vip: { values: [boss] } }\n";

pub(super) fn with_lists(rules: &str) -> Policy {
    policy(&format!("{LISTS}rules:\n{rules}"))
}

#[test]
fn allows_when_no_rule_fires() {
    let policy = with_lists("- { id: bots, dropFriends: { in: blocked } }");
    assert_eq!(decide(&policy, "me", &["a", "b"]), "allow | ");
}

#[test]
fn allows_an_empty_request() {
    let policy = with_lists("- { id: bots, dropFriends: { in: blocked } }");
    assert_eq!(decide(&policy, "me", &[]), "allow | ");
}

#[test]
fn refuses_an_owner_even_with_an_empty_request() {
    let policy = with_lists(
        "- { id: owners, refuseOwner: { in: blocked }, refusal: { code: 5001, message: no } }",
    );
    assert_eq!(
        decide(&policy, "bad1", &[]),
        "refuse 5001 owners | owners Refuse"
    );
    assert_eq!(decide(&policy, "good", &[]), "allow | ");
}

#[test]
fn says_the_refusal_as_it_stands_in_the_policy() {
    let policy = with_lists(
        "- { id: o, refuseOwner: { in: blocked }, refusal: { code: 5001, message: No., detail: Because. } }",
    );
    let decision = policy.evaluate(&Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner: "bad2",
        friends: &["a"],
    });
    let Verdict::Refuse(refusal) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (refusal.message.as_str(), refusal.detail.as_str()),
        ("No.", "Because.")
    );
}

#[test]
fn refuses_an_owner_by_any_key_of_the_matcher() {
    let policy = with_lists(
        "- { id: o, refuseOwner: { in: blocked, notIn: known, prefixes: [d, tmp] }, refusal: { code: 5001, message: no } }",
    );
    for (owner, refused) in [
        ("bad1", true),
        ("x", true),
        ("a", false),
        ("d", true),
        ("tmp7", true),
        ("e", false),
    ] {
        assert_eq!(
            decide(&policy, owner, &["b"]).starts_with("refuse"),
            refused,
            "{owner}"
        );
    }
}

#[test]
fn drops_friends_by_any_key_of_the_matcher() {
    let policy = with_lists("- { id: f, dropFriends: { in: blocked, prefixes: [bot_, x] } }");
    assert_eq!(
        decide(&policy, "me", &["a", "bad1", "bot_1", "b", "xy", "abot_"]),
        "modify [a@0 b@3 abot_@5] | f Remove, f[bad1@1 bot_1@2 xy@4]"
    );
    let policy = with_lists("- { id: f, dropFriends: { notIn: known } }");
    assert_eq!(
        decide(&policy, "me", &["a", "z", "b"]),
        "modify [a@0 b@2] | f Remove, f[z@1]"
    );
}

#[test]
fn a_prefix_matches_the_whole_id_and_a_list_no_part_of_it() {
    let policy = with_lists("- { id: f, dropFriends: { in: blocked, prefixes: [bot] } }");
    assert_eq!(
        decide(&policy, "me", &["bot", "bad", "bad11", "BAD1"]),
        "modify [bad@1 bad11@2 BAD1@3] | f Remove, f[bot@0]"
    );
}

#[test]
fn drops_the_owner_and_repetitions_first_and_keeps_the_first_of_them() {
    let policy = with_lists("- { id: f, dropFriends: { in: known } }");
    assert_eq!(
        decide(&policy, "me", &["x", "me", "a", "x", "me", "a", "y"]),
        "modify [x@0 y@6] | self Remove, duplicate Remove, f Remove, self[me@1 me@4], duplicate[x@3 a@5], f[a@2]"
    );
}

#[test]
fn truncates_to_the_first_friends_that_are_left() {
    let policy = with_lists(
        "- { id: f, dropFriends: { in: blocked } }\n- { id: l, limitFriends: { max: 2, onExceed: truncate } }",
    );
    assert_eq!(
        decide(&policy, "me", &["bad1", "a", "b", "bad2", "c", "d"]),
        "modify [a@1 b@2] | f Remove, l Remove, f[bad1@0 bad2@3], l[c@4 d@5]"
    );
    assert_eq!(
        decide(&policy, "me", &["a", "bad1", "b"]),
        "modify [a@0 b@2] | f Remove, f[bad1@1]"
    );
    assert_eq!(
        decide(&policy, "me", &["a", "b", "c"]),
        "modify [a@0 b@1] | l Remove, l[c@2]"
    );
}

#[test]
fn refuses_too_many_friends_by_what_is_left_at_that_point() {
    let refuse = "- { id: l, limitFriends: { max: 2, onExceed: refuse }, refusal: { code: 5100, message: many } }\n";
    let drop = "- { id: f, dropFriends: { in: blocked } }\n";
    let friends = ["a", "bad1", "b"];
    let drop_first = with_lists(&format!("{drop}{refuse}"));
    assert_eq!(
        decide(&drop_first, "me", &friends),
        "modify [a@0 b@2] | f Remove, f[bad1@1]"
    );
    let limit_first = with_lists(&format!("{refuse}{drop}"));
    assert_eq!(
        decide(&limit_first, "me", &friends),
        "refuse 5100 l | l Refuse"
    );
}

#[test]
fn a_refusal_ends_the_evaluation_and_keeps_earlier_effects() {
    let policy = with_lists(
        "- { id: f, dropFriends: { in: blocked } }
- { id: first, refuseOwner: { prefixes: [m] }, refusal: { code: 5001, message: no } }
- { id: second, refuseOwner: { prefixes: [m] }, refusal: { code: 5003, message: no } }
- { id: g, dropFriends: { in: known } }",
    );
    assert_eq!(
        decide(&policy, "me", &["a", "bad1"]),
        "refuse 5001 first | f Remove, first Refuse, f[bad1@1]"
    );
}

#[test]
fn refuses_when_no_friend_is_left() {
    let policy = policy(&format!(
        "{LISTS}rules: [{{ id: f, dropFriends: {{ in: blocked }} }}]\nnobodyLeft: {{ code: 5077, message: nobody }}"
    ));
    assert_eq!(
        decide(&policy, "me", &["bad1", "bad2"]),
        "refuse 5077 nobodyLeft | f Remove, nobodyLeft Refuse, f[bad1@0 bad2@1]"
    );
    assert_eq!(
        decide(&policy, "me", &["me"]),
        "refuse 5077 nobodyLeft | self Remove, nobodyLeft Refuse, self[me@0]"
    );
}

#[test]
fn nobody_left_is_5002_where_the_policy_does_not_say() {
    let policy = policy("rules: []");
    let decision = policy.evaluate(&Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner: "me",
        friends: &["me"],
    });
    let Verdict::Refuse(refusal) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (
            refusal.code,
            refusal.message.as_str(),
            refusal.detail.as_str()
        ),
        (5002, "No importable friends", "")
    );
}

#[test]
fn a_later_rule_still_refuses_when_no_friend_is_left() {
    let policy = with_lists(
        "- { id: f, dropFriends: { in: known } }\n- { id: o, refuseOwner: { prefixes: [m] }, refusal: { code: 5001, message: no } }",
    );
    assert_eq!(
        decide(&policy, "me", &["a"]),
        "refuse 5001 o | f Remove, o Refuse, f[a@0]"
    );
}

#[test]
fn decides_on_ten_thousand_friends_as_on_few() {
    let policy = with_lists(
        "- { id: f, dropFriends: { prefixes: [u9] } }\n- { id: l, limitFriends: { max: 5000, onExceed: truncate } }",
    );
    let friends: Vec<String> = (0..10_000).map(|n| format!("u{}", n % 9_950)).collect();
    let decision = policy.evaluate(&Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner: "u17",
        friends: &friends,
    });
    let Verdict::Modify(kept) = &decision.verdict else {
        panic!("{decision:?}")
    };
    let expected: Vec<u32> = (0..9_950)
        .filter(|n| *n != 17 && !format!("u{n}").starts_with("u9"))
        .take(5000)
        .collect();
    assert_eq!(kept.indexes(), expected);
    let removed: usize = decision
        .removed
        .iter()
        .map(|removal| removal.friends.len())
        .sum();
    assert_eq!(removed + kept.indexes().len(), 10_000);
}

#[test]
fn has_its_name_digest_and_list_revisions() {
    let policy = with_lists("- { id: f, dropFriends: { in: blocked } }");
    assert_eq!(policy.name(), "test");
    assert!(policy.digest().starts_with("sha256:"));
    let lists: Vec<_> = policy
        .lists()
        .map(|list| (list.name.as_str(), list.size))
        .collect();
    assert_eq!(lists, [("blocked", 2), ("known", 5), ("vip", 1)]);
}
