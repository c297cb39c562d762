use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;

use super::{compile_source, with_head};
use crate::policy::json_schema;

fn committed() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../policy/policy.schema.json"
    ))
}

/// `UPDATE=1 cargo test -p importguard-decider schema` regenerates it.
#[test]
fn the_committed_schema_is_current() {
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(committed(), json_schema()).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(
        committed == json_schema(),
        "policy/policy.schema.json is not what the types say: run UPDATE=1 cargo test -p importguard-decider schema"
    );
}

/// The keys that the schema allows at each position are those that the reader names when it finds an unknown one.
#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let unknown = [
        ("a policy", "", "rules: []\nzzzzzzzzz: 1"),
        (
            "a list definition",
            "List",
            "rules: []\nlists: { a: { values: [x], zzzzzzzzz: 1 } }",
        ),
        (
            "a rule",
            "Rule",
            "rules: [{ id: a, dropFriends: { prefixes: [a] }, zzzzzzzzz: 1 }]",
        ),
        (
            "a matcher",
            "Matcher",
            "rules: [{ id: a, dropFriends: { prefixes: [a], zzzzzzzzz: 1 } }]",
        ),
        (
            "limitFriends",
            "Limit",
            "rules: [{ id: a, limitFriends: { max: 1, onExceed: truncate, zzzzzzzzz: 1 } }]",
        ),
        (
            "a refusal",
            "Refusal",
            "rules: []\nnobodyLeft: { code: 5002, message: x, zzzzzzzzz: 1 }",
        ),
    ];
    for (what, definition, source) in unknown {
        let error = compile_source(&with_head(source)).unwrap_err();
        let remedy = &error.iter().next().unwrap().remedy;
        let prefix = format!("remove it; {what} may have ");
        let read: BTreeSet<&str> = remedy.strip_prefix(&prefix).unwrap().split(", ").collect();
        let described = match definition {
            "" => &schema,
            name => &schema["definitions"][name],
        };
        let properties = described["properties"].as_object().unwrap();
        let described_keys: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(read, described_keys, "{what}");
        assert_eq!(
            described["additionalProperties"],
            Value::Bool(false),
            "{what}"
        );
    }
}

#[test]
fn the_shipped_policy_names_the_schema() {
    let policy = std::fs::read_to_string(committed().with_file_name("policy.yaml")).unwrap();
    assert!(policy.starts_with("# yaml-language-server: $schema=policy.schema.json\n"));
}
