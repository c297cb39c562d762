use super::{compile, compile_source, with_head};
use crate::lists::{LineError, ListError};
use crate::policy::{Draft, ListFiles};

/// What is said about a policy with these lines after its two first: `line:column "text" message = remedy` each.
fn said(rest: &str) -> Vec<String> {
    said_of(&with_head(rest))
}

fn said_of(source: &str) -> Vec<String> {
    let diagnostics = compile_source(source).expect_err("this policy should not load");
    diagnostics
        .iter()
        .map(|d| {
            let place = d
                .span
                .map(|span| format!("{}:{}", span.line, span.column))
                .unwrap_or_default();
            format!("{place} [{}] {} = {}", d.text, d.message, d.remedy)
        })
        .collect()
}

/// Exactly one thing is said, and it begins and ends like this.
#[track_caller]
fn says(rest: &str, begins: &str, ends: &str) {
    says_of(&with_head(rest), begins, ends);
}

#[track_caller]
fn says_of(source: &str, begins: &str, ends: &str) {
    let said = said_of(source);
    assert!(
        said.len() == 1 && said[0].starts_with(begins) && said[0].ends_with(ends),
        "{said:#?}"
    );
}

/// One rule on line 4.
fn rule(rule: &str) -> String {
    format!("rules:\n- {rule}")
}

const REFUSAL: &str = "refusal: { code: 5001, message: no }";

#[test]
fn shows_file_line_column_and_the_line_itself() {
    let error = compile("rules:\n  - id: a\n    refuseOwnr: { prefixes: [x] }")
        .unwrap_err()
        .to_string();
    let expected = "policy.yaml:5:5: unknown key \"refuseOwnr\" in a rule\n    5 |     refuseOwnr: { prefixes: [x] }\n      |     ^^^^^^^^^^\n      = did you mean \"refuseOwner\"?";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn reports_everything_together_from_top_to_bottom() {
    let said = said_of(
        "apiVersion: importguard/v2
name: 7
lists:
  bad-name: { values: [a] }
  gone: { file: gone.txt }
rules:
- id: self
  dropFriends: { in: gonne, sufixes: [x] }
- id: two
  refuseOwner: { prefixes: [] }
  limitFriends: { max: 0, onExceed: explode }
- dropFriends: { in: nowhere }
nobodyLeft: { code: 5950, message: x }
",
    );
    let places: Vec<_> = said
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "1:13", "2:7", "4:3", "5:17", "7:7", "8:22", "8:29", "10:28", "11:3", "11:24", "11:37",
            "12:3", "12:22", "13:21"
        ],
        "{said:#?}"
    );
}

#[test]
fn refuses_what_is_no_mapping() {
    says_of(
        "just words",
        "1:1 [just words] expected a policy, found the text \"just words\"",
        "\"rules:\"",
    );
    says_of(
        "",
        "1:1 [] the file is empty",
        "\"apiVersion: importguard/v1\"",
    );
    says_of(
        "# only a comment\n",
        "1:1 [#] the file is empty",
        "\"apiVersion: importguard/v1\"",
    );
    says_of(
        "- a",
        "1:1 [-] expected a policy, found a list",
        "\"rules:\"",
    );
}

#[test]
fn needs_version_name_and_rules() {
    let said = said_of("lists: {}");
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said[0].contains(
            "a policy needs \"apiVersion\" = add the line \"apiVersion: importguard/v1\""
        )
    );
    assert!(said[1].contains("a policy needs \"name\" = add the line \"name: default\""));
    assert!(said[2].contains("a policy needs \"rules\" = add \"rules:\""));
}

#[test]
fn refuses_another_version() {
    says_of(
        "apiVersion: importguard/v2\nname: a\nrules: []",
        "1:13 [importguard/v2] this importguard does not know the version \"importguard/v2\"",
        "write \"importguard/v1\", the only one there is",
    );
}

#[test]
fn refuses_unknown_keys_everywhere() {
    says(
        "rules: []\nrule: []",
        "4:1 [rule] unknown key \"rule\" in a policy",
        "did you mean \"rules\"?",
    );
    says(
        "rules: []\nlists: { a: { values: [], url: x } }",
        "4:27 [url] unknown key \"url\" in a list",
        "a list may have file, values",
    );
    says(
        &rule("{ id: a, dropFriends: { inn: x, prefixes: [a] } }"),
        "4:27 [inn] unknown key \"inn\" in a matcher",
        "did you mean \"in\"?",
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1, onExceed: truncate, maxi: 2 } }"),
        "4:56 [maxi] unknown key \"maxi\" in limitFriends",
        "did you mean \"max\"?",
    );
    says(
        "rules: []\nnobodyLeft: { code: 5002, message: x, text: y }",
        "4:39 [text] unknown key \"text\" in a refusal",
        "may have code, message, detail",
    );
}

