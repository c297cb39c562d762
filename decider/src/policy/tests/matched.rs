//! What made a rule act.

use importguard_core::{FiredRule, Match, MatchedPart, Mode};

use super::{evaluation::with_lists, policy};
use crate::policy::{Policy, Request};

fn fired<S: AsRef<str>>(policy: &Policy, owner: &str, friends: &[S]) -> Vec<FiredRule> {
    let evaluation = policy.evaluate(&Request {
        operation_id: "op-1",
        now: std::time::SystemTime::UNIX_EPOCH,
        owner,
        friends,
    });
    evaluation.rules
}

/// The matches of the only rule that fired, as `part[indexes] count`.
fn matched<S: AsRef<str>>(policy: &Policy, owner: &str, friends: &[S]) -> Vec<String> {
    let rules = fired(policy, owner, friends);
    let [rule] = &rules[..] else {
        panic!("{rules:?}");
    };
    assert_eq!(rule.unlisted, 0);
    rule.matched.iter().map(described).collect()
}

fn described(matched: &Match) -> String {
    let part = match &matched.part {
        MatchedPart::List(hit) => match &hit.entry {
            Some(entry) => format!("list {} as {entry}", hit.list),
            None => format!("list {}", hit.list),
        },
        other => format!("{other:?}"),
    };
    format!("{part}{:?} {}", matched.friends, matched.count)
}

