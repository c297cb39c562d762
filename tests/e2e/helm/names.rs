//! Names of what the operator creates.

use importguard_tests::Chart;
use serde_json::{Value, json};

use super::sample;

/// Names that Kubernetes allows, and that YAML takes for a number, a boolean or nothing unless they are quoted.
const NAMES: [&str; 5] = ["1234", "1e3", "y", "on", "null"];

/// The values of all fields that name a Secret or a ConfigMap in `value`.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "secretName" | "storageClassName" => found.push(value),
                    "configMap" | "imagePullSecrets" => {
                        let items = value
                            .as_array()
                            .map_or(std::slice::from_ref(value), |it| it);
                        found.extend(items.iter().map(|item| &item["name"]));
                    }
                    _ => references(value, found),
                }
            }
        }
        _ => (),
    }
}

#[test]
fn a_name_stays_a_name_whatever_yaml_takes_it_for() {
    let Some(chart) = Chart::new() else {
        return;
    };
    for name in NAMES {
        let values = json!({
            "policy": { "existingConfigMap": name },
            "callers": { "secret": name },
            "tls": { "secret": name },
            "nats": { "credentialsSecret": name, "caSecret": name },
            "liveLists": { "enabled": true, "credentialsSecret": name },
            "detector": { "enabled": true, "existingConfigMap": name, "credentialsSecret": name },
            "deciderTLS": { "deciderSecret": name, "gatewaySecret": name },
            "pseudonyms": { "secret": name },
            "gateway": { "spool": { "type": "claim", "storageClassName": name } },
            "imagePullSecrets": [name],
        });
        let release = chart.render(&values).unwrap();
        let test = chart.test_objects(&super::with(
            sample(),
            &json!({ "callers": { "secret": name } }),
        ));
        let test = test.unwrap();
        let mut found = Vec::new();
        for object in release.resources().iter().chain(test.resources()) {
            references(object, &mut found);
        }
        let named = found.iter().filter(|found| ***found == *name).count();
        assert!(named >= 16, "{name}: {found:?}");
        assert!(
            found.iter().all(|found| found.is_string()),
            "{name}: {found:?}"
        );
    }
}
