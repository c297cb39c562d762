//! The JSON Schema of policies refuses what `policy check` refuses, as far as a schema can express it.

use std::{fs, process::Command};

use importguard_tests::{Binary, PolicyDir, workspace};
use jsonschema::Validator;
use serde_json::{Value, json};

fn schema() -> Validator {
    let text = fs::read_to_string(workspace().join("policy/policy.schema.json")).unwrap();
    let schema = serde_json::from_str(&text).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Whether `policy check` accepts it. JSON is YAML.
fn checks(policy: &Value) -> bool {
    let dir = PolicyDir::new(&policy.to_string(), &[]);
    let mut check = Command::new(Binary::AllInOne.path());
    check
        .current_dir(dir.dir())
        .args(["policy", "check", "policy.yaml"]);
    check.output().unwrap().status.success()
}

fn with_list(name: &str, list: Value) -> Value {
    json!({ "apiVersion": "importguard/v1", "name": "test", "lists": { name: list }, "rules": [] })
}

fn with_rule(rule: Value) -> Value {
    let mut policy = with_list("a", json!({ "values": ["x"] }));
    let mut with_id = json!({ "id": "r" });
    with_id
        .as_object_mut()
        .unwrap()
        .extend(rule.as_object().unwrap().clone());
    policy["rules"] = json!([with_id]);
    policy
}

#[test]
fn refuses_what_check_refuses() {
    let schema = schema();
    let list = json!({ "values": ["x"] });
    let refusal = json!({ "code": 5001, "message": "no" });
    let drops = json!({ "in": "a" });
    for policy in [
        with_list("1a", list.clone()),
        with_list("a-b", list.clone()),
        with_list("friend", list.clone()),
        with_list("null", list.clone()),
        with_list(&"a".repeat(65), list),
        with_list("b", json!({ "values": [" "] })),
        with_list("b", json!({ "values": ["x".repeat(257)] })),
        with_list("b", json!({ "live": "b", "fold": ["case"] })),
        with_list(
            "b",
            json!({ "file": "b.txt", "allowEmpty": true, "atLeast": 1 }),
        ),
        with_rule(json!({ "id": "self", "dropFriends": drops })),
        with_rule(json!({ "dropFriends": { "in": " " } })),
        with_rule(json!({ "dropFriends": { "prefixes": [" "] } })),
        with_rule(json!({ "dropFriends": { "matches": ["x".repeat(257)] } })),
        with_rule(json!({ "dropFriendIf": " " })),
        with_rule(json!({ "refuseOwner": drops })),
        with_rule(json!({ "refuseIf": "friendCount > 1" })),
        with_rule(json!({ "refuseOwner": drops, "refusal": { "code": 5001, "message": " " } })),
        with_rule(json!({ "limitFriends": { "max": 5, "onExceed": "refuse" } })),
        with_rule(json!({ "limitFriends": { "max": 4_294_967_296_u64, "onExceed": "truncate" } })),
        with_rule(
            json!({ "limitFriends": { "max": 5, "onExceed": "truncate" }, "refusal": refusal }),
        ),
        with_rule(json!({ "dropFriends": drops, "refusal": refusal })),
        with_rule(json!({ "dropFriends": drops, "onError": "skip" })),
        with_rule(json!({ "dropFriendIf": "friend == 'a'", "onError": "refuse" })),
        with_rule(
            json!({ "dropFriendIf": "friend == 'a'", "onError": "skip", "refusal": refusal }),
        ),
        with_rule(
            json!({ "dropFriends": drops, "mode": "shadow", "rollout": { "percent": 5, "otherwise": "shadow" } }),
        ),
    ] {
        assert!(!checks(&policy), "{policy}");
        assert!(!schema.is_valid(&policy), "{policy}");
    }
}

#[test]
fn accepts_what_check_accepts() {
    let schema = schema();
    let refusal = json!({ "code": 5001, "message": "no" });
    let drops = json!({ "in": "a" });
    for policy in [
        with_list("friends_1", json!({ "values": ["x y"], "fold": ["case"] })),
        with_list("inside", json!({ "live": "b" })),
        with_rule(json!({ "refuseOwner": drops, "refusal": refusal })),
        with_rule(json!({ "refuseIf": "friendCount > 1", "refusal": refusal })),
        with_rule(json!({ "refuseIf": "friendCount > 1", "refusal": refusal, "onError": "skip" })),
        with_rule(
            json!({ "limitFriends": { "max": 5, "onExceed": "refuse" }, "refusal": refusal }),
        ),
        with_rule(json!({ "limitFriends": { "max": 5, "onExceed": "truncate" } })),
        with_rule(json!({ "dropFriendIf": "friend == 'a'" })),
        with_rule(json!({ "dropFriendIf": "friend == 'a'", "refusal": refusal })),
        with_rule(json!({ "dropFriendIf": "int(friend) > 1", "onError": "skip" })),
        with_rule(
            json!({ "dropFriendIf": "int(friend) > 1", "onError": "refuse", "refusal": refusal }),
        ),
        with_rule(json!({ "dropFriends": drops, "when": "friendCount > 1", "refusal": refusal })),
        with_rule(json!({ "dropFriends": drops, "mode": "shadow", "rollout": 5 })),
        with_rule(
            json!({ "dropFriends": drops, "rollout": { "percent": 5, "otherwise": "shadow" } }),
        ),
        with_rule(json!({ "dropFriends": drops, "mode": "shadow", "rollout": { "percent": 5 } })),
    ] {
        assert!(checks(&policy), "{policy}");
        assert!(
            schema.is_valid(&policy),
            "{policy}: {:?}",
            schema.validate(&policy)
        );
    }
}
