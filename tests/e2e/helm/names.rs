//! Names of what the operator creates.

use importguard_tests::Chart;
use serde_json::{Value, json};

use super::sample;
use crate::kubernetes::workloads;

/// Names that Kubernetes allows, and that YAML takes for a number, a boolean or nothing unless they are quoted.
const NAMES: [&str; 5] = ["1234", "1e3", "y", "on", "null"];

/// Adds to `found` what `find` finds in each field of `value`, at any depth; it is not searched further.
fn search<'a>(
    value: &'a Value,
    find: fn(&str, &'a Value) -> Option<Vec<&'a Value>>,
    found: &mut Vec<&'a Value>,
) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| search(item, find, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match find(key, value) {
                    Some(values) => found.extend(values),
                    None => search(value, find, found),
                }
            }
        }
        _ => (),
    }
}

/// The values of a field that names Secrets or ConfigMaps.
fn references<'a>(key: &str, value: &'a Value) -> Option<Vec<&'a Value>> {
    match (key, value) {
        ("secretName" | "storageClassName", _) => Some(vec![value]),
        ("configMap" | "imagePullSecrets", Value::Array(items)) => {
            Some(items.iter().map(|item| &item["name"]).collect())
        }
        ("configMap" | "imagePullSecrets", _) => Some(vec![&value["name"]]),
        _ => None,
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
            search(object, references, &mut found);
        }
        let named = found.iter().filter(|found| ***found == *name).count();
        assert!(named >= 16, "{name}: {found:?}");
        assert!(
            found.iter().all(|found| found.is_string()),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn every_pod_can_be_pulled_with_the_secrets() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let values = json!({
        "imagePullSecrets": ["registry"],
        "natsServer": { "enabled": true },
        "detector": { "enabled": true, "existingConfigMap": "rules" },
    });
    let values = super::with(sample(), &values);
    let (release, test) = (chart.render(&values), chart.test_objects(&values));
    let (release, test) = (release.unwrap(), test.unwrap());
    let workloads = workloads(&release).map(|workload| &workload["spec"]["template"]["spec"]);
    let pods = workloads.chain(test.all("Pod").map(|pod| &pod["spec"]));
    let secrets: Vec<_> = pods.map(|pod| pod["imagePullSecrets"].clone()).collect();
    assert_eq!(secrets, vec![json!([{ "name": "registry" }]); 5]);
}

/// The values of labels, and a namespace.
fn labels<'a>(key: &str, value: &'a Value) -> Option<Vec<&'a Value>> {
    match (key, value) {
        ("labels" | "matchLabels", Value::Object(all)) => Some(all.values().collect()),
        ("namespace", _) => Some(vec![value]),
        _ => None,
    }
}

#[test]
fn a_release_may_have_a_name_that_yaml_takes_for_something_else() {
    let Some(chart) = Chart::new() else {
        return;
    };
    for name in NAMES {
        let mut releases = vec![chart.release(name, &sample())];
        // Services need a name that begins with a letter.
        if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let values = super::with(sample(), &json!({ "fullnameOverride": name }));
            releases.push(chart.release(name, &values));
        }
        for release in releases {
            let release = release.unwrap();
            let mut found = Vec::new();
            for object in release.resources() {
                assert!(object["metadata"]["name"].is_string(), "{name}: {object}");
                search(object, labels, &mut found);
            }
            assert!(found.iter().any(|found| **found == *name), "{name}");
            let other = found.iter().find(|found| !found.is_string());
            assert!(other.is_none(), "{name}: {other:?}");
        }
    }
}
