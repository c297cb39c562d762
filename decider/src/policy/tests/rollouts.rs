//! For which owners a rule is enforced, and what it does for the others.

use importguard_core::Mode;

use super::evaluation::{decide, with_lists};
use crate::{
    lists::live::LiveLists,
    policy::{Explanation, Policy, Request, rule::bucket},
};

const REFUSAL: &str = "refusal: { code: 5104, message: no }";

#[test]
fn a_rule_is_enforced_inside_its_rollout_and_watched_outside() {
    let rule = |more: &str| {
        with_lists(&format!(
            "- {{ id: r, dropFriends: {{ in: blocked }}{more} }}\n- {{ id: after, limitFriends: {{ max: 1, onExceed: truncate }}, mode: shadow }}"
        ))
    };
    let split = rule(", rollout: { percent: 50, otherwise: shadow }");
    let (enforced, watched) = (rule(""), rule(", mode: shadow"));
    let mut counts = [0, 0];
    for owner in (0..40).map(|n| format!("u{n}")) {
        let is_inside = bucket("r", &owner) < 50;
        counts[usize::from(is_inside)] += 1;
        let same = match is_inside {
            true => &enforced,
            false => &watched,
        };
        let friends = ["a", "bad1", "b"];
        let modes = |policy: &Policy| {
            let evaluation = policy.evaluate(&Request {
                operation_id: "op-1",
                now: std::time::SystemTime::UNIX_EPOCH,
                owner: &owner,
                friends: &friends,
            });
            let modes = evaluation.rules.iter().map(|rule| rule.mode);
            modes.collect::<Vec<_>>()
        };
        assert_eq!(
            decide(&split, &owner, &friends),
            decide(same, &owner, &friends),
            "{owner}"
        );
        assert_eq!(modes(&split), modes(same), "{owner}");
    }
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
}

#[test]
fn an_explanation_names_the_rollout_of_a_rule_that_is_watched() {
    let policy = with_lists(
        "- { id: r, dropFriends: { in: blocked }, rollout: { percent: 0, otherwise: shadow } }",
    );
    let request = Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner: "me",
        friends: &["a", "bad1"],
    };
    let describe = |explanation: Explanation<'_>| {
        let step = explanation.steps.last().unwrap();
        (step.mode, step.describe(request.friends))
    };
    let bucket = bucket("r", "me");
    assert_eq!(
        describe(policy.explain(&request)),
        (
            Some(Mode::Shadow),
            format!(
                "owner outside the rollout: bucket {bucket}, rollout 0: would remove 1: \"bad1\" is in blocked"
            )
        )
    );
    assert_eq!(
        describe(
            policy
                .with_live(LiveLists::none())
                .explain(&request, Some(100))
        ),
        (
            Some(Mode::Enforce),
            "removed 1: \"bad1\" is in blocked".to_owned()
        )
    );
}

#[test]
fn a_rollout_holds_for_the_same_owners_always() {
    let with = |per_cent: u8| {
        with_lists(&format!(
            "- {{ id: all, refuseOwner: {{ prefixes: [u] }}, rollout: {per_cent}, {REFUSAL} }}"
        ))
    };
    let refused = |policy: &Policy| -> Vec<bool> {
        (0..1000)
            .map(|n| decide(policy, &format!("u{n}"), &[]).starts_with("refuse"))
            .collect()
    };
    assert_eq!(refused(&with(25)), refused(&with(25)));
    assert!(!refused(&with(0)).contains(&true));
    assert!(!refused(&with(100)).contains(&false));
    let count = refused(&with(25))
        .iter()
        .filter(|&&refused| refused)
        .count();
    assert!((200..300).contains(&count), "{count} of 1000");
}
