//! Expression rules, conditions, shadow mode and failures, and how they are explained.

use std::time::{Duration, SystemTime};

use importguard_core::{Mode, Outcome, Verdict};

use super::evaluation::{decide, with_lists};
use crate::policy::{Happened, Policy, Reason, Request};

const REFUSAL: &str = "refusal: { code: 5104, message: no }";

#[test]
fn drops_friends_by_suffixes_and_regular_expressions() {
    let policy = with_lists(
        "- { id: f, dropFriends: { suffixes: [_bot], matches: ['^tmp[_-]', '[0-9]{4}'] } }",
    );
    assert_eq!(
        decide(
            &policy,
            "me",
            &["a_bot", "bot_a", "tmp-1", "atmp-1", "x2026y", "x202"]
        ),
        "modify [bot_a@1 atmp-1@3 x202@5] | f Remove, f[a_bot@0 tmp-1@2 x2026y@4]"
    );
}

#[test]
fn matches_ids_that_no_prefix_suffix_or_regular_expression_fits() {
    for (matcher, expected) in [
        (
            "notPrefixes: [u_, v_]",
            "modify [u_1@0 v_2x@2] | f Remove, f[x_1@1]",
        ),
        (
            "notSuffixes: ['1']",
            "modify [u_1@0 x_1@1] | f Remove, f[v_2x@2]",
        ),
        (
            "notMatches: ['^u', '[0-9]x$']",
            "modify [u_1@0 v_2x@2] | f Remove, f[x_1@1]",
        ),
        // Matching one of the keys suffices.
        (
            "notPrefixes: [u_, v_], notSuffixes: ['1']",
            "modify [u_1@0] | f Remove, f[x_1@1 v_2x@2]",
        ),
        (
            "prefixes: [u_], notMatches: ['x']",
            "modify [x_1@1 v_2x@2] | f Remove, f[u_1@0]",
        ),
    ] {
        let policy = with_lists(&format!("- {{ id: f, dropFriends: {{ {matcher} }} }}"));
        assert_eq!(
            decide(&policy, "me", &["u_1", "x_1", "v_2x"]),
            expected,
            "{matcher}"
        );
    }
}

#[test]
fn explains_which_prefixes_suffixes_or_regular_expressions_did_not_fit() {
    for (matcher, because) in [
        (
            "notPrefixes: [u_, v_]",
            "removed 1: \"x\" does not start with \"u_\" or \"v_\"",
        ),
        (
            "notSuffixes: [a, b, c, d, e]",
            "removed 1: \"x\" does not end with \"a\" or \"b\" or \"c\" or 2 more",
        ),
        (
            "notMatches: ['^u']",
            "removed 1: \"x\" does not match \"^u\"",
        ),
    ] {
        let policy = with_lists(&format!("- {{ id: f, dropFriends: {{ {matcher} }} }}"));
        let friends = ["x"];
        let explanation = policy.explain(&request("me", &friends));
        assert_eq!(explanation.steps[2].describe(&friends), because);
    }
}

#[test]
fn refuses_by_an_expression_about_the_request() {
    let policy = with_lists(&format!(
        "- {{ id: big, refuseIf: \"friendCount > 2 && !(ownerUserID in vip)\", {REFUSAL} }}"
    ));
    assert_eq!(decide(&policy, "me", &["a", "b"]), "allow | ");
    assert_eq!(
        decide(&policy, "me", &["a", "b", "c"]),
        "refuse 5104 big | big Refuse"
    );
    assert_eq!(decide(&policy, "boss", &["a", "b", "c"]), "allow | ");
}

#[test]
fn an_expression_counts_who_is_left_and_who_was_sent() {
    let policy = with_lists(&format!(
        "- {{ id: f, dropFriends: {{ in: blocked }} }}\n- {{ id: r, refuseIf: \"friendCount == 1 && requestedCount == 4\", {REFUSAL} }}"
    ));
    assert_eq!(
        decide(&policy, "me", &["a", "a", "me", "bad1"]),
        "refuse 5104 r | self Remove, duplicate Remove, f Remove, r Refuse, self[me@2], duplicate[a@1], f[bad1@3]"
    );
}

#[test]
fn drops_friends_by_an_expression() {
    let policy = with_lists(
        "- { id: odd, dropFriendIf: \"friend.startsWith(ownerUserID) || friend in known\", onError: skip }",
    );
    assert_eq!(
        decide(&policy, "me", &["me2", "a", "x"]),
        "modify [x@2] | odd Remove, odd[me2@0 a@1]"
    );
}

