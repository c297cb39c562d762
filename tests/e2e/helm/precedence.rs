//! Settings reach the pods, and take precedence over what the chart sets, wherever the chart sets it.

use std::fs;

use importguard_tests::{Chart, Manifests};
use serde_json::{Map, Value, json};

use super::{sample, values_of, with};
use crate::{
    detector::kubernetes::{DETECTOR, rules},
    kubernetes::{list, variable, workload, workloads},
};

/// Values with which the chart sets all variables that it can.
fn everything() -> Value {
    let values = json!({
        "callers": { "secret": "callers" },
        "tls": { "secret": "tls" },
        "nats": { "user": "gateway", "credentialsSecret": "gateways", "caSecret": "authority" },
        "liveLists": { "enabled": true, "user": "decider", "credentialsSecret": "deciders" },
        "detector": { "enabled": true, "rules": rules(), "user": "detector", "credentialsSecret": "detectors" },
        "deciderTLS": { "deciderSecret": "d", "gatewaySecret": "g" },
        "pseudonyms": { "secret": "pseudonyms" },
    });
    with(sample(), &values)
}

const PODS: [(&str, &str, &str); 3] = [
    ("StatefulSet", "importguard-gateway", "gateway"),
    ("Deployment", "importguard-decider", "decider"),
    ("Deployment", DETECTOR, "detector"),
];

/// The environment of a workload's container. Panics if a variable is there twice.
fn environment(release: &Manifests, kind: &str, name: &str) -> Map<String, Value> {
    let container = &release.one(kind, name)["spec"]["template"]["spec"]["containers"][0];
    let mut environment = Map::new();
    for variable in list(&container["env"]) {
        let value = variable.get("value").unwrap_or(&variable["valueFrom"]);
        let name = variable["name"].as_str().unwrap();
        let former = environment.insert(name.into(), value.clone());
        assert_eq!(former, None, "{name}");
    }
    environment
}

#[test]
fn each_variable_of_the_chart_can_be_replaced_and_removed() {
    // Services, probes and network policies depend on these, so other values are refused.
    let fixed = |name: &str| name.ends_with("_LISTEN");
    let Some(chart) = Chart::new() else {
        return;
    };
    let usual = chart.render(&everything()).unwrap();
    for (kind, workload, component) in PODS {
        let ours = environment(&usual, kind, workload).into_iter();
        let ours = ours.map(|(name, _)| name).filter(|name| {
            (name.starts_with("IMPORTGUARD_") || name.starts_with("NATS_")) && !fixed(name)
        });
        for name in ours {
            let value = match name.as_str() {
                "IMPORTGUARD_SPOOL_MAX_BYTES" => "7MiB",
                name if name.contains("_SHUTDOWN_") => "7s",
                _ => "tls://mine",
            };
            let with = |value: Value| {
                let own = json!({ component: { "settings": { name.clone(): value } } });
                let release = chart.render(&with(everything(), &own)).unwrap();
                environment(&release, kind, workload).remove(&name)
            };
            assert_eq!(with(json!(value)), Some(json!(value)), "{component} {name}");
            assert_eq!(with(json!(null)), None, "{component} {name}");
        }
    }
}

#[test]
fn a_setting_may_name_a_file_of_a_volume_of_the_operators() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let own = json!({
        "settings": { "NATS_TOKEN_FILE": "/etc/importguard/mine/token" },
        "extraVolumes": [{ "name": "mine", "secret": { "secretName": "tokens" } }],
        "extraVolumeMounts": [{ "name": "mine", "mountPath": "/etc/importguard/mine", "readOnly": true }],
    });
    // The volumes of the chart stay, also if it has none.
    let claim = json!({ "gateway": { "spool": { "type": "claim" } } });
    for values in [everything(), with(sample(), &claim)] {
        let components = PODS.map(|(_, _, component)| (component.to_owned(), own.clone()));
        let detector = json!({ "detector": { "enabled": true, "rules": rules() } });
        let usual = chart.render(&with(values.clone(), &detector)).unwrap();
        let components = with(detector, &json!(Map::from_iter(components)));
        let release = chart.render(&with(values, &components)).unwrap();
        for (kind, name, _) in PODS {
            let pod = |release: &Manifests| {
                let pod = &release.one(kind, name)["spec"]["template"]["spec"];
                let mounts = list(&pod["containers"][0]["volumeMounts"]).to_vec();
                (list(&pod["volumes"]).to_vec(), mounts)
            };
            let (mut volumes, mut mounts) = pod(&usual);
            volumes.extend(list(&own["extraVolumes"]).to_vec());
            mounts.extend(list(&own["extraVolumeMounts"]).to_vec());
            assert_eq!(pod(&release), (volumes, mounts), "{name}");
            let file = environment(&release, kind, name).remove("NATS_TOKEN_FILE");
            assert_eq!(file, Some(json!("/etc/importguard/mine/token")));
        }
    }
}