#[test]
fn an_owner_is_on_a_list_or_matches_a_text() {
    let policy = with_lists(
        "- { id: o, refuseOwner: { in: blocked, prefixes: [bot_, tmp_] }, refusal: { code: 5001, message: no } }",
    );
    assert_eq!(matched(&policy, "bad1", &["a"]), ["list blocked[] 0"]);
    assert_eq!(matched(&policy, "tmp_1", &["a"]), [r#"Prefix("tmp_")[] 0"#]);
    assert_eq!(fired(&policy, "me", &["a"]), []);
}

#[test]
fn removed_friends_are_grouped_by_the_part_that_they_match() {
    let policy = with_lists(
        r#"- { id: f, dropFriends: { in: blocked, prefixes: [bot_, tmp_], suffixes: [_x], matches: ["^q[0-9]$", "^r$"] } }"#,
    );
    let friends = [
        "a", "bot_1", "tmp_1", "bad2", "bot_2", "1_x", "q1", "r", "b",
    ];
    assert_eq!(
        matched(&policy, "me", &friends),
        [
            r#"Prefix("bot_")[1, 4] 2"#,
            r#"Prefix("tmp_")[2] 1"#,
            "list blocked[3] 1",
            r#"Suffix("_x")[5] 1"#,
            r#"Pattern("^q[0-9]$")[6] 1"#,
            r#"Pattern("^r$")[7] 1"#,
        ]
    );
}

#[test]
fn a_negative_part_is_named_without_its_alternatives() {
    for (part, expected) in [
        ("notIn: known", r#"NotInList("known")[1] 1"#),
        ("notPrefixes: [a, b]", "NoneOf(Prefixes)[1] 1"),
        ("notSuffixes: [a, b]", "NoneOf(Suffixes)[1] 1"),
        ("notMatches: [\"^[ab]\"]", "NoneOf(Patterns)[1] 1"),
    ] {
        let policy = with_lists(&format!("- {{ id: f, dropFriends: {{ {part} }} }}"));
        assert_eq!(matched(&policy, "me", &["a", "z", "b"]), [expected]);
    }
}

#[test]
fn an_entry_that_differs_from_the_id_is_named() {
    let policy = policy(
        "lists: { blocked: { values: [Mallory, eve], fold: [case, space] } }\n\
         rules: [{ id: f, dropFriends: { in: blocked } }]",
    );
    assert_eq!(
        matched(
            &policy,
            "me",
            &["MALLORY", "eve", "a", "mallory", "E ve", "mal lory"]
        ),
        [
            "list blocked as mallory[0, 5] 2",
            "list blocked[1, 3] 2",
            "list blocked as eve[4] 1",
        ]
    );
}

#[test]
fn a_limit_has_the_number_that_was_left() {
    let limit = |on_exceed| {
        with_lists(&format!(
            "- {{ id: f, dropFriends: {{ in: blocked }}, mode: off }}\n\
             - {{ id: l, limitFriends: {{ max: 2, onExceed: {on_exceed} }}, refusal: {{ code: 5100, message: many }} }}"
        ))
    };
    let friends = ["a", "b", "c", "d"];
    assert_eq!(matched(&limit("refuse"), "me", &friends), ["Limit(2)[] 4"]);
    let truncate = with_lists("- { id: l, limitFriends: { max: 2, onExceed: truncate } }");
    assert_eq!(matched(&truncate, "me", &friends), ["Limit(2)[] 4"]);
}

#[test]
fn an_expression_is_named_up_to_a_length() {
    let refuse = |source: &str| {
        with_lists(&format!(
            "- {{ id: r, refuseIf: '{source}', refusal: {{ code: 5104, message: no }} }}"
        ))
    };
    assert_eq!(
        matched(&refuse("friendCount > 1"), "me", &["a", "b"]),
        [r#"Expression("friendCount > 1")[] 0"#]
    );
    let long = format!("friendCount > 1 || ownerUserID == \"{}\"", "ü".repeat(200));
    let [only] = &matched(&refuse(&long), "me", &["a", "b"])[..] else {
        panic!("several");
    };
    assert!(only.ends_with("…\")[] 0") && only.len() < 290, "{only}");
    let each = with_lists("- { id: d, dropFriendIf: 'friend.startsWith(ownerUserID)' }");
    assert_eq!(
        matched(&each, "me", &["a", "me2", "me1"]),
        [r#"Expression("friend.startsWith(ownerUserID)")[1, 2] 2"#]
    );
}

#[test]
fn a_shadow_rule_says_what_it_would_have_acted_on() {
    let policy = with_lists("- { id: f, dropFriends: { in: blocked }, mode: shadow }");
    assert_eq!(
        matched(&policy, "me", &["a", "bad1"]),
        ["list blocked[1] 1"]
    );
    assert_eq!(fired(&policy, "me", &["bad1"])[0].mode, Mode::Shadow);
}

#[test]
fn the_built_in_rules_need_no_match() {
    let policy = with_lists("- { id: f, dropFriends: { in: blocked } }");
    let rules = fired(&policy, "me", &["me", "a", "a", "bad1"]);
    let matches = rules
        .iter()
        .map(|rule| (rule.id.as_str(), rule.matched.len()));
    let matches: Vec<_> = matches.collect();
    assert_eq!(matches, [("self", 0), ("duplicate", 0), ("f", 1)]);
}

#[test]
fn many_matches_are_counted_and_only_the_first_are_listed() {
    let bots = with_lists("- { id: f, dropFriends: { prefixes: [bot_] } }");
    let many: Vec<_> = (0..1000).map(|n| format!("bot_{n}")).collect();
    let rules = fired(&bots, "me", &many);
    let [only] = &rules[0].matched[..] else {
        panic!("{rules:?}");
    };
    assert_eq!((only.friends.len(), only.count), (20, 1000));

    let values: Vec<_> = (0..40).map(|n| format!("u{n}")).collect();
    let folded = |rules: String| {
        policy(&format!(
            "lists: {{ l: {{ values: [{}], fold: [case] }} }}\nrules:\n{rules}",
            values.join(", ")
        ))
    };
    let upper: Vec<_> = (0..40).map(|n| format!("U{n}")).collect();
    let one = folded("- { id: f, dropFriends: { in: l } }".to_owned());
    let rules = fired(&one, "me", &upper);
    assert_eq!((rules[0].matched.len(), rules[0].unlisted), (16, 24));

    let shadow =
        (0..100).map(|n| format!("- {{ id: f{n}, dropFriends: {{ in: l }}, mode: shadow }}"));
    let rules = fired(&folded(shadow.collect::<Vec<_>>().join("\n")), "me", &upper);
    let listed: usize = rules.iter().map(|rule| rule.matched.len()).sum();
    assert_eq!(listed, 100 + 64);
    for rule in &rules {
        let friends: u32 = rule.matched.iter().map(|it| it.count).sum();
        assert_eq!(friends + rule.unlisted, 40);
    }
}
