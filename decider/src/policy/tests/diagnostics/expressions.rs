//! Expressions and regular expressions.

use super::super::compile;
use super::{REFUSAL, rule, said, says};

#[test]
fn a_rule_whose_expression_can_fail_says_what_then() {
    for expression in [
        "dropFriendIf: \"int(friend) > 5\"",
        "dropFriendIf: \"['a'][friendCount] == friend\"",
        "dropFriendIf: \"friendCount < 5 || now.getHours(friend) > 5\"",
        "dropFriendIf: \"friendCount < 5 || timestamp(friend) < now\"",
        "dropFriendIf: \"double(friendCount) > 1.5\"",
        "dropFriends: { prefixes: [a] }, when: friendCount + 1 > 2",
        "dropFriends: { prefixes: [a] }, when: 10 / friendCount > 2",
        "dropFriends: { prefixes: [a] }, when: '-friendCount < 2'",
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
fn a_rule_whose_expression_cannot_fail_needs_no_on_error() {
    for expression in [
        "friend == 'a' || friend != ownerUserID && friend in ['a', 'b']",
        "friendCount > 5 && !(size(friend) <= 3)",
        "friend.startsWith(ownerUserID) || friend.endsWith('a') || friend.contains('b')",
        "friend + 'x' < ownerUserID",
        "['a', 'b'].exists(x, friend.startsWith(x))",
        "['a', 'b'].exists_one(x, friend.startsWith(x))",
        "now.getHours() < 8 || now.getDayOfWeek('Europe/Berlin') == 6",
        "now > timestamp('2026-01-01T00:00:00Z') && string(friendCount) == friend",
        "int(now) > -5",
    ] {
        let rules = format!("{{ id: a, dropFriendIf: \"{expression}\" }}");
        compile(&rule(&rules)).unwrap_or_else(|said| panic!("{expression}: {said}"));
    }
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
        "compare it with something: friendCount + 1 > 50",
    );
    says(
        &refused("\"operationID == '\\u00fc' && frendCount > 1\""),
        "5:13 [\"operationID",
        "did you mean friendCount?",
    );
    says(&refused("friendCount >"), "5:26", ", >=, in");
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
fn names_the_operators_for_words_of_other_languages() {
    let refused = |text: &str| format!("rules:\n- id: a\n  refuseIf: {text}\n  {REFUSAL}");
    for (expression, hint) in [
        (
            "friendCount > 5 and friendCount < 9",
            "write && for \"and\"",
        ),
        ("friendCount > 5 OR friendCount < 9", "write || for \"or\""),
        ("not (friendCount > 5)", "write ! for \"not\""),
        ("not friendCount > 5", "write ! for \"not\""),
        ("ownerUserID == 'this and that' &&", ", >=, in"),
        ("ownerUserID not in ['a']", "write !(… in …) for \"not in\""),
        ("friendCount = 5", "write == for \"=\""),
        ("friendCount <> 5", "write != for \"<>\""),
        ("friendCount > 5 & friendCount < 9", "write && for \"&\""),
        ("friendCount > 5 | friendCount < 9", "write || for \"|\""),
        ("friendCount === 5", "write == for \"===\""),
        ("friendCount !== 5", "write != for \"!==\""),
        ("friendCount => 5", "write >= for \"=>\""),
        ("friendCount =< 5", "write <= for \"=<\""),
        (
            "friendCount > 5 AND not friendCount = 9",
            "write && for \"and\"",
        ),
        ("ownerUserID =~ 'a'", "write .matches('…') for \"=~\""),
        ("ownerUserID ~ 'a'", "write .matches('…') for \"~\""),
        (
            "ownerUserID !~ 'a'",
            "write ! before it and .matches('…') for \"!~\"",
        ),
        (
            "ownerUserID like 'a%'",
            "write .startsWith('…'), .endsWith('…') or .contains('…') for \"like\"",
        ),
        ("ownerUserID == 'a =~ b' &&", ", >=, in"),
        (
            "ownerUserID == 'a = b' && ownerUserID.matches('^\\d')",
            "put an r before a string with \\, as in r'^\\d+$'; otherwise it starts an escape sequence",
        ),
    ] {
        says(&refused(expression), "5:", hint);
    }
}

#[test]
fn an_index_into_what_has_no_elements_is_reported_once_and_as_such() {
    let dropped = |text: &str| format!("rules:\n- id: a\n  dropFriendIf: {text}\n  {REFUSAL}");
    for (expression, expected) in [
        ("friend[0] == 'a'", "string has no elements"),
        (
            "friend.split('_')[0] == 'a'",
            "split needs a separator and a limit",
        ),
    ] {
        let said = said(&dropped(expression));
        assert!(
            said.len() == 1 && said[0].contains(expected) && !said[0].contains("_[_]"),
            "{said:?}"
        );
    }
}

#[test]
fn hints_name_no_variable_that_the_author_did_not_write() {
    let refused = |text: &str| format!("rules:\n- id: a\n  refuseIf: {text}\n  {REFUSAL}");
    for expression in [
        "requestedCount + 1",
        "requestedCount >",
        "requestedCount == 1.5",
        "requestedCount == '1' + operationID",
        "requestedCount in operationID",
        "!requestedCount",
        "operationID",
        "now",
        "[1].exists(x, x)",
        "requestedCount.exists(x, x == 1)",
    ] {
        for said in said(&refused(expression)) {
            let others = ["friend", "ownerUserID", "trusted", "some_list"];
            let named: Vec<_> = others.iter().filter(|name| said.contains(**name)).collect();
            assert!(named.is_empty(), "{expression}: {said}");
        }
    }
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

#[test]
fn points_into_expressions_of_several_lines() {
    let refused = |text: &str| format!("rules:\n- id: a\n  refuseIf: {text}\n  {REFUSAL}");
    let unknown = "unknown variable or list \"frendCount\"";
    let lines = "    friendCount > 1\n    && frendCount > 1\n";
    for (text, place) in [
        (format!("|\n{lines}"), "7:8 [frendCount]"),
        (format!("|- # why\n{lines}"), "7:8 [frendCount]"),
        (format!("|\n\n{lines}"), "8:8 [frendCount]"),
        (
            format!("|\n    'a' == 'b' ||\n\n{lines}"),
            "9:8 [frendCount]",
        ),
        (">\n    frendCount > 1\n".to_owned(), "6:5 [frendCount]"),
        (format!(">\n{lines}"), "7:8 [frendCount]"),
        (format!(">-\n\n{lines}\n\n"), "8:8 [frendCount]"),
        (format!("\"\n{}\"", lines.trim_end()), "7:8 [frendCount]"),
        (format!("'{}' # why", lines.trim()), "6:8 [frendCount]"),
        (lines.trim().to_owned(), "6:8 [frendCount]"),
    ] {
        says(&refused(&text), &format!("{place} {unknown}"), "?");
    }
    for block in ["|", ">"] {
        let text = format!("{block}\n    friendCount\n    >\n");
        says(&refused(&text), "7:6 [] ", "");
    }
    says(
        &refused("\"\\x20frendCount > 1\""),
        &format!("5:13 [\"\\x20frendCount > 1\"] {unknown}"),
        "?",
    );
}
