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
        "1:13 [importguard/v2] unsupported version \"importguard/v2\"",
        "write \"importguard/v1\", the only supported version",
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
        "a list may have file, values, live, allowEmpty, allowShrink, atLeast, fold, unless, mode",
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
        "4:31 [[] expected a string, found a list",
        "write a string in quotes",
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
        "3:13 [b] expected a list, found the string \"b\"",
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
