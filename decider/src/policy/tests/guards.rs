//! Lists that lost their IDs, and lists that ignore differences between IDs.

use super::with_head;
use crate::{
    lists,
    policy::{Diagnostics, Draft, ListFiles, Policy, Request},
};

/// A policy with one list of this definition, whose file `a.txt` has this content.
fn with_file(definition: &str, content: &str) -> Result<Policy, Diagnostics> {
    let rules = "rules: [{ id: a, dropFriends: { in: a } }, { id: b, dropFriendIf: \"friend in a\", onError: skip }]";
    let source = with_head(&format!("lists: {{ a: {{ {definition} }} }}\n{rules}"));
    let mut files = ListFiles::new();
    let content = lists::parse(content.as_bytes()).unwrap();
    files.insert("a.txt".to_owned(), Ok(content));
    Draft::read("policy.yaml", &source).compile(&files)
}

fn ids(count: usize) -> String {
    (0..count).map(|number| format!("user{number}\n")).collect()
}

#[track_caller]
fn refused(definition: &str, content: &str, expected: &str) {
    let errors = with_file(definition, content).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.on_one_line()).collect();
    assert!(lines.len() == 1 && lines[0] == expected, "{lines:#?}");
}

#[test]
fn a_file_without_ids_is_an_error_unless_it_may_be_empty() {
    for empty in ["", "\n", "# nobody\n"] {
        refused(
            "file: a.txt",
            empty,
            "policy.yaml:3:21: the list \"a.txt\" has no IDs: restore the file; if it may be empty, add allowEmpty: true to the list",
        );
        assert!(with_file("file: a.txt, allowEmpty: true", empty).is_ok());
    }
    refused(
        "file: a.txt, allowEmpty: false",
        "",
        "policy.yaml:3:21: the list \"a.txt\" has no IDs: restore the file; if it may be empty, add allowEmpty: true to the list",
    );
}

#[test]
fn a_list_that_may_not_be_empty_may_have_a_minimum() {
    let both = "file: a.txt, allowEmpty: false, atLeast: 2";
    assert!(with_file(both, "user1\nuser2\n").is_ok());
    let errors = with_file(&both.replace("false", "true"), "user1\nuser2\n").unwrap_err();
    let shown = errors.to_string();
    assert!(
        shown.contains("a list that may be empty has no minimum number of IDs"),
        "{shown}"
    );
}

