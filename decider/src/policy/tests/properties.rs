//! Properties of every policy and every request. `PROPTEST_CASES=10000` runs more cases.

use std::time::{Duration, SystemTime};

use importguard_core::{Evaluation, Verdict};
use proptest::prelude::*;

use super::compile;
use crate::policy::{Happened, Policy, Request};

const LISTS: &str =
    "lists:\n  blocked: { values: [a, b, c, m] }\n  known: { values: [a, d, e, f, m] }\nrules:\n";
const REFUSAL: &str = "refusal: { code: 5100, message: no }";

/// A rule's kind and matcher, without its ID and mode. If `friendly`, the rule treats each friend independently of the others.
fn action(friendly: bool) -> BoxedStrategy<String> {
    let list = prop_oneof![Just("blocked"), Just("known")];
    let drop = list
        .clone()
        .prop_map(|list| format!("dropFriends: {{ in: {list} }}"));
    let drop_not = list
        .clone()
        .prop_map(|list| format!("dropFriends: {{ notIn: {list} }}"));
    let affix = prop_oneof![
        Just("prefixes: [b]".to_owned()),
        Just("suffixes: [a, '1']".to_owned()),
        Just("matches: ['^[ad]', '1.*1']".to_owned()),
        Just("notPrefixes: [a, b]".to_owned()),
        Just("notSuffixes: [a], notMatches: ['^[ad]', '1.*1']".to_owned()),
    ];
    let drop_by = affix.prop_map(|affix| format!("dropFriends: {{ {affix} }}"));
    let drop_if = prop_oneof![
        Just("friend in known && friend < ownerUserID"),
        Just("friend.contains('1')"),
        Just("int(friend) > 1"),
    ]
    .prop_map(|source| format!("dropFriendIf: \"{source}\", onError: skip"));
    let owner = list.prop_map(|list| format!("refuseOwner: {{ in: {list} }}, {REFUSAL}"));
    let when = prop_oneof![
        Just("ownerUserID != 'b'"),
        Just("now.getHours() < 12"),
        Just("requestedCount >= 0")
    ]
    .prop_map(|source| {
        format!("dropFriends: {{ in: blocked }}, when: \"{source}\", onError: skip")
    });
    let friendly_ones = prop_oneof![drop, drop_not, drop_by, drop_if, owner, when];
    if friendly {
        return friendly_ones.boxed();
    }
    let limit =
        (1..6u32).prop_map(|max| format!("limitFriends: {{ max: {max}, onExceed: truncate }}"));
    let refuse_over = (1..6u32)
        .prop_map(|max| format!("limitFriends: {{ max: {max}, onExceed: refuse }}, {REFUSAL}"));
    let refuse_if = prop_oneof![Just("friendCount > 3"), Just("10 / friendCount > 4")]
        .prop_map(|source| format!("refuseIf: \"{source}\", {REFUSAL}"));
    let fails = Just(format!("dropFriendIf: \"int(friend) > 1\", {REFUSAL}"));
    prop_oneof![3 => friendly_ones, 1 => limit, 1 => refuse_over, 1 => refuse_if, 1 => fails]
        .boxed()
}

/// An action with a mode and perhaps a rollout.
fn rule(friendly: bool) -> impl Strategy<Value = (String, &'static str, Option<u8>)> {
    let mode = prop_oneof![3 => Just("enforce"), 1 => Just("shadow"), 1 => Just("off")];
    (
        action(friendly),
        mode,
        prop::option::weighted(0.2, 0..=100u8),
    )
}

