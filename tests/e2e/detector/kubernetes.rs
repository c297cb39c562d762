//! The component `detector` of `deploy/kubernetes`.

use std::{collections::BTreeMap, fs};

use importguard_tests::{
    Binary, Detector, Help, Kustomize, Manifests, MountedSecret, SOON, Settings, workspace,
};
use serde_json::{Value, json};

use super::world::{THREE, entered, nats, publish, refusal};
use crate::kubernetes::{list, workload};

pub(crate) const DETECTOR: &str = "importguard-detector";

const CREDENTIALS: &str = "/etc/importguard/nats/nats.creds";

/// What an operator generates for the component.
pub(crate) const GENERATED: &str = r#"configMapGenerator:
  - name: importguard-detector
    namespace: importguard
    literals: ["NATS_URL=nats://nats.nats:4222"]
  - name: importguard-detector-rules
    namespace: importguard
    files: [detector.yaml]
"#;

/// The project's rules for a try-out.
pub(crate) fn rules() -> String {
    fs::read_to_string(workspace().join("policy/detector.yaml")).unwrap()
}

/// The base with these components and these rules.
fn with_rules(kustomize: &Kustomize, components: &[&str], rules: &str) -> Manifests {
    kustomize.write("mine/detector.yaml", rules);
    kustomize.base_with(components, GENERATED).unwrap()
}

fn pod(manifests: &Manifests) -> &Value {
    &workload(manifests, DETECTOR)["spec"]["template"]
}

/// The environment of its container, whose ConfigMaps are there or optional.
fn environment(manifests: &Manifests) -> BTreeMap<String, String> {
    let container = &pod(manifests)["spec"]["containers"][0];
    let mut variables = BTreeMap::new();
    for source in list(&container["envFrom"]) {
        let source = &source["configMapRef"];
        let mut maps = manifests.all("ConfigMap");
        let map = maps.find(|map| map["metadata"]["name"] == source["name"]);
        assert!(map.is_some() || source["optional"] == true, "{source}");
        let data = map.and_then(|map| map["data"].as_object());
        for (name, value) in data.into_iter().flatten() {
            variables.insert(name.clone(), value.as_str().unwrap().to_owned());
        }
    }
    for variable in list(&container["env"]) {
        let text = |key: &str| variable[key].as_str().unwrap().to_owned();
        variables.insert(text("name"), text("value"));
    }
    variables
}

#[test]
fn one_detector_runs_with_the_least_rights_and_ends_before_the_next_one_starts() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let manifests = with_rules(&kustomize, &["detector"], &rules());
    let workload = workload(&manifests, DETECTOR);
    assert_eq!(workload["spec"]["replicas"], 1);
    assert_eq!(workload["spec"]["strategy"], json!({ "type": "Recreate" }));

    let version = env!("CARGO_PKG_VERSION");
    let labels = json!({
        "app.kubernetes.io/name": DETECTOR, "app.kubernetes.io/component": "detector",
        "app.kubernetes.io/part-of": "importguard", "app.kubernetes.io/version": version,
    });
    assert_eq!(workload["metadata"]["labels"], labels);
    assert_eq!(pod(&manifests)["metadata"]["labels"], labels);

    let spec = &pod(&manifests)["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    let profile = &spec["securityContext"]["seccompProfile"];
    assert_eq!(*profile, json!({ "type": "RuntimeDefault" }));
    let container = &spec["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["image"], format!("importguard:{version}"));
    assert_eq!(container["args"], json!(["detect"]));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
}

#[test]
fn only_prometheus_reaches_it_and_it_reaches_only_nats() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let manifests = with_rules(&kustomize, &["detector"], &rules());
    let policy = &manifests.one("NetworkPolicy", DETECTOR)["spec"];
    let space = |name: &str| {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        json!([{ "namespaceSelector": { "matchLabels": labels } }])
    };
    let selected = json!({ "matchLabels": { "app.kubernetes.io/name": DETECTOR } });
    let expected = json!({
        "podSelector": selected,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": space("monitoring"), "ports": [{ "protocol": "TCP", "port": "admin" }] }],
        "egress": [{ "to": space("nats"), "ports": [{ "protocol": "TCP", "port": 4222 }] }],
    });
    assert_eq!(*policy, expected);
}