#[test]
fn ids_with_spaces_in_a_file_are_counted() {
    let spaced = |definition, content| {
        let policy = with_file(definition, content).unwrap();
        policy
            .ids_with_spaces()
            .map(|(list, count)| format!("{list} {count}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(spaced("file: a.txt", "user1 user2 user3\nuser4\n"), ["a 1"]);
    assert!(spaced("file: a.txt", " user1 \nuser4\n").is_empty());
    assert!(spaced("file: a.txt, fold: [space]", "user 1\n").is_empty());
    assert!(spaced("values: [user 1]", "").is_empty());
}

#[test]
fn a_file_with_fewer_ids_than_its_minimum_is_an_error() {
    let definition = "file: a.txt, atLeast: 3";
    let message = |size: u32| {
        format!(
            "policy.yaml:3:37: the list \"a.txt\" has {size} IDs; it must have at least 3: restore the file, or lower atLeast"
        )
    };
    refused(definition, "", &message(0));
    refused(definition, "a\na\nb\n", &message(2));
    assert!(with_file(definition, "a\nb\nc\n").is_ok());
    // Only distinct IDs count.
    refused(
        "file: a.txt, atLeast: 3, fold: [case]",
        "a\nA\nb\n",
        &message(2),
    );
}

/// The doubts about `new` after `old`, if there are any.
fn doubts(definition: &str, old: &str, new: &str) -> Option<String> {
    let active = with_file(definition, old).unwrap();
    let doubts = with_file(definition, new).unwrap().doubts(&active)?;
    Some(doubts.iter().map(|doubt| doubt.on_one_line()).collect())
}

/// The doubts about a policy `new` after `old`, without lists.
fn doubts_about(old: &str, new: &str) -> Vec<String> {
    let policy = |source| {
        let draft = Draft::read("policy.yaml", source);
        draft.compile(&ListFiles::new()).unwrap()
    };
    let doubts = policy(new).doubts(&policy(old));
    let doubts = doubts.iter().flat_map(|doubts| doubts.iter());
    doubts.map(|doubt| doubt.on_one_line()).collect()
}

const RULES: &str = "rules:
  - { id: a, limitFriends: { max: 10, onExceed: truncate } }
  - { id: b, limitFriends: { max: 20, onExceed: truncate } }
";

#[test]
fn every_valid_beginning_of_a_policy_is_doubtful() {
    let whole = with_head(RULES) + "nobodyLeft: { code: 5002, message: nobody }\n\n";
    let mut valid = 0;
    for (end, _) in whole.trim_end().char_indices() {
        let cut = &whole[..end];
        if Draft::read("", cut).compile(&ListFiles::new()).is_ok() {
            let found = doubts_about(&whole, cut);
            assert!(found[0].contains("may be half written"), "{cut}\n{found:?}");
            valid += 1;
        }
    }
    assert!(valid > 2, "{valid}");
    assert!(doubts_about(&whole, whole.trim_end()).is_empty());
    assert!(doubts_about(whole.trim_end(), &whole).is_empty());
}

#[test]
fn a_policy_that_enforces_no_rule_any_more_is_doubtful() {
    let doubt = "policy.yaml: the policy enforces none of its rules, unlike the active one: restore the file; if it is right, send SIGHUP to the decider to confirm it";
    let rule = |keys: &str| {
        with_head(&format!(
            "rules: [{{ id: a, limitFriends: {{ max: 10, onExceed: truncate }}, {keys} }}]\n"
        ))
    };
    let enforced = with_head(RULES);
    for none in [
        with_head("rules: []\n"),
        rule("mode: shadow"),
        rule("mode: \"off\""),
        rule("rollout: 0"),
    ] {
        assert_eq!(doubts_about(&enforced, &none), [doubt], "{none}");
        assert!(doubts_about(&none, &rule("mode: shadow")).is_empty());
    }
    assert!(doubts_about(&enforced, &rule("rollout: 1")).is_empty());
}

#[test]
fn a_list_that_lost_more_than_half_of_its_ids_is_doubtful() {
    let file = "file: a.txt";
    assert_eq!(
        doubts(file, &ids(100), &ids(49)).unwrap(),
        "policy.yaml:3:21: the list a shrank from 100 to 49 IDs, less than half: restore the file; if it is right, send SIGHUP to the decider to confirm it, or add allowShrink: true to the list"
    );
    for (old, new, doubtful) in [
        (100, 50, false),
        (100, 1000, false),
        (11, 6, false),
        (11, 5, true),
        (10, 4, true),
        // Short lists are edited by hand.
        (9, 1, false),
    ] {
        let found = doubts(file, &ids(old), &ids(new));
        assert_eq!(found.is_some(), doubtful, "{old} to {new}: {found:?}");
    }
    let may_shrink = "file: a.txt, allowShrink: true";
    assert_eq!(doubts(may_shrink, &ids(100), &ids(1)), None);
    let may_be_empty = "file: a.txt, allowEmpty: true";
    assert!(doubts(may_be_empty, &ids(100), "").is_some());
}

#[test]
fn a_list_that_shrank_and_lost_the_end_of_its_last_line_is_doubtful() {
    let cut = |list: String| list.trim_end().to_owned();
    let file = "file: a.txt";
    let doubt = doubts(file, &ids(100), &cut(ids(80))).unwrap();
    assert!(
        doubt
            .contains("from 100 to 80 IDs and its last line has no end, so it may be half written"),
        "{doubt}"
    );
    assert_eq!(doubts(file, &ids(100), &cut(ids(100))), None);
    assert_eq!(doubts(file, &cut(ids(100)), &cut(ids(80))), None);
    assert_eq!(doubts(file, &ids(9), &cut(ids(8))), None);
}

#[test]
fn a_list_in_the_policy_is_never_doubtful() {
    let values = |count: usize| {
        let ids = ids(count);
        let ids: Vec<_> = ids.lines().collect();
        with_file(&format!("values: [{}]", ids.join(", ")), "").unwrap()
    };
    assert!(values(1).doubts(&values(100)).is_none());
}

#[test]
fn a_minimum_is_suggested_for_files_without_one() {
    let suggested = |definition: &str, content: &str| {
        let policy = with_file(definition, content).unwrap();
        policy.suggested_minimums().next().map(|(_, least)| least)
    };
    assert_eq!(suggested("file: a.txt", &ids(101)), Some(50));
    assert_eq!(suggested("file: a.txt", &ids(3)), None);
    assert_eq!(suggested("file: a.txt, atLeast: 1", &ids(100)), None);
    assert_eq!(suggested("file: a.txt, allowEmpty: true", &ids(100)), None);
    assert_eq!(suggested("values: [a, b, c, d]", ""), None);
}

/// The friends that are kept by `in` and by an expression, which should agree.
fn kept(definition: &str, content: &str, friends: &[&str]) -> Vec<u32> {
    let policy = with_file(definition, content).unwrap();
    let explanation = policy.explain(&Request {
        operation_id: "op",
        owner: "me",
        friends,
        now: std::time::SystemTime::UNIX_EPOCH,
    });
    match explanation.evaluation.verdict {
        importguard_core::Verdict::Modify(kept) => kept.indexes().to_vec(),
        importguard_core::Verdict::Allow => (0..).take(friends.len()).collect(),
        importguard_core::Verdict::Refuse(_) => Vec::new(),
    }
}

#[test]
fn ids_are_compared_byte_by_byte_unless_a_list_ignores_differences() {
    let friends = ["mallory", "Mallory", "mal lory", "MALLORY ", "malory"];
    for (definition, expected) in [
        ("file: a.txt", &[1, 2, 3, 4][..]),
        ("file: a.txt, fold: [case]", &[2, 3, 4]),
        ("file: a.txt, fold: [space]", &[1, 3, 4]),
        ("file: a.txt, fold: [case, space]", &[4]),
        ("values: [mallory], fold: [space, case]", &[4]),
    ] {
        assert_eq!(kept(definition, "mallory\n", &friends), expected);
        // The list's IDs are folded too.
        if definition.contains("case, space") {
            assert_eq!(kept(definition, "Mal Lory\n", &friends), expected);
        }
    }
}

#[test]
fn an_expression_folds_as_a_matcher_does() {
    let source = with_head(
        "lists: { a: { values: [Mallory], fold: [case] } }\nrules: [{ id: b, dropFriendIf: \"friend in a\", onError: skip }]",
    );
    let policy = Draft::read("policy.yaml", &source)
        .compile(&ListFiles::new())
        .unwrap();
    let evaluation = policy.evaluate(&Request {
        operation_id: "op",
        owner: "me",
        friends: &["MALLORY", "bob"],
        now: std::time::SystemTime::UNIX_EPOCH,
    });
    let importguard_core::Verdict::Modify(kept) = evaluation.verdict else {
        panic!("{evaluation:?}");
    };
    assert_eq!(kept.indexes(), [1]);
}

#[test]
fn an_explanation_says_how_ids_were_compared() {
    let policy = with_file("file: a.txt, fold: [case]", "mallory\n").unwrap();
    let explanation = policy.explain(&Request {
        operation_id: "op",
        owner: "me",
        friends: &["Mallory", "bob"],
        now: std::time::SystemTime::UNIX_EPOCH,
    });
    let told: Vec<_> = explanation
        .steps
        .iter()
        .map(|step| step.describe(&["Mallory", "bob"]))
        .collect();
    assert!(
        told.contains(&"removed 1: \"Mallory\" is in a as \"mallory\" (fold: case)".to_owned()),
        "{told:?}"
    );
}

#[test]
fn folding_costs_more() {
    let cost = |definition: &str| {
        let policy = with_file(definition, "mallory\n").unwrap();
        let rules = policy.cost().rules.iter();
        rules.map(|rule| rule.units).collect::<Vec<_>>()
    };
    let (exact, folded) = (cost("file: a.txt"), cost("file: a.txt, fold: [case]"));
    // 5, and 72 for each 64 bytes of an ID, for each of 10,000 friends.
    let more: Vec<_> = folded.iter().zip(&exact).map(|(a, b)| a - b).collect();
    assert_eq!(more, [2_930_000, 2_930_000]);
}

#[test]
fn folding_costs_more_where_an_expression_chooses_a_list() {
    let cost = |fold: &str| {
        let source = with_head(&format!(
            "lists: {{ a: {{ values: [x] }}, b: {{ values: [x]{fold} }} }}\nrules: [{{ id: r, dropFriendIf: \"friend in (friendCount > 9 ? a : b)\", onError: skip }}]"
        ));
        let policy = Draft::read("policy.yaml", &source).compile(&ListFiles::new());
        policy.unwrap().cost().rules[0].units
    };
    assert_eq!(cost(", fold: [case]") - cost(""), 2_930_000);
}