fn written(rules: &[(String, &'static str, Option<u8>)]) -> String {
    if rules.is_empty() {
        return "  []".to_owned();
    }
    let rules = rules
        .iter()
        .enumerate()
        .map(|(n, (action, mode, rollout))| {
            let rollout = rollout
                .map(|it| format!(", rollout: {it}"))
                .unwrap_or_default();
            format!("- {{ id: r{n}, {action}, mode: {mode}{rollout} }}\n")
        });
    rules.collect()
}

fn build(rules: &str) -> Policy {
    compile(&format!("{LISTS}{rules}")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Few different IDs, so that they repeat, are in lists, and equal the owner's.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-g]", 1 => "[a-d]1?1?", 1 => "[0-9]{1,2}", 1 => Just("m".to_owned()), 1 => "\\PC{1,4}"]
}

fn ask(policy: &Policy, owner: &str, friends: &[String], hour: u64) -> Evaluation {
    policy.evaluate(&Request {
        operation_id: "op",
        owner,
        friends,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600),
    })
}

/// The indexes of the friends that a decision keeps.
fn kept(decision: &Evaluation, count: usize) -> Vec<usize> {
    match &decision.verdict {
        Verdict::Allow => (0..count).collect(),
        Verdict::Modify(kept) => kept.indexes().iter().map(|&index| index as usize).collect(),
        Verdict::Refuse(_) => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_is_kept_was_asked_for_in_order_once_and_is_not_the_owner(
        rules in prop::collection::vec(rule(false), 0..5), owner in id(), friends in prop::collection::vec(id(), 0..12), hour in 0..24u64,
    ) {
        let policy = build(&written(&rules));
        let decision = ask(&policy, &owner, &friends, hour);
        let kept = kept(&decision, friends.len());
        prop_assert!(kept.is_sorted_by(|a, b| a < b));
        prop_assert!(kept.iter().all(|&index| index < friends.len() && friends[index] != owner));
        let mut ids: Vec<&String> = kept.iter().map(|&index| &friends[index]).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), kept.len());
        if let Verdict::Modify(_) = decision.verdict {
            prop_assert!(!kept.is_empty() && kept.len() < friends.len());
            let removed: usize = decision.removed.iter().map(|removal| removal.friends.len()).sum();
            prop_assert_eq!(removed + kept.len(), friends.len());
        }
    }

    #[test]
    fn rules_in_shadow_and_off_never_change_a_verdict(
        rules in prop::collection::vec(rule(false), 0..6), owner in id(), friends in prop::collection::vec(id(), 0..12), hour in 0..24u64,
    ) {
        let policy = build(&written(&rules));
        let enforced: Vec<_> = rules.iter().enumerate().filter(|(_, (_, mode, _))| *mode == "enforce").collect();
        let lines: String = enforced.iter().map(|(n, (action, _, rollout))| {
            let rollout = rollout.map(|it| format!(", rollout: {it}")).unwrap_or_default();
            format!("- {{ id: r{n}, {action}{rollout} }}\n")
        }).collect();
        let without = build(if lines.is_empty() { "  []" } else { &lines });
        let (a, b) = (ask(&policy, &owner, &friends, hour), ask(&without, &owner, &friends, hour));
        prop_assert_eq!(&a.verdict, &b.verdict);
        prop_assert_eq!(&a.removed, &b.removed);
    }

    #[test]
    fn a_friend_that_no_rule_matches_changes_nothing_for_the_others(
        rules in prop::collection::vec(rule(true), 0..5), owner in id(), friends in prop::collection::vec(id(), 1..10), at in any::<prop::sample::Index>(), hour in 0..24u64,
    ) {
        // On no list, and matched by none of the patterns above; `notIn` drops it, which does not change the others either.
        let stranger = "zz".to_owned();
        let policy = build(&written(&rules));
        let without = ask(&policy, &owner, &friends, hour);
        let at = at.index(friends.len() + 1);
        let mut more = friends.clone();
        more.insert(at, stranger);
        let with = ask(&policy, &owner, &more, hour);
        let others = |kept: Vec<usize>| -> Vec<usize> {
            kept.into_iter().filter(|&index| index != at).map(|index| if index > at { index - 1 } else { index }).collect()
        };
        prop_assert_eq!(others(kept(&with, more.len())), kept(&without, friends.len()));
    }

    #[test]
    fn a_shadow_rule_reports_what_it_would_do_at_its_position(
        rules in prop::collection::vec(rule(false), 0..6), owner in id(), friends in prop::collection::vec(id(), 0..12), hour in 0..24u64,
    ) {
        let policy = build(&written(&rules));
        let decision = ask(&policy, &owner, &friends, hour);
        let place = |id: &str| match id {
            "self" | "duplicate" => 0,
            "nobodyLeft" => usize::MAX,
            rule => 1 + rule[1..].parse::<usize>().unwrap(),
        };
        prop_assert!(decision.rules.is_sorted_by_key(|fired| place(&fired.id)), "{:?}", decision.rules);
        for (n, (_, mode, _)) in rules.iter().enumerate() {
            if *mode != "shadow" {
                continue;
            }
            // The enforced rules before it, and then the rule itself as an enforced one.
            let alone = rules[..=n].iter().enumerate().map(|(m, (action, mode, rollout))| match *mode {
                "shadow" if m == n => (action.clone(), "enforce", *rollout),
                "enforce" => (action.clone(), "enforce", *rollout),
                _ => (action.clone(), "off", *rollout),
            });
            let alone = build(&written(&alone.collect::<Vec<_>>()));
            let id = format!("r{n}");
            let outcomes = |decision: &Evaluation| -> Vec<_> {
                let fired = decision.rules.iter().filter(|fired| fired.id == id);
                fired.map(|fired| fired.outcome).collect()
            };
            prop_assert_eq!(outcomes(&decision), outcomes(&ask(&alone, &owner, &friends, hour)));
        }
    }

    #[test]
    fn a_rollout_is_stable_and_never_loses_an_owner_as_it_grows(owner in id(), small in 0..=100u8, more in 0..=100u8) {
        let large = small.saturating_add(more).min(100);
        let refuses = |per_cent: u8| {
            let policy = build(&format!("- {{ id: r, refuseOwner: {{ notIn: blocked, in: blocked }}, rollout: {per_cent}, {REFUSAL} }}"));
            let refused = |policy: &Policy| matches!(ask(policy, &owner, &[], 0).verdict, Verdict::Refuse(_));
            prop_assert_eq!(refused(&policy), refused(&policy));
            Ok(refused(&policy))
        };
        let (few, many) = (refuses(small)?, refuses(large)?);
        prop_assert!(!few || many);
    }

    #[test]
    fn the_same_question_gets_the_same_answer_and_the_explanation_agrees(
        rules in prop::collection::vec(rule(false), 0..5), owner in id(), friends in prop::collection::vec(id(), 0..12), hour in 0..24u64,
    ) {
        let source = written(&rules);
        let (policy, again) = (build(&source), build(&source));
        let decision = ask(&policy, &owner, &friends, hour);
        prop_assert_eq!(&decision, &ask(&again, &owner, &friends, hour));
        let explanation = policy.explain(&Request {
            operation_id: "op",
            owner: &owner,
            friends: &friends,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600),
        });
        prop_assert_eq!(&explanation.evaluation, &decision);
        prop_assert_eq!(explanation.steps.len(), rules.len() + 2);
        for removal in &decision.removed {
            let step = explanation.steps.iter().find(|step| step.rule == removal.rule);
            let Some(Happened::Removed { friends, .. }) = step.map(|step| &step.happened) else {
                return Err(TestCaseError::fail(format!("{step:?}")));
            };
            prop_assert_eq!(friends.iter().map(|(index, _)| *index).collect::<Vec<_>>(), removal.friends.clone());
        }
    }

    #[test]
    fn no_text_is_too_odd_to_be_read(source in "(\\PC|[\\[\\]{}:,&*!|>'\"%@#?\\- \n\t]){0,80}") {
        let _ = super::compile_source(&source);
        let _ = compile(&source);
        let _ = compile(&format!("rules:\n- id: a\n  refuseIf: {source}"));
        let _ = compile(&format!("rules:\n- {{ id: a, dropFriends: {{ matches: ['{source}'] }} }}"));
    }

    #[test]
    fn no_expression_is_too_odd_to_be_read(source in "([()\\[\\]{}!&|?:<>=+*/%.,'\" -]|friend|now|friendCount|ownerUserID|1|'a'|true|in|\\.all\\(x,|size\\(|timestamp\\(|\\.getHours\\(){0,30}") {
        let _ = compile(&format!("rules:\n- id: a\n  onError: skip\n  dropFriendIf: |\n    {source}"));
    }
}