#[test]
fn secret_settings_come_from_a_secret_and_are_printed_nowhere() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let named = json!({ "settingsSecret": "importguard-settings" });
    let all = json!({ "gateway": named, "decider": named, "detector": named });
    let values = with(everything(), &all);
    let release = chart.render(&values).unwrap();
    for (kind, name, _) in PODS {
        let container = &release.one(kind, name)["spec"]["template"]["spec"]["containers"][0];
        let from = json!([{ "secretRef": { "name": "importguard-settings" } }]);
        assert_eq!(container["envFrom"], from, "{name}");
    }
    // The gateway's base path may be one of them.
    let test = chart.test_objects(&values).unwrap();
    let variables = &test.one("Pod", "importguard-test")["spec"]["containers"][0]["env"];
    let reference = json!({ "name": "IMPORTGUARD_BASE_PATH", "valueFrom": { "secretKeyRef": {
        "name": "importguard-settings", "key": "IMPORTGUARD_BASE_PATH", "optional": true,
    } } });
    assert!(list(variables).contains(&reference), "{variables}");
    let notes = fs::read_to_string(Chart::file("templates/NOTES.txt")).unwrap();
    assert!(!notes.contains("{{ $path }}"), "{notes}");
}

#[test]
fn resource_attributes_are_added_to_those_of_the_pod() {
    const POD: &str = "k8s.namespace.name=$(NAMESPACE),k8s.node.name=$(NODE)";
    let Some(chart) = Chart::new() else {
        return;
    };
    let attributes = |settings: Value| {
        let own = json!({ "gateway": { "settings": settings.clone() }, "decider": { "settings": settings } });
        let release = chart.render(&with(everything(), &own)).unwrap();
        [0, 1].map(|index| {
            let (kind, name, _) = PODS[index];
            let mut environment = environment(&release, kind, name);
            // What it refers to is there.
            for (variable, field) in [("NAMESPACE", "namespace"), ("POD", "name")] {
                if let Some(value) = environment.get(variable) {
                    let path = format!("metadata.{field}");
                    assert_eq!(value["fieldRef"]["fieldPath"], path);
                }
            }
            environment.remove("OTEL_RESOURCE_ATTRIBUTES")
        })
    };
    let [gateway, decider] = ["IMPORTGUARD_INSTANCE", "IMPORTGUARD_DECIDER_INSTANCE"]
        .map(|name| format!("k8s.pod.name=$({name}),{POD}"));
    assert_eq!(
        attributes(json!({})),
        [Some(json!(gateway)), Some(json!(decider))]
    );
    let own = "deployment.environment.name=staging,team=im";
    assert_eq!(
        attributes(json!({ "OTEL_RESOURCE_ATTRIBUTES": own })),
        [
            Some(json!(format!("{gateway},{own}"))),
            Some(json!(format!("{decider},{own}")))
        ]
    );
    assert_eq!(
        attributes(json!({ "OTEL_RESOURCE_ATTRIBUTES": null })),
        [None, None]
    );
    // Kubernetes expands only what `env` has, so a name in the settings needs another variable for that of the pod.
    let instance = json!({ "gateway": { "settings": { "IMPORTGUARD_INSTANCE": "mine" } } });
    let release = chart.render(&with(everything(), &instance)).unwrap();
    let environment = environment(&release, PODS[0].0, PODS[0].1);
    assert_eq!(
        environment["OTEL_RESOURCE_ATTRIBUTES"],
        format!("k8s.pod.name=$(POD),{POD}")
    );
    assert_eq!(environment["POD"]["fieldRef"]["fieldPath"], "metadata.name");
}

#[test]
fn settings_reach_the_pods_as_they_were_written() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let settings = json!({
        "IMPORTGUARD_MAX_BODY_BYTES": 4_000_000,
        "IMPORTGUARD_SHUTDOWN_GRACE": "3s",
        "OTEL_TRACES_SAMPLER": null,
        "OTEL_TRACES_SAMPLER_ARG": 0.25,
        // Kubernetes expands references.
        "RUST_LOG": "info,importguard=\"$(POD)\"",
    });
    let values = with(sample(), &json!({ "gateway": { "settings": settings } }));
    let release = chart.render(&values).unwrap();
    let gateway = workload(&release, "importguard-gateway");
    let container = &gateway["spec"]["template"]["spec"]["containers"][0];
    let value = |name| variable(container, name);
    assert_eq!(value("IMPORTGUARD_MAX_BODY_BYTES"), Some("4000000"));
    assert_eq!(value("IMPORTGUARD_SHUTDOWN_GRACE"), Some("3s"));
    assert_eq!(value("OTEL_TRACES_SAMPLER"), None);
    assert_eq!(value("OTEL_TRACES_SAMPLER_ARG"), Some("0.25"));
    let log = "info,importguard=\"$$(POD)\"";
    assert_eq!(value("RUST_LOG"), Some(log));
}

#[test]
fn a_pod_that_restarts_during_an_upgrade_has_the_settings_of_its_own_template() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let values = with(values_of("detector"), &values_of("nats-ca"));
    let release = chart.render(&with(sample(), &values)).unwrap();
    let mut pods = 0;
    for workload in workloads(&release) {
        pods += 1;
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        // It is there, so that pods of `deploy/kubernetes` lose theirs when a release adopts them.
        assert_eq!(container["envFrom"], json!([]), "{workload}");
    }
    assert_eq!(pods, 3);
}
