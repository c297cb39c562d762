//! The chart's detector.

use importguard_tests::Chart;
use serde_json::{Value, json};

use super::{sample, with};
use crate::{
    detector::kubernetes::{DETECTOR, rules},
    kubernetes::{list, variable},
};

/// What an operator generates for these components of `deploy/kubernetes`: the chart makes it of `nats.url`.
pub(super) fn generated(components: &[String]) -> String {
    if !components.iter().any(|name| name == "detector") {
        return String::new();
    }
    let labels = format!(
        "{{ app.kubernetes.io/part-of: importguard, app.kubernetes.io/version: {} }}",
        env!("CARGO_PKG_VERSION")
    );
    format!(
        "configMapGenerator:\n  \
           - name: importguard-detector\n    \
             literals: [\"NATS_URL=nats://nats.nats:4222\"]\n    \
             options: {{ labels: {labels} }}\n"
    )
}

#[test]
fn changed_rules_or_settings_restart_the_detector_and_nothing_else() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let pods = |values: &Value| {
        let detector = json!({ "detector": { "enabled": true, "rules": rules() } });
        let values = with(with(sample(), &detector), values);
        let release = chart.render(&values).unwrap();
        let pod = |kind, name| release.one(kind, name)["spec"]["template"].clone();
        let decider = pod("Deployment", "importguard-decider");
        (pod("Deployment", DETECTOR), decider)
    };
    let usual = pods(&json!({}));
    for changed in [
        json!({ "rules": rules().replace("20", "30") }),
        json!({ "settings": { "IMPORTGUARD_DETECT_MEMORY": "32MiB" } }),
    ] {
        let changed = pods(&json!({ "detector": changed }));
        assert_ne!(changed.0, usual.0);
        assert_eq!(changed.1, usual.1);
    }
    let ca = pods(&json!({ "nats": { "caSecret": "importguard-nats-ca" } }));
    assert_ne!(ca.0, usual.0);
}

#[test]
fn it_has_what_its_values_say_and_is_not_there_without_them() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let release = chart.render(&sample()).unwrap();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    let detectors = release.resources().iter().map(name);
    assert_eq!(
        detectors.filter(|name| name.contains("detector")).count(),
        0
    );

    let values = json!({
        "nats": { "caSecret": "authority" },
        "detector": {
            "enabled": true, "rules": rules(), "user": "detector", "credentialsSecret": "password",
            "settings": { "NATS_INBOX_PREFIX": "_INBOX_other" },
        },
    });
    let release = chart.render(&with(sample(), &values)).unwrap();
    let data = &release.one("ConfigMap", "importguard-detector-rules")["data"];
    assert_eq!(data["detector.yaml"], rules());
    let pod = &release.one("Deployment", DETECTOR)["spec"]["template"]["spec"];
    let value = |name| variable(&pod["containers"][0], name);
    assert_eq!(value("NATS_USER"), Some("detector"));
    let file = "/etc/importguard/nats/password";
    assert_eq!(value("NATS_PASSWORD_FILE"), Some(file));
    assert_eq!(value("NATS_INBOX_PREFIX"), Some("_INBOX_other"));
    assert_eq!(value("NATS_CA"), Some("/etc/importguard/nats-ca/ca.crt"));
    assert_eq!(value("NATS_CREDS"), None);
    let secret = |volume: &str| {
        let mut volumes = list(&pod["volumes"]).iter();
        volumes.find(|it| it["name"] == volume).unwrap()["secret"]["secretName"].clone()
    };
    assert_eq!(secret("nats"), "password");
    assert_eq!(secret("nats-ca"), "authority");
}
