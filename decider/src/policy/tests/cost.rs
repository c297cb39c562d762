//! The cost of evaluations, and how they are stopped early.

use std::time::SystemTime;

use importguard_core::{Evaluation, Mode, Outcome};

use super::{
    compile,
    evaluation::{decide, with_lists},
};
use crate::{
    lists::live::LiveLists,
    policy::{Draft, Happened, ListFiles, MAX_COST, Policy, Request, SHADOW_BUDGET, StoppedError},
};

const REFUSAL: &str = "refusal: { code: 5100, message: no }";

fn friends(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("friend{number}")).collect()
}

/// Friends whose IDs are as long as the estimate assumes.
fn longest(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:0256}")).collect()
}

fn request(friends: &[String]) -> Request<'_, String> {
    Request {
        operation_id: "op-1",
        owner: "me",
        friends,
        now: SystemTime::UNIX_EPOCH,
    }
}

/// A loop over `count` strings: 235 of them cost about 130 µs per friend.
fn exists(count: usize) -> String {
    let texts: Vec<_> = (0..count).map(|_| "'a'").collect();
    format!("[{}].exists(x, x == friend)", texts.join(","))
}

fn fired(evaluation: &Evaluation) -> Vec<(&str, Outcome)> {
    evaluation
        .rules
        .iter()
        .map(|it| (it.id.as_str(), it.outcome))
        .collect()
}

/// Stops at the `n`th check, counted from 0.
fn stop_at(policy: &Policy, friends: &[String], n: usize) -> (Result<(), StoppedError>, usize) {
    let mut asked = 0;
    let stop = || {
        asked += 1;
        asked > n
    };
    let evaluator = policy.with_live(LiveLists::none());
    let decision = evaluator.evaluate_until(&request(friends), stop, &mut ());
    let whole = decision.map(|decision| assert_eq!(decision, policy.evaluate(&request(friends))));
    (whole, asked)
}

