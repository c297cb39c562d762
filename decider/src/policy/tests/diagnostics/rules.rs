//! Rules: what they must and must not contain.

use super::super::compile;
use super::{REFUSAL, rule, said, says};

#[test]
fn a_rule_needs_an_id_of_its_own() {
    says(
        &rule("{ dropFriends: { prefixes: [a] } }"),
        "4:3 [{] a rule needs \"id\"",
        "add \"id: some-name\"; events identify the rule by it",
    );
    says(
        "rules:\n- { id: a, dropFriends: { prefixes: [a] } }\n- { id: a, dropFriends: { prefixes: [b] } }",
        "5:9 [a] the rule on line 4 also has the id \"a\"",
        "change one of them: events identify rules by id",
    );
    for id in ["self", "duplicate", "nobodyLeft"] {
        says(
            &rule(&format!("{{ id: {id}, dropFriends: {{ prefixes: [a] }} }}")),
            &format!("4:9 [{id}] \"{id}\" is the id of a built-in rule"),
            "choose another id",
        );
    }
    for id in ["a b", "-a", "ä", &"x".repeat(65)] {
        let said = said(&rule(&format!(
            "{{ id: \"{id}\", dropFriends: {{ prefixes: [a] }} }}"
        )));
        assert!(
            said.len() == 1 && said[0].contains("is not a valid name = use up to 64 letters"),
            "{said:?}"
        );
    }
}

#[test]
fn an_action_that_is_misspelt_is_not_called_missing() {
    says(
        &rule(&format!(
            "{{ id: a, refuseOwnr: {{ prefixes: [a] }}, {REFUSAL} }}"
        )),
        "4:12 [refuseOwnr] unknown key \"refuseOwnr\" in a rule",
        "did you mean \"refuseOwner\"?",
    );
}

#[test]
fn a_rule_does_one_thing() {
    says(
        &rule("{ id: a }"),
        "4:9 [a] this rule has no action",
        "add one of refuseOwner, dropFriends, limitFriends, refuseIf, dropFriendIf",
    );
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ prefixes: [a] }}, refuseOwner: {{ prefixes: [a] }}, {REFUSAL} }}"
        )),
        "4:44 [refuseOwner] this rule has \"dropFriends\" and \"refuseOwner\"; a rule has one action",
        "split it into two rules, each with its own id",
    );
}

#[test]
fn a_rule_that_refuses_needs_a_refusal_and_no_other_may_have_one() {
    let remedy = "add refusal: { code: 5001, message: \"User not allowed to import friends\" }";
    says(
        &rule("{ id: a, refuseOwner: { prefixes: [a] } }"),
        "4:9 [a] this rule refuses imports but has no refusal",
        remedy,
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1, onExceed: refuse } }"),
        "4:9 [a] this rule refuses imports but has no refusal",
        remedy,
    );
    for harmless in [
        "dropFriends: { prefixes: [a] }",
        "limitFriends: { max: 1, onExceed: truncate }",
    ] {
        let said = said(&rule(&format!("{{ id: a, {harmless}, {REFUSAL} }}")));
        assert!(
            said.len() == 1
                && said[0]
                    .contains("[refusal] this rule never refuses, so its refusal is never used"),
            "{said:?}"
        );
    }
}

#[test]
fn a_broken_refusal_is_not_called_missing() {
    says(
        &rule("{ id: a, refuseOwner: { prefixes: [a] }, refusal: none }"),
        "4:53 [none] expected a refusal",
        "}",
    );
}

#[test]
fn refuses_codes_that_are_not_the_policys() {
    for (code, why) in [
        ("4999", "is outside OpenIM's range for callbacks"),
        ("10000", "is outside OpenIM's range for callbacks"),
        ("-1", "is outside OpenIM's range for callbacks"),
        ("5900", "is reserved for importguard's own failures"),
        ("5999", "is reserved for importguard's own failures"),
    ] {
        says(
            &format!("rules: []\nnobodyLeft: {{ code: {code}, message: x }}"),
            &format!("4:21 [{code}] the code {code} {why}"),
            "choose a code from 5000 to 5899 or 6000 to 9999",
        );
    }
    for code in [5000, 5899, 6000, 9999] {
        let policy = format!("rules: []\nnobodyLeft: {{ code: {code}, message: x }}");
        assert!(compile(&policy).is_ok(), "{code}");
    }
}

#[test]
fn a_refusal_needs_code_and_message_of_bearable_length() {
    says(
        "rules: []\nnobodyLeft: { message: x }",
        "4:13 [{] a refusal needs \"code\"",
        "5000 to 9999 except 5900 to 5999",
    );
    says(
        "rules: []\nnobodyLeft: { code: 5002 }",
        "4:13 [{] a refusal needs \"message\"",
        "a short sentence",
    );
    let long = "x".repeat(1025);
    says(
        &format!("rules: []\nnobodyLeft: {{ code: 5002, message: {long} }}"),
        "4:36",
        "this string has 1025 bytes; the maximum is 256 = shorten it",
    );
    says(
        &format!("rules: []\nnobodyLeft: {{ code: 5002, message: x, detail: {long} }}"),
        "4:47",
        "this string has 1025 bytes; the maximum is 1024 = shorten it",
    );
}

