//! The Helm chart does what `deploy/kubernetes` does, object by object, and reports values that it cannot use.

mod compare;
mod detector;
mod import;
mod names;
mod ports;
mod precedence;
mod values;

use std::fs;

use importguard_tests::{
    Binary, Chart, Help, Kustomize, Manifests, Setting, assert_is_current, workspace,
};
use serde_json::{Map, Value, json};

use crate::kubernetes::{POLICY, variable};
use compare::differences;

/// The values that do the same as a component of `deploy/kubernetes`.
fn values_of(component: &str) -> Value {
    match component {
        "callers" => json!({ "callers": { "secret": "importguard-callers" } }),
        "decider-nats-credentials" => json!({ "liveLists": {
            "credentialsSecret": "importguard-decider-nats",
        } }),
        "decider-tls" => json!({ "deciderTLS": {
            "deciderSecret": "importguard-decider-tls", "gatewaySecret": "importguard-gateway-tls",
        } }),
        "detector" => json!({ "detector": {
            "enabled": true,
            "existingConfigMap": "importguard-detector-rules",
            "credentialsSecret": "importguard-detector-nats",
        } }),
        "fixed-replicas" => json!({
            "gateway": { "autoscaling": { "enabled": false } },
            "decider": { "autoscaling": { "enabled": false } },
        }),
        "lists-volume" => json!({ "policy": { "listsVolume": { "persistentVolumeClaim": {
            "claimName": "importguard-lists", "readOnly": true,
        } } } }),
        "live-lists" => json!({ "liveLists": { "enabled": true } }),
        "nats-ca" => json!({ "nats": { "caSecret": "importguard-nats-ca" } }),
        "nats-credentials" => json!({ "nats": { "credentialsSecret": "importguard-nats" } }),
        "prometheus-operator" => json!({ "prometheusOperator": { "enabled": true } }),
        "pseudonyms" => json!({ "pseudonyms": { "secret": "importguard-pseudonyms" } }),
        "spool-claim" => json!({ "gateway": { "spool": { "type": "claim" } } }),
        "tls" => json!({ "tls": { "secret": "importguard-tls" } }),
        other => {
            panic!("the component {other} has no equal in the chart: add it to its values and here")
        }
    }
}

/// The values that do the same as the base, whose ConfigMap with the policy the operator makes.
fn base() -> Value {
    json!({ "policy": { "existingConfigMap": "importguard-policy" } })
}

fn sample() -> Value {
    json!({ "policy": { "sample": true } })
}

/// Both, where the second one wins.
fn with(mut values: Value, more: &Value) -> Value {
    if let (Value::Object(into), Value::Object(from)) = (&mut values, more) {
        for (key, value) in from {
            let entry = into.entry(key.clone()).or_insert(Value::Null);
            *entry = with(entry.take(), value);
        }
        return values;
    }
    more.clone()
}

/// No component, each alone, every second one, the others, and all.
fn combinations(components: &[String]) -> Vec<Vec<String>> {
    let every_second = |first| components.iter().skip(first).step_by(2).cloned().collect();
    let alone = components.iter().map(|component| vec![component.clone()]);
    alone
        .chain([
            Vec::new(),
            every_second(0),
            every_second(1),
            components.to_vec(),
        ])
        .collect()
}

