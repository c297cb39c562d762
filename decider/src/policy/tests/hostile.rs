//! Hostile files: each must be rejected quickly.

use std::time::{Duration, Instant};

use super::{compile_source, with_head};
use crate::policy::{Draft, ListFiles, MAX_POLICY_BYTES};

/// Asserts that the policy is rejected with a message that contains `message`, and quickly even in a debug build on a busy machine.
#[track_caller]
fn refused(source: &str, message: &str) {
    let start = Instant::now();
    let shown = compile_source(source)
        .expect_err("this policy should not load")
        .to_string();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "took {:?}",
        start.elapsed()
    );
    assert!(
        shown.contains(message),
        "{}",
        shown.chars().take(2000).collect::<String>()
    );
    assert!(
        shown.len() < 100_000,
        "the message has {} bytes",
        shown.len()
    );
}

#[test]
fn refuses_what_is_not_yaml() {
    refused("a: [1, 2", "policy.yaml:1:9: invalid YAML");
    refused("a: b: c", "invalid YAML");
    refused("a: \"unclosed", "invalid YAML");
    refused("a:\n\t- b", "invalid YAML");
    refused("\u{0}\u{1}\u{7f}", "policy.yaml:1:");
}

#[test]
fn refuses_anchors_aliases_tags_and_second_documents() {
    refused(
        &with_head("rules: &all []"),
        "policy.yaml:3:8: anchors (&name) are not supported",
    );
    refused(
        &with_head("lists: &l {}\nrules: *l"),
        "policy.yaml:4:8: aliases (*name) are not supported",
    );
    refused(
        &with_head("rules: !!seq []"),
        "tags (!name) are not supported",
    );
    let tagged = with_head("rules: [{ id: a, dropFriendIf: !(friend in x) }]");
    let errors = compile_source(&tagged).unwrap_err();
    assert_eq!(errors.count(), 1, "{errors}");
    refused(
        &with_head("rules: []\n---\nname: other"),
        "a second document starts here",
    );
    refused(
        &with_head("rules: []\n? [a]\n: b"),
        "a key must be a string",
    );
    refused(
        &with_head("rules: []\n? {a: b}\n: b"),
        "a key must be a string",
    );
}

#[test]
fn accepts_a_document_marker_and_a_byte_order_mark() {
    compile_source(&format!("---\n{}...\n", with_head("rules: []"))).unwrap();
    compile_source(&format!("\u{feff}{}", with_head("rules: []"))).unwrap();
}

#[test]
fn refuses_billion_laughs_at_the_first_anchor() {
    let mut source = String::from("a0: &a0 [x, x]\n");
    for n in 1..30 {
        source.push_str(&format!("a{n}: &a{n} [*a{}, *a{0}]\n", n - 1));
    }
    refused(&source, "anchors (&name) are not supported");
}

#[test]
fn refuses_deep_nesting_of_every_kind() {
    for opening in ["[", "{a: ", "- ", "[{a: ", "? "] {
        let source = opening.repeat(MAX_POLICY_BYTES / opening.len() - 1);
        refused(&source, "policy.yaml:");
    }
    let indented: String = (0..1000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    refused(&indented, "nested more than 16 levels deep");
    refused(
        &format!("x: {}{}", "[".repeat(200), "]".repeat(200)),
        "nested more than 16 levels deep",
    );
}

#[test]
fn refuses_huge_files_of_small_things() {
    let largest = |part: &str| part.repeat(MAX_POLICY_BYTES / part.len());
    refused(&largest("- a\n"), "contains more than 100000 values");
    refused(
        &format!("[{}]", "a,".repeat(MAX_POLICY_BYTES / 2 - 1)),
        "contains more than 100000 values",
    );
    refused(
        &format!("{{{}}}", ",".repeat(MAX_POLICY_BYTES - 2)),
        "policy.yaml:",
    );
    refused(&largest("a\n"), "policy.yaml:");
    refused(&largest("a"), "expected a policy");
    refused(&largest("\n"), "the file is empty");
    refused(&largest("#"), "the file is empty");
    refused(&largest("a: "), "policy.yaml:");
    refused(&largest("\""), "policy.yaml:");
    refused(&largest("--- "), "policy.yaml:");
    refused(&largest("&a "), "policy.yaml:");
    refused(&largest("%YAML 1.2\n"), "policy.yaml:");
    let keys: String = (0..40_000).map(|n| format!("key{n}: 1\n")).collect();
    refused(&keys, "and 39903 more");
    let same: String = "key: 1\n".repeat(40_000);
    refused(&same, "duplicate key");
    refused(
        &format!("{}: 1", "k".repeat(MAX_POLICY_BYTES - 4)),
        "policy.yaml:",
    );
}

#[test]
fn refuses_a_file_that_is_too_large() {
    let source = format!("{}{}", with_head("rules: []"), "#".repeat(MAX_POLICY_BYTES));
    refused(&source, "bytes; the maximum is 1048576");
}

#[test]
fn finds_near_names_among_many_in_good_time() {
    let lists: String = (0..20_000)
        .map(|n| format!("  list_{n}: {{ values: [a] }}\n"))
        .collect();
    let rules: String = (0..5_000)
        .map(|n| format!("- {{ id: r{n}, dropFriends: {{ in: lsit_{n} }} }}\n"))
        .collect();
    refused(
        &with_head(&format!("lists:\n{lists}rules:\n{rules}")),
        "more",
    );
}

#[test]
fn a_draft_of_anything_says_which_lists_it_wants() {
    let source = "lists: { a: { file: x.txt }, b: { file: x.txt }, c: 7 }";
    let draft = Draft::read("p", source);
    assert_eq!(draft.list_files().collect::<Vec<_>>(), ["x.txt", "x.txt"]);
    assert!(draft.compile(&ListFiles::new()).is_err());
}

#[test]
fn compiles_no_more_expressions_than_a_policy_may_have() {
    let patterns = vec!["'[a-z0-9]{250}'"; 64].join(", ");
    let rules: String = (0..300)
        .map(|n| format!("- {{ id: r{n}, dropFriends: {{ matches: [{patterns}] }} }}\n"))
        .collect();
    refused(
        &with_head(&format!("rules:\n{rules}")),
        "the policy has more than 256 regular expressions",
    );
    let rules: String = (0..10_000)
        .map(|n| format!("- {{ id: r{n}, dropFriendIf: \"friend == ''\", onError: skip }}\n"))
        .collect();
    refused(
        &with_head(&format!("rules:\n{rules}")),
        "10000 rules; the maximum is 256",
    );
}