#[test]
fn a_limit_needs_a_sensible_max_and_what_to_do() {
    says(
        &rule("{ id: a, limitFriends: { onExceed: truncate } }"),
        "4:26 [{] limitFriends needs \"max\"",
        "the maximum number of friends per import",
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1 } }"),
        "4:26 [{] limitFriends needs \"onExceed\"",
        "or \"onExceed: refuse\"",
    );
    for max in ["0", "-1", "4294967296"] {
        says(
            &rule(&format!(
                "{{ id: a, limitFriends: {{ max: {max}, onExceed: truncate }} }}"
            )),
            &format!("4:33 [{max}] max is {max}; it must be 1 to 4294967295"),
            "such as 500",
        );
    }
    says(
        &rule("{ id: a, limitFriends: { max: 1, onExceed: truncat } }"),
        "4:46 [truncat] onExceed cannot be \"truncat\"",
        "did you mean \"truncate\"?",
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1, onExceed: explode } }"),
        "4:46 [explode] onExceed cannot be \"explode\"",
        "write truncate or refuse",
    );
}

#[test]
fn a_matcher_matches_something() {
    says(
        &rule("{ id: a, dropFriends: {} }"),
        "4:25 [{] this matcher has no criteria",
        "{ in: some_list }",
    );
    says(
        &rule("{ id: a, dropFriends: { notMatch: [a] } }"),
        "4:27 [notMatch] unknown key \"notMatch\" in a matcher",
        "did you mean \"notMatches\"?",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: [] } }"),
        "4:37 [[] this list is empty, so it matches nothing",
        "or remove the key",
    );
    for (key, column) in [("notPrefixes", 40), ("notSuffixes", 40), ("notMatches", 39)] {
        says(
            &rule(&format!("{{ id: a, dropFriends: {{ {key}: [] }} }}")),
            &format!("4:{column} [[] this list is empty, so it matches everything"),
            "or remove the key",
        );
    }
}

#[test]
fn refuses_what_mode_rollout_and_on_error_cannot_be() {
    let drop = "id: a, dropFriends: { prefixes: [a] }";
    says(
        &rule(&format!("{{ {drop}, mode: shadw }}")),
        "4:50 [shadw] mode cannot be \"shadw\"",
        "did you mean \"shadow\"?",
    );
    says(
        &rule(&format!("{{ {drop}, mode: banana }}")),
        "4:50 [banana] mode cannot be",
        "write enforce or shadow or off",
    );
    for rollout in ["-1", "101"] {
        says(
            &rule(&format!("{{ {drop}, rollout: {rollout} }}")),
            &format!("4:53 [{rollout}] rollout is {rollout}; it must be 0 to 100"),
            "percentage of owners that the rule applies to",
        );
    }
    for (rollout, where_and_what, remedy) in [
        (
            "{ percent: 101 }",
            "4:64 [101] percent is 101; it must be 0 to 100",
            "percentage of owners that the rule applies to",
        ),
        (
            "{ otherwise: shadow }",
            "4:53 [{] rollout needs \"percent\"",
            "the percentage of owners that the rule applies to",
        ),
        (
            "{ percent: 10, otherwise: enforce }",
            "4:79 [enforce] otherwise cannot be \"enforce\"",
            "write shadow or off",
        ),
        (
            "{ percent: 10, enforce: 10 }",
            "4:68 [enforce] unknown key \"enforce\" in rollout",
            "percent, otherwise",
        ),
        (
            "[10]",
            "4:53 [[] expected an integer, found a list",
            "write decimal digits only",
        ),
    ] {
        says(
            &rule(&format!("{{ {drop}, rollout: {rollout} }}")),
            where_and_what,
            remedy,
        );
    }
    says(
        &rule(&format!(
            "{{ {drop}, mode: shadow, rollout: {{ percent: 10, otherwise: shadow }} }}"
        )),
        "4:82 [otherwise] the rule is in shadow for all owners",
        "so that the rule is enforced for its percentage of owners",
    );
    says(
        &rule(&format!("{{ {drop}, onError: skip }}")),
        "4:44 [onError] nothing in this rule can fail at run time",
        "with refuseIf, dropFriendIf or when",
    );
    says(
        &rule("{ id: a, dropFriendIf: \"friend == 'a'\", onError: ignore }"),
        "4:52 [ignore] onError cannot be \"ignore\"",
        "write skip or refuse",
    );
}

#[test]
fn refuses_rules_that_never_do_anything() {
    let refuse_all = format!("- {{ id: all, refuseIf: \"true\", {REFUSAL} }}\n");
    let after = "- { id: b, dropFriends: { prefixes: [a] } }\n- { id: c, dropFriends: { prefixes: [a] }, mode: off }";
    says(
        &format!("rules:\n{refuse_all}{after}"),
        "5:9 [b] this rule is never reached: \"all\" on line 4 refuses every import",
        "mode: shadow",
    );
    for harmless in [
        "mode: shadow",
        "mode: off",
        "rollout: 99",
        "when: friendCount > 1",
    ] {
        compile(&format!(
            "rules:\n- {{ id: all, refuseIf: \"true\", {harmless}, {REFUSAL} }}\n{after}"
        ))
        .unwrap();
    }
    for never in [
        "refuseIf: 1 > 2",
        "refuseIf: friendCount > 1, when: \"false\"",
    ] {
        let said = said(&rule(&format!("{{ id: a, {never}, {REFUSAL} }}")));
        assert!(
            said.len() == 1 && said[0].contains("this is always false, so the rule has no effect"),
            "{said:?}"
        );
    }
}

#[test]
fn a_rule_that_is_off_may_have_no_effect() {
    for never in [
        format!("refuseIf: \"false\", {REFUSAL}"),
        "dropFriendIf: 1 > 2".to_owned(),
        "dropFriends: { prefixes: [a] }, when: \"false\"".to_owned(),
    ] {
        let said = said(&rule(&format!("{{ id: a, {never} }}")));
        assert!(
            said.len() == 1 && said[0].ends_with("or disable it with mode: off"),
            "{said:?}"
        );
        let off = rule(&format!("{{ id: a, mode: off, {never} }}"));
        compile(&off).unwrap_or_else(|said| panic!("{never}: {said}"));
    }
}
