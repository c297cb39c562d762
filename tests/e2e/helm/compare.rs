//! What differs between two sets of Kubernetes objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kubernetes::list;

/// What only the chart's objects have.
const HELM_LABELS: [&str; 3] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

/// Rolls pods out when a setting changes. kustomize does this by the name of the ConfigMap, which ends with a hash of its content.
const CHECKSUM: &str = "checksum/settings";

/// Every difference, as `Kind name.path: left ≠ right`.
pub(super) fn differences(kustomize: &[Value], chart: &[Value]) -> Vec<String> {
    let kustomize = without_hashes(kustomize);
    let chart: Vec<_> = chart.iter().cloned().map(without_helm).collect();
    between_maps("", &objects(&kustomize), &objects(&chart))
}

/// The objects, with ConfigMaps under the names that they have without hashes.
fn without_hashes(objects: &[Value]) -> Vec<Value> {
    let mut text = Value::from(objects).to_string();
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap();
        if let ("ConfigMap", Some((stem, _))) = (object["kind"].as_str().unwrap(), hashed(name)) {
            text = text.replace(&format!("\"{name}\""), &format!("\"{stem}\""));
        }
    }
    serde_json::from_str(&text).unwrap()
}

/// The parts of a name that ends with kustomize's hash: ten characters, none of which is a vowel or looks like one.
fn hashed(name: &str) -> Option<(&str, &str)> {
    let (stem, hash) = name.rsplit_once('-')?;
    let of_hash = |character| "2456789bcdfghkmt".contains(character);
    (hash.len() == 10 && hash.chars().all(of_hash)).then_some((stem, hash))
}

/// The object without what only Helm needs, which it must have.
fn without_helm(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    let labels = metadata["labels"].as_object_mut().unwrap();
    for label in HELM_LABELS {
        let removed = labels.remove(label);
        assert!(removed.is_some(), "no label {label}: {labels:?}");
    }
    if labels.is_empty() {
        metadata.remove("labels");
    }
    let template = object.pointer_mut("/spec/template");
    if let Some(template) = template.filter(|template| reads_settings(template)) {
        let annotations = template.pointer_mut("/metadata/annotations").unwrap();
        let removed = annotations.as_object_mut().unwrap().remove(CHECKSUM);
        assert!(removed.is_some(), "no annotation {CHECKSUM}");
    }
    object
}

fn reads_settings(template: &Value) -> bool {
    template.pointer("/spec/containers/0/envFrom").is_some()
}

fn objects(all: &[Value]) -> BTreeMap<String, &Value> {
    all.iter()
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let name = text(&object["metadata"]["name"]);
            (format!("{} {name}", text(&object["kind"])), object)
        })
        .collect()
}

fn between(path: &str, left: &Value, right: &Value) -> Vec<String> {
    match (left, right) {
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => {
            between_maps(path, &entries(left, right), &entries(right, left))
        }
        _ if left == right => Vec::new(),
        _ => vec![format!("{path}: {left} ≠ {right}")],
    }
}

fn between_maps(
    path: &str,
    left: &BTreeMap<String, &Value>,
    right: &BTreeMap<String, &Value>,
) -> Vec<String> {
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    keys.into_iter()
        .flat_map(|key| {
            let path = format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
            match (left.get(key), right.get(key)) {
                (Some(left), Some(right)) => between(&path, left, right),
                (Some(left), None) => vec![format!("{path}: only kustomize has it: {left}")],
                (None, Some(right)) => vec![format!("{path}: only the chart has it: {right}")],
                (None, None) => Vec::new(),
            }
        })
        .collect()
}

/// The members of a map, or the items of a list: by what Kubernetes merges them by where all in both have it, otherwise by index.
fn entries<'a>(of: &'a Value, other: &Value) -> BTreeMap<String, &'a Value> {
    if let Value::Object(members) = of {
        let members = members.iter();
        return members.map(|(key, value)| (key.clone(), value)).collect();
    }
    let (items, others) = (list(of), list(other));
    for key in ["mountPath", "name"] {
        let (Some(items), Some(_)) = (by_key(items, key), by_key(others, key)) else {
            continue;
        };
        return items;
    }
    let numbered = items.iter().enumerate();
    numbered
        .map(|(index, item)| (format!("{index:02}"), item))
        .collect()
}

/// The items by their values of `key`, if each has another one.
fn by_key<'a>(items: &'a [Value], key: &str) -> Option<BTreeMap<String, &'a Value>> {
    let values = items
        .iter()
        .filter_map(|item| Some((item[key].as_str()?.to_owned(), item)));
    let values: BTreeMap<_, _> = values.collect();
    (values.len() == items.len()).then_some(values)
}

#[test]
fn names_each_difference() {
    use serde_json::json;
    let left = json!({ "a": { "b": 1, "env": [{ "name": "X", "value": "1" }, { "name": "Y" }] }, "only": [1] });
    let right = json!({ "a": { "b": 2, "env": [{ "name": "Y" }, { "name": "X", "value": "2" }] }, "c": true });
    assert_eq!(
        between("Kind name", &left, &right),
        [
            "Kind name.a.b: 1 ≠ 2",
            "Kind name.a.env.X.value: \"1\" ≠ \"2\"",
            "Kind name.c: only the chart has it: true",
            "Kind name.only: only kustomize has it: [1]",
        ]
    );
}
