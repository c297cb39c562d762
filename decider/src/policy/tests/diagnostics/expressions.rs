//! Expressions and regular expressions.

use super::super::compile;
use super::{REFUSAL, rule, says};

#[test]
fn a_rule_whose_expression_can_fail_says_what_then() {
    for expression in [
        "dropFriendIf: \"friend == 'a'\"",
        "dropFriends: { prefixes: [a] }, when: friendCount > 1",
    ] {
        says(
            &rule(&format!("{{ id: a, {expression} }}")),
            "4:9 [a] this rule refuses imports when its expression fails, but has no refusal",
            "{ code: 5001, message: \"User not allowed to import friends\" }",
        );
        compile(&rule(&format!("{{ id: a, {expression}, onError: skip }}"))).unwrap();
        compile(&rule(&format!("{{ id: a, {expression}, {REFUSAL} }}"))).unwrap();
    }
    says(
        &rule(&format!(
            "{{ id: a, dropFriendIf: \"friend == 'a'\", onError: skip, {REFUSAL} }}"
        )),
        "4:58 [refusal] this rule never refuses",
        "at the end of the policy",
    );
}

#[test]
fn points_into_expressions() {
    let refused = |text: &str| format!("rules:\n- id: a\n  refuseIf: {text}\n  {REFUSAL}");
    says(
        &refused("frendCount > 1"),
        "5:13 [frendCount] unknown variable or list \"frendCount\"",
        "did you mean friendCount?",
    );
    says(
        &refused("\"ownerUserID == 'ü' && frendCount > 1\""),
        "5:36 [frendCount]",
        "did you mean friendCount?",
    );
    says(
        &refused("'friendCount + 1'"),
        "5:13 ['friendCount + 1'] this expression is of type int",
        "such as: friendCount > 50",
    );
    says(
        &refused("\"operationID == '\\u00fc' && frendCount > 1\""),
        "5:13 [\"operationID",
        "did you mean friendCount?",
    );
    says(&refused("friendCount >"), "5:26", "trusted)");
    says(
        &refused("|\n    friendCount > 1 &&\n    frendCount > 1"),
        "6:5 [f]",
        "did you mean friendCount?",
    );
    says(
        &refused("friend == 'a'"),
        "5:13 [friend] \"friend\" is available only in dropFriendIf",
        "as dropFriendIf",
    );
    says(
        &refused(&format!("ownerUserID == '{}'", "x".repeat(1024))),
        "5:13",
        "or put IDs into a list",
    );
}

#[test]
fn refuses_bad_and_large_regular_expressions() {
    let matches = |pattern: &str| {
        rule(&format!(
            "{{ id: a, dropFriends: {{ matches: [fine, {pattern}] }} }}"
        ))
    };
    says(
        &matches("\"(\""),
        "4:43 [\"(\"] invalid regular expression: unclosed group",
        "or use prefixes, suffixes or a list",
    );
    says(
        &matches("'(?=a)'"),
        "4:43 ['(?=a)'] invalid regular expression: look-around",
        "",
    );
    says(
        &matches("'(\\w{100}){100}'"),
        "4:43 ['(\\w{100}){100}'] invalid regular expression: it takes more than 1048576 bytes compiled",
        "",
    );
    says(&matches(&"x".repeat(257)), "4:43", "or a list");
    let many = ["'\\w{15}'"; 4].join(", ");
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ matches: [{many}] }} }}"
        )),
        "4:37 ['\\w{15}'] these regular expressions take more than 1048576 bytes compiled together",
        "split it into several rules",
    );
}