#[test]
fn looks_at_a_rule_only_when_its_condition_holds() {
    let policy = with_lists(
        "- { id: f, dropFriends: { in: blocked }, when: \"friendCount > 2\", onError: skip }",
    );
    assert_eq!(decide(&policy, "me", &["bad1", "a"]), "allow | ");
    assert_eq!(
        decide(&policy, "me", &["bad1", "a", "b"]),
        "modify [a@1 b@2] | f Remove, f[bad1@0]"
    );
}

#[test]
fn now_is_when_it_is_asked() {
    let policy = with_lists(&format!(
        "- {{ id: night, refuseIf: \"now.getHours() < 6\", {REFUSAL} }}"
    ));
    let fired = |hour: u64| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600);
        let request = Request {
            operation_id: "op",
            owner: "me",
            friends: &["a"],
            now,
        };
        policy.evaluate(&request).rules.len()
    };
    assert_eq!((fired(5), fired(6), fired(24 + 5)), (1, 0, 1));
}

#[test]
fn a_rule_in_shadow_reports_and_changes_nothing() {
    let policy = with_lists(&format!(
        "- {{ id: owners, refuseOwner: {{ prefixes: [m] }}, mode: shadow, {REFUSAL} }}
- {{ id: drop, dropFriends: {{ in: blocked }}, mode: shadow }}
- {{ id: two, limitFriends: {{ max: 2, onExceed: truncate }}, mode: shadow }}
- {{ id: real, dropFriends: {{ in: vip }} }}"
    ));
    let friends = ["bad1", "a", "boss"];
    assert_eq!(
        decide(&policy, "me", &friends),
        "modify [bad1@0 a@1] | owners Refuse, drop Remove, two Remove, real Remove, real[boss@2]"
    );
    let request = request("me", &friends);
    let modes: Vec<_> = policy
        .evaluate(&request)
        .rules
        .iter()
        .map(|fired| fired.mode)
        .collect();
    assert_eq!(
        modes,
        [Mode::Shadow, Mode::Shadow, Mode::Shadow, Mode::Enforce]
    );
}

#[test]
fn a_rule_that_is_off_is_not_evaluated() {
    let policy = with_lists("- { id: drop, dropFriends: { in: blocked }, mode: off }");
    assert_eq!(decide(&policy, "me", &["bad1"]), "allow | ");
}

#[test]
fn an_expression_that_fails_refuses_or_is_skipped_as_the_rule_says() {
    let failing = "10 / (friendCount - 1) > 100";
    let friends = ["a"];
    for (rule, skipped) in [
        (
            format!("refuseIf: \"{failing}\", {REFUSAL}"),
            "allow | r Error",
        ),
        (
            format!("dropFriends: {{ prefixes: [a] }}, when: \"{failing}\""),
            "allow | r Error",
        ),
        (
            "dropFriendIf: \"int(friend) > 1\"".to_owned(),
            "allow | r Error",
        ),
    ] {
        let skip = with_lists(&format!("- {{ id: r, {rule}, onError: skip }}"));
        assert_eq!(decide(&skip, "me", &friends), skipped, "{rule}");
        let refusal = if rule.contains("refusal") {
            ""
        } else {
            ", refusal: { code: 5104, message: no }"
        };
        for on_error in ["", ", onError: refuse"] {
            let refuse = with_lists(&format!("- {{ id: r, {rule}{on_error}{refusal} }}"));
            assert_eq!(
                decide(&refuse, "me", &friends),
                "refuse 5104 r | r Error",
                "{rule}"
            );
        }
    }
}

#[test]
fn a_friend_for_which_an_expression_fails_stays_without_saving_others() {
    let policy = with_lists("- { id: r, dropFriendIf: \"int(friend) > 1\", onError: skip }");
    assert_eq!(
        decide(&policy, "me", &["5", "x", "0"]),
        "modify [x@1 0@2] | r Error, r Remove, r[5@0]"
    );
}

#[test]
fn a_failing_rule_in_shadow_changes_nothing() {
    let policy = with_lists(&format!(
        "- {{ id: r, refuseIf: \"1 / (friendCount - 1) > 1\", mode: shadow, {REFUSAL} }}"
    ));
    assert_eq!(decide(&policy, "me", &["a"]), "allow | r Error");
}

fn request<'r>(owner: &'r str, friends: &'r [&'r str]) -> Request<'r, &'r str> {
    Request {
        operation_id: "op-1",
        owner,
        friends,
        now: SystemTime::UNIX_EPOCH,
    }
}