#[test]
fn refuses_a_key_twice() {
    says(
        "rules: []\nrules: []",
        "4:1 [rules] the key \"rules\" stands here for the second time",
        "merge the two or remove one",
    );
}

#[test]
fn refuses_wrong_types() {
    says(
        "rules: {}",
        "3:8 [{] expected a list of rules, found a mapping of keys to values",
        "\"- id: some-name\"",
    );
    says(
        "rules:",
        "3:6 [:] expected a list of rules, found nothing",
        "\"- id: some-name\"",
    );
    says(
        &rule("word"),
        "4:3 [word] expected a rule, found the text \"word\"",
        "write - id: some-name",
    );
    says(
        &rule("{ id: 12, dropFriends: { prefixes: [a] } }"),
        "4:9 [12] expected a text, found the number 12",
        "put it in quotes: \"12\"",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: [true] } }"),
        "4:38 [true] expected a text, found true",
        "put it in quotes: \"true\"",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: a } }"),
        "4:37 [a] expected a list of texts, found the text \"a\"",
        "write [\"bot_\", \"test-\"]",
    );
    says(
        &rule("{ id: a, dropFriends: { in: [a] } }"),
        "4:31 [[] expected a text, found a list",
        "write a text in quotes",
    );
    says(
        &rule("{ id: a, dropFriends: blocked }"),
        "4:25 [blocked] expected a matcher, found the text \"blocked\"",
        "write { in: some_list }",
    );
    says(
        &rule("{ id: a, limitFriends: { max: \"500\", onExceed: truncate } }"),
        "4:33 [\"500\"] expected a whole number, found the text \"500\"",
        "write 500 without quotes",
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1.5, onExceed: truncate } }"),
        "4:33 [1.5] expected a whole number, found the number 1.5",
        "decimal digits only, such as 500",
    );
    says(
        "lists: [a]\nrules: []",
        "3:8 [[] expected lists by name, found a list",
        "{ file: lists/some.txt }",
    );
    says(
        "lists: { a: b }\nrules: []",
        "3:13 [b] expected a list, found the text \"b\"",
        "{ values: [\"user1\"] }",
    );
    says(
        "lists: { a: { values: [\"1\", 2] } }\nrules: []",
        "3:29 [2] expected a text, found the number 2",
        "put it in quotes: \"2\"",
    );
}

#[test]
fn refuses_empty_texts() {
    says(
        &rule("{ id: a, dropFriends: { prefixes: [\"\"] } }"),
        "4:38 [\"\"] this text is empty",
        "or remove the key",
    );
    says(
        "lists: { a: { file: ' ' } }\nrules: []",
        "3:21 [' '] this text is empty",
        "or remove the key",
    );
}

#[test]
fn a_rule_needs_an_id_of_its_own() {
    says(
        &rule("{ dropFriends: { prefixes: [a] } }"),
        "4:3 [{] a rule needs \"id\"",
        "add \"id: some-name\"; events name the rule by it",
    );
    says(
        "rules:\n- { id: a, dropFriends: { prefixes: [a] } }\n- { id: a, dropFriends: { prefixes: [b] } }",
        "5:9 [a] the rule on line 4 is called \"a\" too",
        "give one of them another id: events name rules by it",
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
            said.len() == 1 && said[0].contains("cannot be a name = use up to 64 letters"),
            "{said:?}"
        );
    }
}

#[test]
fn a_rule_does_one_thing() {
    says(
        &rule("{ id: a }"),
        "4:9 [a] this rule does not say what it does",
        "add one of refuseOwner, dropFriends, limitFriends, refuseIf, dropFriendIf",
    );
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ prefixes: [a] }}, refuseOwner: {{ prefixes: [a] }}, {REFUSAL} }}"
        )),
        "4:44 [refuseOwner] this rule has \"dropFriends\" and \"refuseOwner\", and a rule does one thing",
        "make two rules, each with an id of its own",
    );
}

