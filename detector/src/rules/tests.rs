use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;

use super::*;

const RULE: &str = "id: a, refusals: 2, within: 10m, list: suspects, for: 1h";

fn read(rules: &str) -> Result<Rules, Diagnostics> {
    Rules::parse(
        "detector.yaml",
        &format!("apiVersion: importguard/v1\nrules: {rules}\n"),
    )
}

/// Returns the only error in a file with these rules.
fn error(rules: &str) -> String {
    let errors = read(rules).unwrap_err();
    assert_eq!(errors.count(), 1, "{errors}");
    errors.iter().next().unwrap().on_one_line()
}

fn committed(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../policy")).join(name)
}

#[test]
fn reads_all_keys() {
    let rules = read(
        "[{ id: wide, description: x, differentFriends: 500, within: 1h 30m, only: { verdicts: [allow, modify], rules: [r], \
         codes: [5003], causes: [overloaded] }, except: { verdicts: [refuse], rules: [s], codes: [5001] }, list: l, for: 7d, \
         prolong: true }]",
    );
    let rules = rules.unwrap();
    let rule = rules.get(0).unwrap();
    assert_eq!(
        *rule,
        Rule {
            id: "wide".to_owned(),
            kind: Kind::DifferentFriends,
            least: 500,
            within: Duration::from_secs(5400),
            only: Filter {
                verdicts: vec!["allow", "modify"],
                rules: vec!["r".to_owned()],
                codes: vec![5003],
                causes: vec!["overloaded"],
            },
            except: Filter {
                verdicts: vec!["refuse"],
                rules: vec!["s".to_owned()],
                codes: vec![5001],
                causes: Vec::new(),
            },
            list: ListName::parse("l").unwrap(),
            duration: Duration::from_secs(7 * 86400),
            prolong: true,
        }
    );
    assert_eq!(rule.evidence(), "wide: 500 different friends within 1h 30m");
}

#[test]
fn the_longest_evidence_is_a_reason() {
    let id = "x".repeat(64);
    let rules = format!(
        "[{{ id: {id}, differentFriends: 100000, within: 23h 59m 59s, list: l, for: 1h }}]"
    );
    let evidence = read(&rules).unwrap().get(0).unwrap().evidence();
    assert!(
        importguard_lists::Reason::parse(&evidence).is_ok(),
        "{evidence}"
    );
}

#[test]
fn each_error_says_where_it_is_and_how_to_correct_it() {
    for (rules, expected) in [
        ("[]", "2:8: there are no rules: write at least one"),
        (
            "[{ refusals: 2, within: 1m, list: l, for: 1h }]",
            "2:9: a rule needs \"id\": add \"id: hammering\"",
        ),
        (
            "[{ id: a, within: 1m, list: l, for: 1h }]",
            "a rule needs \"refusals\" or \"differentFriends\"",
        ),
        (
            "[{ id: a, refusals: 2, differentFriends: 3, within: 1m, list: l, for: 1h }]",
            "2:31: a rule counts either refusals or differentFriends, not both: write two rules",
        ),
        (
            "[{ id: a, refusals: 0, within: 1m, list: l, for: 1h }]",
            "refusals is 0; it must be 1 to 10000",
        ),
        (
            "[{ id: a, refusals: 2, within: 600, list: l, for: 1h }]",
            "within has no unit: write for example 600s or 600m",
        ),
        (
            "[{ id: a, refusals: 2, within: soon, list: l, for: 1h }]",
            "within cannot be \"soon\": write a duration from 1s to 1d, such as 90s",
        ),
        (
            "[{ id: a, refusals: 2, within: 25h, list: l, for: 1h }]",
            "within is 25h; it must be 1s to 1d",
        ),
        (
            "[{ id: a, refusals: 2, within: 1500ms, list: l, for: 1h }]",
            "within is 1500ms; it must be 1s to 1d: write whole seconds, such as 90s or 10m",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: 0s }]",
            "for is 0s; it must be 1s to 365d",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: 2y }]",
            "for is 2y; it must be 1s to 365d: write at most 365d",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: forever }]",
            "for cannot be \"forever\": write a duration from 1s to 365d, such as 90s, 10m or 12h",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: a.b, for: 1h }]",
            "\"a.b\" is not a valid name of a live list",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l }]",
            "a rule needs \"for\": add \"for: 1h\"",
        ),
        (
            "[{ id: a, refusal: 2, refusals: 2, within: 1m, list: l, for: 1h }]",
            "2:18: unknown key \"refusal\" in a rule: did you mean \"refusals\"?",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: 1h, only: { verdicts: [refuse] } }]",
            "\"refusals\" counts decisions with the verdict refuse anyway: remove verdicts",
        ),
        (
            "[{ id: a, differentFriends: 2, within: 1m, list: l, for: 1h, except: { causes: [overloaded] } }]",
            "unknown key \"causes\" in except",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: 1h, only: { causes: [timeout] } }]",
            "causes cannot be \"timeout\"",
        ),
        (
            "[{ id: a, refusals: 2, within: 1m, list: l, for: 1h, only: { rules: [] } }]",
            "this list is empty: write at least one",
        ),
    ] {
        let error = error(rules);
        assert!(error.starts_with("detector.yaml:2:"), "{error}");
        assert!(error.contains(expected), "{expected}\n{error}");
    }
}