#[test]
fn the_chart_consists_of_what_the_manifests_consist_of() {
    let (Some(chart), Some(kustomize)) = (Chart::new(), Kustomize::new()) else {
        return;
    };
    let mut found = Vec::new();
    let mut compare = |what: &str, kustomize: Manifests, values: &Value| {
        let chart = chart.render(values).unwrap();
        let different = differences(kustomize.resources(), chart.resources());
        found.extend(different.into_iter().map(|line| format!("{what}: {line}")));
    };

    let components = kustomize.components();
    for mut chosen in combinations(&components) {
        // Without what needs them, the chart refuses credentials.
        if chosen.iter().any(|name| name == "decider-nats-credentials")
            && !chosen.iter().any(|name| name == "live-lists")
        {
            chosen.push("live-lists".to_owned());
        }
        let values = chosen
            .iter()
            .fold(base(), |values, name| with(values, &values_of(name)));
        let added = detector::generated(&chosen);
        let rendered = kustomize.base_with(&chosen, &added).unwrap();
        compare(&format!("base with {chosen:?}"), rendered, &values);
    }

    let try_out = json!({ "natsServer": { "enabled": true }, "tracing": { "endpoint": "" } });
    let rendered = kustomize.render("try-out").unwrap();
    compare("try-out", rendered, &with(sample(), &try_out));

    kustomize.write("production/policy.yaml", POLICY);
    let production = ["nats-credentials", "callers", "tls", "spool-claim"];
    let files = json!({ "policy": { "files": { "policy.yaml": POLICY } } });
    let values = production
        .iter()
        .fold(files, |values, name| with(values, &values_of(name)));
    let rendered = kustomize.render("production").unwrap();
    compare("production", rendered, &values);

    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn lint_has_nothing_to_say_about_any_combination() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let everything = [
        "callers",
        "decider-nats-credentials",
        "decider-tls",
        "detector",
        "live-lists",
        "nats-ca",
        "prometheus-operator",
        "spool-claim",
        "tls",
    ]
    .iter()
    .fold(sample(), |values, name| with(values, &values_of(name)));
    for values in [base(), sample(), everything] {
        let lint = chart.lint(&values);
        let output = String::from_utf8(lint.stdout).unwrap();
        assert!(lint.status.success(), "{values}: {output}");
        assert!(!output.contains("[WARNING]"), "{values}: {output}");
        for version in ["1.30", "1.37"] {
            let Some(conform) = chart.conform(&values, version) else {
                continue;
            };
            let output = String::from_utf8(conform.stdout).unwrap();
            assert!(conform.status.success(), "{values}: {output}");
            assert!(output.contains("Invalid: 0, Errors: 0"), "{output}");
        }
    }
}

#[test]
fn a_changed_setting_rolls_pods_out_and_a_changed_policy_does_not() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let pods = |values: &Value| {
        let release = chart.render(values).unwrap();
        [
            ("StatefulSet", "importguard-gateway"),
            ("Deployment", "importguard-decider"),
        ]
        .map(|(kind, name)| release.one(kind, name)["spec"]["template"].clone())
    };
    let usual = pods(&sample());
    let policy = json!({ "policy": { "files": { "policy.yaml": POLICY } } });
    assert_eq!(pods(&policy), usual);
    let changed = json!({ "gateway": { "settings": { "IMPORTGUARD_REQUEST_BUDGET": "1500ms" } } });
    let changed = pods(&with(sample(), &changed));
    assert_ne!(changed[0], usual[0]);
    assert_eq!(changed[1], usual[1]);
}

#[test]
fn deciders_and_gateways_have_their_own_passwords_for_nats() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let values = json!({
        "nats": { "user": "gateway", "credentialsSecret": "gateways" },
        "liveLists": { "enabled": true, "user": "decider", "credentialsSecret": "deciders" },
    });
    let release = chart.render(&with(sample(), &values)).unwrap();
    for (kind, name, user, secret) in [
        ("StatefulSet", "importguard-gateway", "gateway", "gateways"),
        ("Deployment", "importguard-decider", "decider", "deciders"),
    ] {
        let pod = &release.one(kind, name)["spec"]["template"]["spec"];
        let value = |name| variable(&pod["containers"][0], name);
        assert_eq!(value("NATS_USER"), Some(user));
        let file = "/etc/importguard/nats/password";
        assert_eq!(value("NATS_PASSWORD_FILE"), Some(file));
        assert_eq!(value("NATS_CREDS"), None);
        let volumes = pod["volumes"].as_array().unwrap();
        let nats = volumes.iter().find(|it| it["name"] == "nats").unwrap();
        assert_eq!(nats["secret"]["secretName"], secret);
    }
}

#[test]
fn set_file_may_write_the_dots_in_file_names_as_they_are() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let data = |files: Value| {
        let release = chart.render(&json!({ "policy": { "files": files } }));
        release.unwrap().one("ConfigMap", "importguard-policy")["data"].clone()
    };
    let plain = json!({ "policy.yaml": POLICY, "banned.2026.txt": "1\n" });
    // This is what Helm makes of `policy.files.policy.yaml=…`.
    let nested = json!({ "policy": { "yaml": POLICY }, "banned": { "2026": { "txt": "1\n" } } });
    assert_eq!(data(nested), plain);
    assert_eq!(data(plain.clone()), plain);
}

#[test]
fn two_releases_in_a_namespace_do_not_touch_each_other() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let values = with(sample(), &values_of("prometheus-operator"));
    let [one, other] = ["importguard", "staging"].map(|name| chart.release(name, &values).unwrap());
    for (ours, theirs) in [(&one, &other), (&other, &one)] {
        for object in ours.resources() {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let same =
                |their: &&Value| their["kind"] == *kind && their["metadata"]["name"] == *name;
            assert!(
                theirs.resources().iter().all(|their| !same(&their)),
                "{kind} {name}"
            );
            for selector in selectors(object) {
                let mut pods = theirs.resources().iter().filter_map(pod_labels);
                assert!(
                    pods.all(|labels| !selects(selector, labels)),
                    "{kind} {name}: {selector:?}"
                );
            }
        }
    }
}