#[test]
fn a_rule_that_refuses_needs_a_refusal_and_no_other_may_have_one() {
    let remedy = "add refusal: { code: 5001, message: \"User not allowed to import friends\" }";
    says(
        &rule("{ id: a, refuseOwner: { prefixes: [a] } }"),
        "4:9 [a] this rule refuses imports and does not say",
        remedy,
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1, onExceed: refuse } }"),
        "4:9 [a] this rule refuses imports and does not say",
        remedy,
    );
    for harmless in [
        "dropFriends: { prefixes: [a] }",
        "limitFriends: { max: 1, onExceed: truncate }",
    ] {
        let said = said(&rule(&format!("{{ id: a, {harmless}, {REFUSAL} }}")));
        assert!(
            said.len() == 1
                && said[0].contains(
                    "[refusal] this rule never refuses, so its refusal would never be sent"
                ),
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
        ("4999", "is outside what OpenIM leaves to callbacks"),
        ("10000", "is outside what OpenIM leaves to callbacks"),
        ("-1", "is outside what OpenIM leaves to callbacks"),
        ("5900", "tells of importguard's own failures"),
        ("5999", "tells of importguard's own failures"),
    ] {
        says(
            &format!("rules: []\nnobodyLeft: {{ code: {code}, message: x }}"),
            &format!("4:21 [{code}] the code {code} {why}"),
            "choose one of 5000 to 5899 or 6000 to 9999",
        );
    }
}

#[test]
fn a_refusal_needs_code_and_message_of_bearable_length() {
    says(
        "rules: []\nnobodyLeft: { message: x }",
        "4:13 [{] a refusal needs \"code\"",
        "5000 to 9999 without 5900 to 5999",
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
        "this text has 1025 bytes and may have 256 = shorten it",
    );
    says(
        &format!("rules: []\nnobodyLeft: {{ code: 5002, message: x, detail: {long} }}"),
        "4:47",
        "this text has 1025 bytes and may have 1024 = shorten it",
    );
}

#[test]
fn a_limit_needs_a_sensible_max_and_what_to_do() {
    says(
        &rule("{ id: a, limitFriends: { onExceed: truncate } }"),
        "4:26 [{] limitFriends needs \"max\"",
        "the most friends of one import",
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
            &format!("4:33 [{max}] max is {max} and may be 1 to 4294967295"),
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
        "4:25 [{] this matches nobody",
        "{ in: some_list }",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: [] } }"),
        "4:37 [[] this list is empty, so it matches nobody",
        "or remove the key",
    );
}

#[test]
fn refuses_lists_that_are_not_defined() {
    let lists = "lists: { blocked: { file: blocked.txt } }\n";
    says(
        &format!("{lists}{}", rule("{ id: a, dropFriends: { in: blockd } }")),
        "5:31 [blockd] there is no list \"blockd\"",
        "did you mean \"blocked\"?",
    );
    says(
        &format!(
            "{lists}{}",
            rule("{ id: a, dropFriends: { notIn: staff } }")
        ),
        "5:34 [staff] there is no list \"staff\"",
        "define it under \"lists\": staff: { file: lists/staff.txt }",
    );
}

#[test]
fn a_list_has_a_file_or_values() {
    says(
        "lists: { a: {} }\nrules: []",
        "3:10 [a] the list \"a\" does not say where its ids are",
        "{ values: [\"user1\"] }",
    );
    says(
        "lists: { a: { file: blocked.txt, values: [x] } }\nrules: []",
        "3:34 [values] a list has \"file\" or \"values\", and this one has both",
        "or make two lists",
    );
    for name in ["a-b", "1a", "\"\"", "ä"] {
        let said = said(&format!(
            "lists: {{ {name}: {{ values: [x] }} }}\nrules: []"
        ));
        assert!(
            said.len() == 1
                && said[0].contains("cannot be a list's name = use up to 64 letters, digits and _"),
            "{said:?}"
        );
    }
}

#[test]
fn a_broken_list_is_not_called_missing() {
    says(
        "lists: { a: 7 }\nrules: [{ id: a, dropFriends: { in: a } }]",
        "3:13 [7] expected a list",
        "}",
    );
}