#[test]
fn whenever_it_is_stopped_there_is_no_verdict_and_otherwise_the_whole_one() {
    let policy = with_lists(&format!(
        "- {{ id: watch, dropFriendIf: \"{0}\", mode: shadow, onError: skip }}
- {{ id: some, dropFriends: {{ suffixes: ['7'] }} }}
- {{ id: all, dropFriendIf: \"!({1})\", onError: skip }}
- {{ id: never, refuseIf: \"friendCount > 0\", {REFUSAL} }}",
        exists(30),
        exists(10),
    ));
    let friends = friends(100);
    let (whole, asked) = stop_at(&policy, &friends, usize::MAX);
    assert_eq!(whole, Ok(()));
    assert!(asked > 15, "asked {asked} times");
    for n in 0..asked {
        assert_eq!(stop_at(&policy, &friends, n), (Err(StoppedError), n + 1));
    }
    assert_eq!(stop_at(&policy, &friends, asked), (Ok(()), asked));
}

#[test]
fn it_is_asked_before_anything_is_evaluated() {
    let policy = with_lists("  []");
    assert_eq!(stop_at(&policy, &[], 0), (Err(StoppedError), 1));
    assert_eq!(stop_at(&policy, &[], 1), (Ok(()), 1));
}

#[test]
fn it_is_asked_after_each_hundred_microseconds_whatever_a_rule_is_made_of() {
    for rule in [
        "dropFriends: { in: blocked }".to_owned(),
        format!(
            "dropFriends: {{ prefixes: [{}] }}",
            vec!["'a'"; 64].join(",")
        ),
        "dropFriends: { matches: ['^a.*b$'] }".to_owned(),
        "dropFriendIf: \"friend == 'a'\", onError: skip".to_owned(),
        format!(
            "dropFriendIf: \"{}\", onError: skip, when: \"ownerUserID != 'a'\"",
            exists(10)
        ),
    ] {
        let policy = with_lists(&format!("- {{ id: r, {rule} }}"));
        let cost = policy.cost().units(Mode::Enforce);
        let (whole, asked) = stop_at(&policy, &longest(2_000), usize::MAX);
        assert_eq!(whole, Ok(()));
        assert!(
            asked as u64 >= cost / 5 / 10_000 / 4,
            "{rule}: asked {asked} times, cost {cost}"
        );
    }
}

#[test]
fn a_rule_in_shadow_sees_the_list_as_it_stood_at_its_place() {
    let sees = |count: u32| {
        format!(
            "- {{ id: sees-{count}, refuseIf: \"friendCount == {count}\", mode: shadow, {REFUSAL} }}\n"
        )
    };
    let drops = "- { id: bots, dropFriends: { prefixes: [bot] }, mode: shadow }\n";
    let policy = with_lists(&format!(
        "{}{drops}- {{ id: one, dropFriends: {{ prefixes: [bot1] }} }}\n{}{drops_again}- {{ id: two, dropFriends: {{ prefixes: [bot2] }} }}\n{}{none_left}",
        sees(4),
        sees(3),
        sees(1),
        drops_again = drops.replace("id: bots", "id: still-bots"),
        none_left = drops.replace("id: bots", "id: no-bots"),
    ));
    assert_eq!(
        decide(&policy, "me", &["bot1", "a", "me", "bot2", "bot3x", "a"]),
        "modify [a@1 bot3x@4] | self Remove, duplicate Remove, sees-4 Refuse, bots Remove, one Remove, sees-3 Refuse, still-bots Remove, two Remove, no-bots Remove, self[me@2], duplicate[a@5], one[bot1@0], two[bot2@3]"
    );
}

#[test]
fn rules_are_reported_in_document_order_and_none_after_a_refusal() {
    let policy = with_lists(&format!(
        "- {{ id: s1, limitFriends: {{ max: 1, onExceed: truncate }}, mode: shadow }}
- {{ id: e1, dropFriends: {{ in: blocked }} }}
- {{ id: off, refuseIf: \"true\", mode: off, {REFUSAL} }}
- {{ id: s2, refuseOwner: {{ prefixes: [m] }}, mode: shadow, {REFUSAL} }}
- {{ id: e2, refuseOwner: {{ prefixes: [m] }}, {REFUSAL} }}
- {{ id: s3, refuseOwner: {{ prefixes: [m] }}, mode: shadow, {REFUSAL} }}
- {{ id: e3, dropFriends: {{ in: known }} }}"
    ));
    assert_eq!(
        decide(&policy, "me", &["a", "bad1", "b"]),
        "refuse 5100 e2 | s1 Remove, e1 Remove, s2 Refuse, e2 Refuse, e1[bad1@1]"
    );
    let explanation = policy.explain(&Request {
        operation_id: "op-1",
        now: SystemTime::UNIX_EPOCH,
        owner: "me",
        friends: &["a", "bad1", "b"],
    });
    let told: Vec<_> = explanation.steps.iter().map(|step| step.rule).collect();
    assert_eq!(
        told,
        [
            "self",
            "duplicate",
            "s1",
            "e1",
            "off",
            "s2",
            "e2",
            "s3",
            "e3"
        ]
    );
    let not_reached = explanation
        .steps
        .iter()
        .filter(|step| matches!(step.happened, Happened::NotReached));
    assert_eq!(
        not_reached.map(|step| step.rule).collect::<Vec<_>>(),
        ["s3", "e3"]
    );
}

#[test]
fn rules_in_shadow_are_skipped_beyond_what_they_may_cost_and_the_verdict_stays() {
    let expensive = |id: &str| {
        format!(
            "- {{ id: {id}, dropFriendIf: \"{}\", mode: shadow, onError: skip }}\n",
            exists(235)
        )
    };
    let policy = with_lists(&format!(
        "{}- {{ id: sevens, dropFriends: {{ suffixes: ['7'] }} }}\n{}- {{ id: cheap, dropFriends: {{ suffixes: ['8'] }}, mode: shadow }}\n",
        expensive("one"),
        expensive("two"),
    ));
    let many = friends(10_000);
    let explanation = policy.explain(&request(&many));
    assert_eq!(
        fired(&explanation.evaluation),
        [
            ("one", Outcome::Skipped),
            ("sevens", Outcome::Remove),
            ("two", Outcome::Skipped),
            ("cheap", Outcome::Remove)
        ]
    );
    let Happened::OverBudget { cost, left } = explanation.steps[2].happened else {
        panic!("{explanation:?}")
    };
    assert!(cost > left && left == SHADOW_BUDGET);
    // Few friends cost little.
    let few = friends(10);
    assert_eq!(
        fired(&policy.evaluate(&request(&few))),
        [("sevens", Outcome::Remove), ("cheap", Outcome::Remove)]
    );
}

#[test]
fn what_one_rule_in_shadow_takes_is_not_there_for_the_next() {
    let rule = |id: &str| {
        format!("- {{ id: {id}, dropFriendIf: \"friend != 'a'\", mode: shadow, onError: skip }}\n")
    };
    let one = with_lists(&rule("r")).cost().units(Mode::Shadow);
    let fitting = (SHADOW_BUDGET / one) as usize;
    assert!((1..100).contains(&fitting), "{fitting}");
    let rules: String = (0..fitting + 3).map(|n| rule(&format!("r{n}"))).collect();
    let policy = with_lists(&rules);
    let friends = longest(10_000);
    let decision = policy.evaluate(&Request {
        operation_id: &"o".repeat(256),
        ..request(&friends)
    });
    let outcomes: Vec<_> = decision.rules.iter().map(|rule| rule.outcome).collect();
    assert_eq!(&outcomes[..fitting], vec![Outcome::Remove; fitting]);
    assert_eq!(&outcomes[fitting..], [Outcome::Skipped; 3]);
}

#[test]
fn a_rule_that_is_not_looked_at_takes_nothing_of_what_others_may_cost() {
    let expensive = |id: &str, only: &str| {
        format!(
            "- {{ id: {id}, dropFriendIf: \"!({})\", mode: shadow, onError: skip, {only} }}\n",
            exists(100)
        )
    };
    let policy = with_lists(&format!(
        "{}{}{}",
        expensive("never", "when: \"friendCount < 0\""),
        expensive("nobody", "rollout: 0"),
        expensive("all", "rollout: 100"),
    ));
    let friends = friends(400);
    assert_eq!(
        fired(&policy.evaluate(&request(&friends))),
        [("all", Outcome::Remove)]
    );
}

#[test]
fn enforced_rules_that_cost_too_much_are_refused_with_each_ones_share() {
    let rule = |id: &str, count| {
        format!(
            "- {{ id: {id}, dropFriendIf: \"{}\", onError: skip }}\n",
            exists(count)
        )
    };
    let rules = format!(
        "rules:\n{}{}{}",
        rule("small", 5),
        rule("big", 235),
        rule("middle", 50)
    );
    let shown = compile(&rules).unwrap_err().to_string();
    for told in [
        "policy.yaml:5:9: with 10000 friends the enforced rules cost ",
        "the maximum is 10000000: \"big\" ",
        ", \"middle\" ",
        ", \"small\" ",
        "{ id: big, dropFriendIf",
        "put limitFriends before it",
        "IMPORTGUARD_DECIDER_MAX_FRIENDS",
    ] {
        assert!(shown.contains(told), "{told} is missing in:\n{shown}");
    }
    // They are valid in shadow mode, where rules that cost too much are skipped.
    let shadow = rules.replace("onError: skip", "onError: skip, mode: shadow");
    assert!(compile(&shadow).unwrap().cost().units(Mode::Shadow) > MAX_COST);
    compile(&rules.replace("onError: skip", "onError: skip, mode: off")).unwrap();
    // They are also valid if imports are small enough, by a rule or by a setting.
    let limit = "- { id: limit, limitFriends: { max: 500, onExceed: truncate } }\n";
    compile(&rules.replacen("rules:\n", &format!("rules:\n{limit}"), 1)).unwrap();
    let sometimes = limit.replace(" } }", " }, when: \"friendCount > 0\", onError: skip }");
    compile(&rules.replacen("rules:\n", &format!("rules:\n{sometimes}"), 1)).unwrap_err();
    let source = super::with_head(&rules);
    Draft::read("policy.yaml", &source)
        .compile_for(500, &ListFiles::new())
        .unwrap();
}

#[test]
fn the_largest_import_has_the_longest_ids() {
    let rules = |count: u32| {
        let rule = |n| format!("- {{ id: r{n}, dropFriends: {{ in: b }} }}\n");
        let rules: String = (0..count).map(rule).collect();
        format!("lists: {{ b: {{ values: [x], fold: [case, space] }} }}\nrules:\n{rules}")
    };
    compile(&rules(3)).unwrap();
    let shown = compile(&rules(4)).unwrap_err().to_string();
    assert!(shown.contains("the enforced rules cost "), "{shown}");
}

const SLOW: &str = r"['[bf].{120}z', 'b.{30}z', '0.{25}z', '[0f].{150}z']";

#[test]
fn simple_regular_expressions_cost_the_same_for_all_ids() {
    let ten = r"['^bot_\d+$', '@example\.com$', '(?i)spam', '^tmp[_-]', 'test', '^\d{4,10}$', '[0-9]x[a-z]+', '^qa', '(foo|bar)baz$', '[^a-z0-9_]']";
    for patterns in [ten, "['^a']"] {
        let rules = format!("rules: [{{ id: r, dropFriends: {{ matches: {patterns} }} }}]");
        let cost = compile(&rules).unwrap().cost().units(Mode::Enforce);
        assert_eq!(cost, 164 * 10_000, "{patterns}");
    }
    for pattern in [r"^u_[a-z]+_\d+$", "^a", "(?i)spam"] {
        let rules = format!(
            "rules: [{{ id: r, dropFriendIf: 'friend.matches(r\"{pattern}\")', onError: skip }}]"
        );
        let cost = compile(&rules).unwrap().cost().units(Mode::Enforce);
        assert_eq!(cost, 183 * 10_000, "{pattern}");
    }
}

#[test]
fn regular_expressions_that_some_ids_slow_down_are_refused() {
    for (action, named) in [
        (
            format!("dropFriends: {{ matches: {SLOW} }}"),
            "\"[bf].{120}z\"",
        ),
        (
            "dropFriends: { notMatches: ['^a', 'b.{40}z'] }".to_owned(),
            "\"b.{40}z\"",
        ),
        (
            "dropFriendIf: \"friend.matches('b.{40}z')\", onError: skip".to_owned(),
            "\"b.{40}z\"",
        ),
    ] {
        let rules = format!("rules:\n- {{ id: slow, {action} }}\n");
        let shown = compile(&rules).unwrap_err().to_string();
        let named = format!("; some IDs slow down the regular expression {named}");
        for told in [
            "with 10000 friends the enforced rules cost ",
            &named,
            "begin it with ^, shorten repetitions",
        ] {
            assert!(shown.contains(told), "{told} is missing in:\n{shown}");
        }
        let source = super::with_head(&rules);
        let few = Draft::read("policy.yaml", &source).compile_for(10, &ListFiles::new());
        // 40 states for each of 256 bytes of 10 IDs.
        assert!(few.unwrap().cost().units(Mode::Enforce) >= 40 * 256 * 10);
    }
}

#[test]
fn an_expression_that_costs_too_much_once_is_refused_wherever_it_stands() {
    let numbers = vec!["1"; 230].join(",");
    let source = format!("[{numbers}].exists(x, friendCount in [{numbers}])");
    assert!(source.len() < 1024);
    for rule in ["refuseIf", "when"] {
        let kind = if rule == "when" {
            "dropFriends: { in: blocked }, "
        } else {
            ""
        };
        let shown = compile(&format!(
            "lists: {{ blocked: {{ values: [a] }} }}\nrules:\n- {{ id: r, {kind}{rule}: \"{source}\", mode: shadow, {REFUSAL} }}"
        ))
        .unwrap_err()
        .to_string();
        assert!(
            shown.contains("one evaluation of this expression costs ")
                && shown.contains("the maximum is 200000"),
            "{shown}"
        );
    }
}

#[test]
fn an_expression_that_costs_too_much_for_the_longest_ids_is_refused() {
    let rules = r#"rules:
- id: r
  refuseIf: 'ownerUserID.split("_", 16).exists(p, p.matches(r"\b[a-z]{1,50}[0-9]{4,8}\b"))'
  onError: skip
  refusal: { code: 5100, message: no }
"#;
    let shown = compile(rules).unwrap_err().to_string();
    assert!(
        shown.contains("one evaluation of this expression costs "),
        "{shown}"
    );
}

#[test]
fn what_a_request_is_expected_to_cost_grows_with_its_friends_and_their_ids() {
    let policy = with_lists(&format!(
        "- {{ id: r, dropFriendIf: \"friend == ownerUserID\", onError: skip }}\n- {{ id: s, dropFriendIf: \"{}\", onError: skip, mode: shadow }}",
        exists(235)
    ));
    let few = policy.expected_cost(10, 100, 10);
    let long = policy.expected_cost(10, 1_000_000, 10);
    let many = policy.expected_cost(10_000, 100_000, 10);
    assert!(few < long && few < many, "{few} {long} {many}");
    // Shadow rules add no more than their budget.
    assert!(many < 2 * SHADOW_BUDGET, "{many}");
    assert_eq!(
        policy.expected_cost(usize::MAX, usize::MAX, usize::MAX),
        u64::MAX
    );
}