/// The labels of the pods that an object makes.
fn pod_labels(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template/metadata/labels")
}

/// The labels by which an object selects pods.
fn selectors(object: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    let places: &[&str] = match object["kind"].as_str().unwrap() {
        "Service" => &["/spec/selector"],
        "ServiceMonitor" => &[],
        _ => &[
            "/spec/selector/matchLabels",
            "/spec/podSelector/matchLabels",
        ],
    };
    let values = places.iter().filter_map(|place| object.pointer(place));
    values.filter_map(Value::as_object)
}

fn selects(selector: &Map<String, Value>, labels: &Value) -> bool {
    selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn names_fit_into_labels_however_long_the_name_of_the_release_is() {
    let Some(chart) = Chart::new() else {
        return;
    };
    // The longest that Helm allows.
    let release = chart.release(&"a".repeat(53), &sample()).unwrap();
    let gateways = release.all("StatefulSet").next().unwrap();
    // Kubernetes labels pods with the name of their StatefulSet, a hyphen and a hash of ten characters.
    let name = gateways["metadata"]["name"].as_str().unwrap();
    assert!(name.len() + 11 <= 63, "{name}");
    let longest = release
        .resources()
        .iter()
        .filter_map(|object| object["metadata"]["labels"].as_object());
    for labels in longest.flat_map(Map::values) {
        assert!(labels.as_str().unwrap().len() <= 63, "{labels}");
    }
}

#[test]
fn the_notes_change_a_policy_without_dropping_its_lists() {
    let notes = fs::read_to_string(Chart::file("templates/NOTES.txt")).unwrap();
    // `replace` and a ConfigMap of policy.yaml alone drop every other key.
    assert!(!notes.contains("kubectl replace"), "{notes}");
    let files = "--from-file=policy.yaml --from-file=lists/";
    assert!(notes.contains(files), "{notes}");
    let commands = notes
        .lines()
        .filter(|line| line.contains("create configmap {{ .Values"));
    for command in commands {
        assert!(command.contains("{{ $policyFiles }}"), "{command}");
    }
}

#[test]
fn its_version_is_that_of_the_workspace() {
    let chart = fs::read_to_string(Chart::file("Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "no `{}` in Chart.yaml", line.trim());
    }
}

/// Charts cannot read files outside of their directory, so these are copied.
const COPIES: [(&str, &str); 3] = [
    ("policy/policy.yaml", "files/policy.yaml"),
    ("policy/lists/blocked.txt", "files/blocked.txt"),
    (
        "deploy/prometheus/importguard.rules.yaml",
        "files/importguard.rules.yaml",
    ),
];

#[test]
fn the_chart_has_copies_of_what_it_cannot_refer_to() {
    for (original, copy) in COPIES {
        let original = fs::read_to_string(workspace().join(original)).unwrap();
        assert_is_current(&Chart::file(copy), &original);
    }
    let path = Chart::file("values.schema.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let pods: [(_, _, &[&str]); 3] = [
        ("gateway", Binary::Gateway, &[]),
        ("decider", Binary::Decider, &[]),
        ("detector", Binary::AllInOne, &["detect"]),
    ];
    for (name, binary, command) in pods {
        let help = Help::of(binary, command);
        let settings = help.settings().filter_map(|setting| {
            let name = setting.env.clone()?;
            let ours = name.starts_with("IMPORTGUARD_") || name.starts_with("NATS_");
            ours.then(|| (name, json!({ "$ref": definition(setting) })))
        });
        let settings: Map<_, _> = settings.collect();
        assert!(settings.len() > 10, "{settings:?}");
        let place = format!("/properties/{name}/properties/settings/properties");
        *schema.pointer_mut(&place).unwrap() = settings.into();
    }
    let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    assert_is_current(&path, &schema);
}

/// What the chart's schema checks a setting by.
fn definition(setting: &Setting) -> &'static str {
    match setting.flag.split_once(" <") {
        Some((_, "DURATION>")) if setting.text.contains("`never`") => "#/$defs/durationOrNever",
        Some((_, "DURATION>")) => "#/$defs/duration",
        Some((_, "SIZE>")) => "#/$defs/size",
        Some((_, "COUNT>")) => "#/$defs/count",
        _ => "#/$defs/setting",
    }
}
