//! The shape of every policy file: keys, types and limits.

use super::{rule, said_of, says, says_of};

#[test]
fn refuses_what_is_no_mapping() {
    says_of(
        "just words",
        "1:1 [just words] expected a policy, found the string \"just words\"",
        "\"rules:\"",
    );
    says_of(
        "",
        " [] the file is empty",
        "\"apiVersion: importguard/v1\"",
    );
    says_of(
        "# only a comment\n",
        " [] the file is empty",
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
        "1:13 [importguard/v2] unsupported version \"importguard/v2\"",
        "write \"importguard/v1\", the only supported version",
    );
    says_of(
        "apiVersion: 1\nname: a\nrules: []",
        "1:13 [1] unsupported version \"1\"",
        "write \"importguard/v1\", the only supported version",
    );
}

#[test]
fn another_kind_of_file_is_one_error() {
    says_of(
        "policy: policy.yaml\ntests: [{ name: a }]",
        "1:1 [p] this is a test file, not a policy",
        "`importguard policy test` runs a test file",
    );
    says_of(
        "apiVersion: importguard/v1\nrules: [{ id: a, refusals: 2, within: 1m }]",
        "1:1 [a] this is a file of detector rules, not a policy",
        "`importguard detect --rules` uses detector rules",
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
        "rules: []\nlists: { a: { values: [x], url: x } }",
        "4:28 [url] unknown key \"url\" in a list definition",
        "a list definition may have file, values, live, allowEmpty, allowShrink, atLeast, fold, unless, mode",
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
        "4:1 [rules] duplicate key \"rules\"",
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
        "4:3 [word] expected a rule, found the string \"word\"",
        "write - id: some-name",
    );
    says(
        &rule("{ id: 12, dropFriends: { prefixes: [a] } }"),
        "4:9 [12] expected a string, found the number 12",
        "put it in quotes: \"12\"",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: [true] } }"),
        "4:38 [true] expected a string, found true",
        "put it in quotes: \"true\"",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: a } }"),
        "4:37 [a] expected a list of strings, found the string \"a\"",
        "write [\"bot_\", \"test-\"]",
    );
    says(
        &rule("{ id: a, dropFriends: { in: [a] } }"),
        "4:31 [[] in takes one list, without brackets",
        "for several lists, write a rule for each",
    );
    says(
        &rule("{ id: a, refuseOwner: { notIn: [a, b] }, refusal: { code: 5001, message: x } }"),
        "4:34 [[] notIn takes one list, without brackets",
        "\"!(friend in staff || friend in partners)\"",
    );
    says(
        &rule("{ id: a, dropFriends: blocked }"),
        "4:25 [blocked] expected a matcher, found the string \"blocked\"",
        "write { in: some_list }",
    );
    says(
        &rule("{ id: a, limitFriends: { max: \"500\", onExceed: truncate } }"),
        "4:33 [\"500\"] expected an integer, found the string \"500\"",
        "write 500 without quotes",
    );
    says(
        &rule("{ id: a, limitFriends: { max: 1.5, onExceed: truncate } }"),
        "4:33 [1.5] expected an integer, found the number 1.5",
        "decimal digits only",
    );
    says(
        "lists: [a]\nrules: []",
        "3:8 [[] expected lists by name, found a list",
        "{ file: lists/some.txt }",
    );
    says(
        "lists: { a: b }\nrules: []",
        "3:13 [b] expected a list definition, found the string \"b\"",
        "{ values: [\"user1\"] } or { live: some }",
    );
    says(
        "lists: { a: [b] }\nrules: []",
        "3:13 [[] expected a list definition, found a list",
        "{ values: [\"user1\"] } or { live: some }",
    );
    says(
        "lists: { a: { values: [\"1\", 2] } }\nrules: []",
        "3:29 [2] an ID that YAML reads as a number or a boolean needs quotes",
        "put it in quotes, as in \"10001\"",
    );
}

#[test]
fn says_what_is_wrong_with_escapes_tabs_and_percentages() {
    says(
        &rule("{ id: a, dropFriends: { matches: [\"^\\d+$\"] } }"),
        "4:",
        "use single quotes, as in '^\\d+$', or write \\\\ for each \\",
    );
    says(
        "rules:\n- id: a\n\tdropFriends: { prefixes: [a] }",
        "5:1 [] invalid YAML",
        "YAML does not allow tabs here: use spaces",
    );
    for (space, shown, name) in [
        ('\u{a0}', "", "a no-break space (U+00A0)"),
        (
            '\u{2003}',
            "",
            "a character that only looks like a space (U+2003)",
        ),
        ('\u{200b}', "\u{fffd}", "an invisible character (U+200B)"),
    ] {
        says(
            &format!("rules:\n- id: a\n {space}dropFriends: {{ prefixes: [a] }}\n  mode: off"),
            &format!("5:2 [{shown}] the indentation contains {name}"),
            "text copied from web pages may have such characters",
        );
    }
    says(
        "rules: []\n\u{a0}lists: {}",
        "4:1 [",
        "text copied from web pages may have such characters",
    );
    says(
        &rule("{ id: a, dropFriends: { prefixes: [a] }, rollout: 10% }"),
        "4:53 [10%] expected an integer, found the string \"10%\"",
        "write 10 without the %",
    );
}

#[test]
fn refuses_empty_texts() {
    says(
        &rule("{ id: a, dropFriends: { prefixes: [\"\"] } }"),
        "4:38 [\"\"] this string is empty",
        "or remove the key",
    );
    says(
        "lists: { a: { file: ' ' } }\nrules: []",
        "3:21 [' '] this string is empty",
        "or remove the key",
    );
}

#[test]
fn refuses_more_than_its_limits() {
    let rules: String = (0..257)
        .map(|n| format!("- {{ id: r{n}, dropFriends: {{ prefixes: [a] }} }}\n"))
        .collect();
    says(
        &format!("rules:\n{rules}"),
        "260:3 [{] 257 rules; the maximum is 256",
        "in one list",
    );
    let lists: String = (0..257)
        .map(|n| format!("  l{n}: {{ values: [a] }}\n"))
        .collect();
    says(
        &format!("rules: []\nlists:\n{lists}"),
        "261:3 [l256] 257 lists; the maximum is 256",
        "in one list",
    );
    let prefixes = vec!["p"; 65].join(", ");
    says(
        &rule(&format!(
            "{{ id: a, dropFriends: {{ prefixes: [{prefixes}] }} }}"
        )),
        "4:230 [p] 65 prefixes; the maximum is 64",
        "in one list",
    );
}