#[test]
fn a_policy_is_one_error() {
    let policy =
        "apiVersion: importguard/v1\nname: a\nrules: [{ id: a, dropFriends: { in: a } }]\n";
    let errors = Rules::parse("policy.yaml", policy).unwrap_err();
    assert_eq!(errors.count(), 1, "{errors}");
    assert!(
        errors
            .to_string()
            .contains("this is a policy, not a file of detector rules"),
        "{errors}"
    );
}

#[test]
fn two_rules_have_two_ids() {
    let error = error(&format!("[{{ {RULE} }}, {{ {RULE} }}]"));
    assert!(
        error.contains("duplicate rule \"a\": give each rule an ID of its own"),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let error = |path: &str| {
        let errors = Rules::load(Path::new(path)).unwrap_err();
        errors.iter().next().unwrap().on_one_line()
    };
    let missing = error("/nowhere/detector.yaml");
    assert!(
        missing.starts_with("/nowhere/detector.yaml: the file cannot be read from"),
        "{missing}"
    );
    assert!(missing.contains("IMPORTGUARD_DETECT_RULES"), "{missing}");
    let endless = error("/dev/zero");
    assert!(endless.contains("not a regular file"), "{endless}");
}

#[test]
fn the_sample_is_valid_and_names_the_schema() {
    let sample = std::fs::read_to_string(committed("detector.yaml")).unwrap();
    assert!(sample.starts_with("# yaml-language-server: $schema=detector.schema.json\n"));
    let rules = Rules::parse("detector.yaml", &sample).unwrap();
    let ids: Vec<_> = rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["hammering", "collecting"]);
}

/// The keys that the schema allows in each mapping are those that the reader lists when it finds an unknown key.
#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema = std::fs::read_to_string(committed("detector.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let rule = |more: &str| format!("[{{ {RULE}, {more} }}]");
    for (what, definition, rules) in [
        (
            "a file of rules",
            "",
            format!("[{{ {RULE} }}]\nzzzzzzzzz: 1"),
        ),
        ("a rule", "Rule", rule("zzzzzzzzz: 1")),
        ("only", "Only", rule("only: { zzzzzzzzz: 1 }")),
        ("except", "Except", rule("except: { zzzzzzzzz: 1 }")),
    ] {
        let error = read(&rules).unwrap_err();
        let remedy = &error.iter().next().unwrap().remedy;
        let prefix = format!("remove it; {what} may have ");
        let read: BTreeSet<&str> = remedy.strip_prefix(&prefix).unwrap().split(", ").collect();
        let described = match definition {
            "" => &schema,
            name => &schema["definitions"][name],
        };
        let properties = described["properties"].as_object().unwrap();
        let keys: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(read, keys, "{what}");
        assert_eq!(
            described["additionalProperties"],
            Value::Bool(false),
            "{what}"
        );
    }
}