#[test]
fn refuses_more_than_its_limits() {
    let rules: String = (0..257)
        .map(|n| format!("- {{ id: r{n}, dropFriends: {{ prefixes: [a] }} }}\n"))
        .collect();
    says(
        &format!("rules:\n{rules}"),
        "260:3 [{] there are 257 rules here and may be 256",
        "in one list",
    );
    let lists: String = (0..257)
        .map(|n| format!("  l{n}: {{ values: [a] }}\n"))
        .collect();
    says(
        &format!("rules: []\nlists:\n{lists}"),
        "261:3 [l256] there are 257 lists here and may be 256",
        "in one list",
    );
    let prefixes = vec!["p"; 65].join(", ");
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ prefixes: [{prefixes}] }} }}"
        )),
        "4:230 [p] there are 65 prefixes here and may be 64",
        "in one list",
    );
}

#[test]
fn points_into_the_policy_for_a_missing_list_file_and_into_the_list_for_a_bad_line() {
    let source = with_head(
        "lists: { a: { file: a.txt }, b: { file: b.txt }, c: { file: c.txt } }\nrules: []",
    );
    let mut files = ListFiles::new();
    let unreadable = ListError::Unreadable {
        reason: "is gone".to_owned(),
        remedy: "create it".to_owned(),
    };
    files.insert("a.txt".to_owned(), Err(unreadable));
    let bad = LineError {
        line: 7,
        column: 3,
        text: "ab# c".to_owned(),
        message: "bad",
        remedy: "mend",
    };
    files.insert(
        "b.txt".to_owned(),
        Err(ListError::Invalid {
            path: "dir/b.txt".to_owned(),
            lines: vec![bad],
        }),
    );
    let error = Draft::read("policy.yaml", &source)
        .compile(&files)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("policy.yaml:3:21: the list \"a.txt\" is gone\n"),
        "{error}"
    );
    assert!(
        error.contains("policy.yaml:3:61: the list \"c.txt\" was not loaded\n"),
        "{error}"
    );
    assert!(
        error.contains("dir/b.txt:7:3: bad\n    7 | ab# c\n      |   ^\n      = mend"),
        "{error}"
    );
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
            &format!("4:53 [{rollout}] rollout is {rollout} and may be 0 to 100"),
            "per cent of owners that the rule is for",
        );
    }
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
fn a_rule_whose_expression_can_fail_says_what_then() {
    for expression in [
        "dropFriendIf: \"friend == 'a'\"",
        "dropFriends: { prefixes: [a] }, when: friendCount > 1",
    ] {
        says(
            &rule(&format!("{{ id: a, {expression} }}")),
            "4:9 [a] this rule refuses imports when its expression fails, and does not say",
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
        "5:13 [frendCount] there is no variable or list \"frendCount\"",
        "did you mean friendCount?",
    );
    says(
        &refused("\"ownerUserID == 'ü' && frendCount > 1\""),
        "5:36 [frendCount]",
        "did you mean friendCount?",
    );
    says(
        &refused("'friendCount + 1'"),
        "5:13 ['friendCount + 1'] this expression comes to a whole number",
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
        "5:13 [friend] \"friend\" is known in dropFriendIf only",
        "as dropFriendIf",
    );
    says(
        &refused(&format!("ownerUserID == '{}'", "x".repeat(1024))),
        "5:13",
        "or put ids into a list",
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
            said.len() == 1
                && said[0].contains("this is always false, so the rule never does anything"),
            "{said:?}"
        );
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
        "4:43 [\"(\"] this regular expression cannot be used: unclosed group",
        "syntax of Rust's regex crate; prefixes, suffixes and lists need none",
    );
    says(
        &matches("'(?=a)'"),
        "4:43 ['(?=a)'] this regular expression cannot be used: look-around",
        "",
    );
    says(
        &matches("'(\\w{100}){100}'"),
        "4:43 ['(\\w{100}){100}'] this regular expression cannot be used: it takes more than 1048576 bytes compiled",
        "",
    );
    says(&matches(&"x".repeat(257)), "4:43", "need none");
    let many = ["'\\w{15}'"; 4].join(", ");
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ matches: [{many}] }} }}"
        )),
        "4:37 ['\\w{15}'] these regular expressions take more than 1048576 bytes compiled together",
        "make several rules of it",
    );
}

#[test]
fn a_lists_name_means_nothing_else_in_expressions() {
    for name in ["friend", "now", "ownerUserID", "in", "true", "int"] {
        let said = said(&format!(
            "lists: {{ {name}: {{ values: [x] }} }}\nrules: []"
        ));
        assert!(
            said.len() == 1
                && said[0]
                    .contains("has a meaning of its own in expressions = choose another name")
                || name == "true",
            "{said:?}"
        );
    }
}