#[test]
fn changed_rules_settings_and_a_ca_restart_it() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let render = |rules: &str| {
        let manifests = with_rules(&kustomize, &["detector"], rules);
        pod(&manifests)["spec"].clone()
    };
    let volume = |spec: &Value| {
        let name = &spec["volumes"][0]["configMap"]["name"];
        name.as_str().unwrap().to_owned()
    };
    let (before, after) = (render(&rules()), render(&rules().replace("20", "30")));
    assert!(volume(&before).starts_with("importguard-detector-rules-"));
    assert_ne!(volume(&before), volume(&after));

    kustomize.write("mine/detector.yaml", &rules());
    let changed = GENERATED.replace("4222", "4223");
    let changed = kustomize.base_with(&["detector"], &changed).unwrap();
    assert_ne!(pod(&changed)["spec"], before);

    // It would go on without TLS.
    let verifying = with_rules(&kustomize, &["detector", "nats-ca"], &rules());
    assert_ne!(pod(&verifying)["spec"], before);
}

#[test]
fn its_environment_is_known_whatever_the_order_of_components() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let help = Help::of(Binary::AllInOne, &["detect"]);
    let known: Vec<_> = help.settings().filter_map(|it| it.env.clone()).collect();
    let without = environment(&with_rules(&kustomize, &["detector"], &rules()));
    assert_eq!(without.get("NATS_CA"), None);
    assert_eq!(without["NATS_URL"], "nats://nats.nats:4222");
    for components in [["detector", "nats-ca"], ["nats-ca", "detector"]] {
        let manifests = with_rules(&kustomize, &components, &rules());
        let environment = environment(&manifests);
        for name in environment.keys() {
            assert!(known.contains(name), "`importguard detect` has no {name}");
        }
        let file = environment["NATS_CA"].strip_prefix("/etc/importguard/nats-ca/");
        assert_eq!(file, Some("ca.crt"), "{components:?}");
        let spec = &pod(&manifests)["spec"];
        let mounts = list(&spec["containers"][0]["volumeMounts"]);
        let mounted = |path: &str| {
            let mount = mounts.iter().find(|it| it["mountPath"] == path).unwrap();
            let mut volumes = list(&spec["volumes"]).iter();
            volumes.find(|it| it["name"] == mount["name"]).unwrap()
        };
        let secret = &mounted("/etc/importguard/nats-ca")["secret"];
        assert_eq!(
            *secret,
            json!({ "secretName": "importguard-nats-ca", "optional": true })
        );
        assert!(mounted("/etc/importguard/detector")["configMap"].is_object());
    }
}

#[tokio::test]
async fn the_program_puts_owners_on_a_list_with_the_environment_of_its_pod() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let three = format!("apiVersion: importguard/v1\nrules: {THREE}\n");
    let manifests = with_rules(&kustomize, &["detector"], &three);
    let map = pod(&manifests)["spec"]["volumes"][0]["configMap"]["name"].clone();
    let data = &manifests.one("ConfigMap", map.as_str().unwrap())["data"];
    let mounted = MountedSecret::new(&[("detector.yaml", data["detector.yaml"].as_str().unwrap())]);

    let (nats, jetstream) = nats().await;
    let mut environment = environment(&manifests);
    let file = environment["IMPORTGUARD_DETECT_RULES"].strip_prefix("/etc/importguard/detector/");
    let rules = mounted.path(file.unwrap());
    // There is no Secret here, and other detectors run beside this one.
    assert_eq!(environment.remove("NATS_CREDS").unwrap(), CREDENTIALS);
    let listens = environment.remove("IMPORTGUARD_ADMIN_LISTEN");
    assert_eq!(listens.as_deref(), Some("[::]:8083"));
    let settings = environment
        .iter()
        .fold(Settings::new(), |settings, (name, value)| {
            settings.set(name, value.clone())
        });
    let mut detector = Detector::start_with(&rules, settings.nats(&nats)).await;
    for number in 1..=3 {
        publish(&jetstream, &refusal(number, "user1", 0)).await;
    }
    let (_, value) = entered(&jetstream, "user1").await;
    assert_eq!(value["by"], "detector");
    assert_eq!(detector.terminate(SOON).await.code(), Some(0));
}
