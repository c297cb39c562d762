//! What differs between two sets of Kubernetes objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::kubernetes::list;

/// What only the chart's objects have.
const HELM_LABELS: [&str; 3] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

/// Every difference, as `Kind name.path: left ≠ right`.
pub(super) fn differences(kustomize: &[Value], chart: &[Value]) -> Vec<String> {
    let kustomize = with_environments(kustomize);
    let chart: Vec<_> = chart.iter().cloned().map(without_helm).collect();
    between_maps("", &objects(&kustomize), &objects(&chart))
}

/// The objects, with the content of ConfigMaps of settings in the containers that read them: the chart has settings there only.
fn with_environments(objects: &[Value]) -> Vec<Value> {
    let sources = objects.iter().flat_map(sources);
    let read: BTreeSet<_> = sources
        .map(|source| source["configMapRef"]["name"].to_string())
        .collect();
    let is_settings = |object: &Value| {
        let name = object["metadata"]["name"].to_string();
        // That of `nats-ca` is for a detector, which need not be there.
        object["kind"] == "ConfigMap"
            && (read.contains(&name) || name.starts_with("\"importguard-nats-ca-"))
    };
    let (settings, others): (Vec<_>, Vec<_>) = objects.iter().cloned().partition(is_settings);
    let filled = others.into_iter().map(|mut object| {
        if !self::sources(&object).is_empty() {
            fill_environment(&mut object, &settings);
            drop_optional_secrets(&mut object);
        }
        object
    });
    filled.collect()
}

/// Where the container of a workload has its environment from.
fn sources(workload: &Value) -> &[Value] {
    list(&workload["spec"]["template"]["spec"]["containers"][0]["envFrom"])
}

/// Replaces `envFrom` by what it names. What `env` has takes precedence.
fn fill_environment(workload: &mut Value, settings: &[Value]) {
    let container = &mut workload["spec"]["template"]["spec"]["containers"][0];
    let own = list(&container["env"]).to_vec();
    let mut environment: BTreeMap<_, _> = BTreeMap::new();
    for source in list(&container["envFrom"]) {
        let source = &source["configMapRef"];
        let found = settings
            .iter()
            .find(|map| map["metadata"]["name"] == source["name"]);
        assert!(found.is_some() || source["optional"] == true, "{source}");
        for (name, value) in found
            .into_iter()
            .flat_map(|it| it["data"].as_object().unwrap())
        {
            environment.insert(name.clone(), json!({ "name": name, "value": value }));
        }
    }
    for variable in own {
        environment.insert(variable["name"].as_str().unwrap().to_owned(), variable);
    }
    container["env"] = environment.into_values().collect();
    container["envFrom"] = json!([]);
}

/// Optional Secrets are those of components that may be there or not: without the variable of such a file, the Secret is left out.
fn drop_optional_secrets(workload: &mut Value) {
    let pod = &mut workload["spec"]["template"]["spec"];
    let environment = pod["containers"][0]["env"].to_string();
    let mut unused = BTreeSet::new();
    for volume in pod["volumes"].as_array_mut().unwrap() {
        let name = volume["name"].as_str().unwrap().to_owned();
        let secret = volume.get_mut("secret").and_then(Value::as_object_mut);
        let optional = secret.and_then(|secret| secret.remove("optional"));
        if optional.is_some() && !environment.contains(&format!("/etc/importguard/{name}/")) {
            unused.insert(name);
        }
    }
    for place in ["/volumes", "/containers/0/volumeMounts"] {
        let items = pod.pointer_mut(place).unwrap().as_array_mut().unwrap();
        items.retain(|item| !unused.contains(item["name"].as_str().unwrap()));
    }
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
    object
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