/// What happened to each rule, as `rule kind happened`.
fn explain(policy: &Policy, owner: &str, friends: &[&str]) -> Vec<String> {
    let explanation = policy.explain(&request(owner, friends));
    assert_eq!(
        explanation.evaluation,
        policy.evaluate(&request(owner, friends))
    );
    let steps = explanation.steps.iter();
    steps
        .map(|step| {
            let happened = match &step.happened {
                Happened::Refused(reason) => format!("refused: {reason}"),
                Happened::Removed {
                    friends: removed,
                    failure,
                } => {
                    let removed = removed
                        .iter()
                        .map(|(index, reason)| format!("{} {reason}", friends[*index as usize]));
                    let failure = failure.iter().map(|why| format!("failed: {why}"));
                    removed.chain(failure).collect::<Vec<_>>().join("; ")
                }
                Happened::NotWhen { when } => format!("not when {when}"),
                Happened::Skipped { failure } => format!("skipped: {failure}"),
                other => format!("{other:?}"),
            };
            format!("{} {}: {happened}", step.rule, step.kind)
        })
        .collect()
}

#[test]
fn explains_why_each_friend_was_dropped() {
    let policy = with_lists(
        "- { id: f, dropFriends: { in: blocked, prefixes: [bot_], suffixes: [_tmp], matches: ['[0-9]{4}'] } }
- { id: g, dropFriends: { notIn: known }, mode: shadow }
- { id: h, dropFriendIf: \"int(friend) > 7\", onError: skip }
- { id: l, limitFriends: { max: 1, onExceed: truncate } }",
    );
    assert_eq!(
        explain(
            &policy,
            "me",
            &["a", "me", "a", "bad2", "bot_1", "x_tmp", "y2026", "8", "z"]
        ),
        [
            "self built-in: me is the owner",
            "duplicate built-in: a is a duplicate",
            "f dropFriends: bad2 is in blocked; bot_1 starts with \"bot_\"; x_tmp ends with \"_tmp\"; y2026 matches \"[0-9]{4}\"",
            "g dropFriends: 8 is not in known; z is not in known",
            "h dropFriendIf: 8 int(friend) > 7 is true; failed: int: string parse error: invalid digit found in string",
            "l limitFriends: z 2 friends, at most 1",
        ]
    );
}

#[test]
fn explains_what_was_not_evaluated() {
    let policy = with_lists(&format!(
        "- {{ id: off, dropFriends: {{ in: blocked }}, mode: off }}
- {{ id: none, dropFriends: {{ in: blocked }}, rollout: 0 }}
- {{ id: not, dropFriends: {{ in: blocked }}, when: \"friendCount > 9\", onError: skip }}
- {{ id: fails, dropFriends: {{ in: blocked }}, when: \"1 / (friendCount - 1) > 9\", onError: skip }}
- {{ id: quiet, dropFriends: {{ in: blocked }} }}
- {{ id: why, description: Because., refuseIf: \"friendCount == 1\", {REFUSAL} }}
- {{ id: after, dropFriends: {{ in: blocked }} }}
- {{ id: off2, dropFriends: {{ in: blocked }}, mode: off }}"
    ));
    let explained = explain(&policy, "me", &["a"]);
    assert!(
        explained[3].starts_with("none dropFriends: OutsideRollout"),
        "{}",
        explained[3]
    );
    let others: Vec<&str> = explained
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with("none"))
        .collect();
    assert_eq!(
        others,
        [
            "self built-in: Nothing",
            "duplicate built-in: Nothing",
            "off dropFriends: Off",
            "not dropFriends: not when friendCount > 9",
            "fails dropFriends: skipped: division by zero",
            "quiet dropFriends: Nothing",
            "why refuseIf: refused: friendCount == 1 is true",
            "after dropFriends: NotReached",
            "off2 dropFriends: Off",
        ]
    );
    let explanation = policy.explain(&request("me", &["a"]));
    assert_eq!(explanation.steps[7].description, Some("Because."));
}

#[test]
fn explains_refusals_by_lists_limits_and_failures() {
    let reason = |rules: &str| {
        let policy = with_lists(rules);
        let friends = ["a", "b"];
        let explanation = policy.explain(&request("bad1", &friends));
        match explanation.steps.last().map(|step| step.happened.clone()) {
            Some(Happened::Refused(reason)) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        reason(&format!(
            "- {{ id: r, refuseOwner: {{ in: blocked }}, {REFUSAL} }}"
        )),
        "is in blocked"
    );
    assert_eq!(
        reason(&format!(
            "- {{ id: r, limitFriends: {{ max: 1, onExceed: refuse }}, {REFUSAL} }}"
        )),
        "2 friends, at most 1"
    );
    assert_eq!(
        reason(&format!(
            "- {{ id: r, refuseIf: \"1 / (friendCount - 2) > 1\", {REFUSAL} }}"
        )),
        Reason::Failed("division by zero".to_owned()).to_string()
    );
}

#[test]
fn outcomes_of_failures_are_distinct() {
    let policy = with_lists("- { id: r, dropFriendIf: \"int(friend) > 1\", onError: skip }");
    let friends = ["5", "x"];
    let decision = policy.evaluate(&request("me", &friends));
    let outcomes: Vec<_> = decision.rules.iter().map(|fired| fired.outcome).collect();
    assert_eq!(outcomes, [Outcome::Error, Outcome::Remove]);
}

#[test]
fn a_failure_is_an_error_with_its_reason_also_if_the_rule_then_refuses() {
    for (action, refuses) in [
        (format!("refuseIf: 'int(ownerUserID) > 1', {REFUSAL}"), true),
        (format!("dropFriendIf: 'int(friend) > 1', {REFUSAL}"), true),
        (
            format!("refuseIf: 'int(ownerUserID) > 1', onError: skip, {REFUSAL}"),
            false,
        ),
        (
            format!("refuseIf: 'int(ownerUserID) > 1', mode: shadow, {REFUSAL}"),
            false,
        ),
    ] {
        let policy = with_lists(&format!("- {{ id: r, {action} }}"));
        let decision = policy.evaluate(&request("me", &["x"]));
        let [rule] = &decision.rules[..] else {
            panic!("{action}: {:?}", decision.rules);
        };
        assert_eq!(rule.outcome, Outcome::Error, "{action}");
        let reason = rule.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("invalid digit"), "{action}: {reason}");
        let refused =
            matches!(&decision.verdict, Verdict::Refuse(by) if by.rule.as_deref() == Some("r"));
        assert_eq!(refused, refuses, "{action}");
    }
}

#[test]
fn the_reason_of_a_failure_has_no_id() {
    for expression in [
        "now.getHours(ownerUserID) > 1",
        "int(ownerUserID) > 1",
        "double(ownerUserID) > 1.0",
        "timestamp(ownerUserID) > now",
        "now > timestamp(0) + duration(ownerUserID)",
        "[1][size(ownerUserID)] > 1",
    ] {
        let policy = with_lists(&format!(
            "- {{ id: r, refuseIf: '{expression} || friendCount == 0', {REFUSAL} }}"
        ));
        let decision = policy.evaluate(&request("secret-id", &["x"]));
        let reason = decision.rules[0].reason.clone().unwrap();
        assert!(!reason.contains("secret"), "{expression}: {reason}");
    }
}

#[test]
fn explains_shadow_rules_and_limits_that_are_not_reached() {
    for (rule, expected) in [
        (
            "dropFriends: { in: blocked }, mode: shadow",
            "would remove 1: \"bad1\" is in blocked",
        ),
        (
            "limitFriends: { max: 1, onExceed: truncate }, mode: shadow",
            "2 friends, at most 1: would remove 1 (\"bad1\")",
        ),
        (
            "refuseIf: 'friendCount > 1', mode: shadow, refusal: { code: 5104, message: no }",
            "would refuse: friendCount > 1 is true",
        ),
        (
            "dropFriends: { in: blocked }",
            "removed 1: \"bad1\" is in blocked",
        ),
        (
            "limitFriends: { max: 200, onExceed: truncate }",
            "no match: 2 of at most 200 friends",
        ),
    ] {
        let policy = with_lists(&format!("- {{ id: r, {rule} }}"));
        let friends = ["a", "bad1"];
        let explanation = policy.explain(&request("me", &friends));
        assert_eq!(explanation.steps[2].describe(&friends), expected);
    }
}

#[test]
fn lists_that_nothing_uses_and_matchers_for_nearly_everybody_are_known() {
    let policy = super::policy(
        "lists:
  a: { values: [x], unless: b }
  b: { values: [x] }
  c: { values: [x] }
  d: { values: [x] }
  unused: { values: [x] }
rules:
- { id: mixed, dropFriends: { prefixes: [bot_], notIn: a } }
- { id: positive, dropFriends: { prefixes: [bot_], suffixes: [_bot] } }
- { id: negative, dropFriends: { notPrefixes: [u_], notSuffixes: [_eu] } }
- { id: expression, dropFriendIf: \"friend in c\", when: \"!(ownerUserID in d)\", mode: \"off\" }",
    );
    assert_eq!(policy.unused_lists(), ["unused"]);
    assert_eq!(policy.mixed_rules().collect::<Vec<_>>(), ["mixed"]);
}
