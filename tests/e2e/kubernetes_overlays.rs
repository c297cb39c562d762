//! Overlays as operators write them, on the base and the components of `deploy/kubernetes`.

use std::{collections::BTreeSet, fs, process::Command};

use importguard_tests::{Kustomize, Manifests, assert_is_current, workspace};
use serde_json::{Value, json};

use crate::{
    detector::kubernetes::{DETECTOR, rules},
    kubernetes::{PODS, POLICY, list, variable, workload, workloads},
};

/// Lists without their order: what a patch adds comes before or after what is there.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(normalized).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(key, value)| (key.clone(), normalized(value)))
                .collect()
        }
        other => other.clone(),
    }
}

fn gateway(manifests: &Manifests) -> &Value {
    &workload(manifests, "importguard-gateway")["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn components_do_the_same_in_any_order() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let components = kustomize.components();
    assert!(components.len() >= 10, "{components:?}");
    let resources = |components: &[String]| {
        let manifests = kustomize.base_with(components, "").unwrap();
        let resources = manifests.resources().iter().map(normalized);
        resources.collect::<Vec<_>>()
    };
    let expected = resources(&components);
    kustomize.render("mine").unwrap();
    // Among the rotations of a list and of its reverse, each of them comes before each other one.
    let reversed: Vec<_> = components.iter().rev().cloned().collect();
    for mut order in [components, reversed] {
        for _ in 0..order.len() {
            order.rotate_left(1);
            assert_eq!(resources(&order), expected, "{order:?}");
        }
    }
}

#[test]
fn each_component_adds_what_it_is_for_to_the_other_ones() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let all = kustomize.base_with(&kustomize.components(), "").unwrap();
    let secret = |workload: &Value, mount: &str| {
        let pod = &workload["spec"]["template"]["spec"];
        let mounts = list(&pod["containers"][0]["volumeMounts"]).iter();
        let volume = mounts
            .into_iter()
            .find(|volume| volume["mountPath"] == mount)
            .unwrap_or_else(|| panic!("nothing at {mount}"));
        assert_eq!(volume["readOnly"], true);
        let mut volumes = list(&pod["volumes"]).iter();
        let volume = volumes
            .find(|found| found["name"] == volume["name"])
            .unwrap();
        volume["secret"]["secretName"].as_str().unwrap().to_owned()
    };
    // The pod, the variable that names a file, its directory in /etc/importguard, and the Secret that is mounted there.
    for row in [
        "gateway NATS_CREDS nats importguard-nats",
        "gateway NATS_CA nats-ca importguard-nats-ca",
        "decider NATS_CREDS nats importguard-decider-nats",
        "decider NATS_CA nats-ca importguard-nats-ca",
        "detector NATS_CREDS nats importguard-detector-nats",
        "gateway IMPORTGUARD_BASIC_AUTH_FILE callers importguard-callers",
        "gateway IMPORTGUARD_TLS_CERT_FILE tls importguard-tls",
        "gateway IMPORTGUARD_PSEUDONYM_KEY_FILE pseudonyms importguard-pseudonyms",
        "gateway IMPORTGUARD_DECIDER_CA_FILE decider-tls importguard-gateway-tls",
        "decider IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE tls importguard-decider-tls",
    ] {
        let [name, variable_name, place, from] = row.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let place = format!("/etc/importguard/{place}");
        let workload = workload(&all, &format!("importguard-{name}"));
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        let file =
            variable(container, variable_name).unwrap_or_else(|| panic!("no {variable_name}"));
        assert!(file.starts_with(&format!("{place}/")), "{file}");
        assert_eq!(secret(workload, &place), from, "{variable_name}");
    }
    for (name, binary) in PODS {
        let help = Command::new(binary.path()).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let pod = &workload(&all, name)["spec"]["template"]["spec"];
        for setting in list(&pod["containers"][0]["env"]) {
            let setting = setting["name"].as_str().unwrap();
            let ours = setting.starts_with("IMPORTGUARD_") || setting.starts_with("NATS_");
            assert!(
                !ours || help.contains(&format!("[env: {setting}")),
                "{name} has no {setting}"
            );
        }
    }
    let url = variable(gateway(&all), "IMPORTGUARD_DECIDER_URL");
    assert_eq!(url, Some("https://importguard-decider:50051"));
    assert_eq!(all.all("HorizontalPodAutoscaler").count(), 0);
    for workload in workloads(&all) {
        let name = &workload["metadata"]["name"];
        let wanted = if name == DETECTOR { 1 } else { 2 };
        assert_eq!(workload["spec"]["replicas"], wanted, "{name}");
    }
    assert_eq!(all.all("ServiceMonitor").count(), 1);
}

#[test]
fn an_operators_patch_for_the_gateways_is_kept_whatever_the_components() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let patch = r#"patches:
  - patch: |
      apiVersion: apps/v1
      kind: StatefulSet
      metadata: { name: importguard-gateway }
      spec:
        template:
          spec:
            containers: [{ name: gateway, env: [{ name: IMPORTGUARD_UPSTREAM, value: "http://backend" }] }]
            volumes: [{ name: mine, emptyDir: {} }]
"#;
    for components in [vec![], kustomize.components()] {
        let manifests = kustomize.base_with(&components, patch).unwrap();
        let upstream = variable(gateway(&manifests), "IMPORTGUARD_UPSTREAM");
        assert_eq!(upstream, Some("http://backend"), "{components:?}");
    }
}

#[test]
fn deciders_follow_live_lists_where_the_operator_says_whatever_the_components() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let settings = r#"configMapGenerator:
  - name: importguard-decider
    namespace: importguard
    behavior: merge
    literals: ["NATS_URL=tls://nats.example.com:4222", IMPORTGUARD_ON_STALE_LISTS=not-ready]
"#;
    let components = kustomize.components();
    for components in [vec!["live-lists".to_owned()], components] {
        let manifests = kustomize.base_with(&components, settings).unwrap();
        let mut settings = manifests.all("ConfigMap").map(|it| &it["data"]);
        let settings = settings
            .find(|data| data.get("IMPORTGUARD_DECIDER_LISTEN").is_some())
            .unwrap();
        assert_eq!(settings["NATS_URL"], "tls://nats.example.com:4222");
        assert_eq!(settings["IMPORTGUARD_ON_STALE_LISTS"], "not-ready");

        let pod = &workload(&manifests, "importguard-decider")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let place = variable(container, "IMPORTGUARD_LISTS_SNAPSHOT").unwrap();
        let mut mounts = list(&container["volumeMounts"]).iter();
        let mount = mounts.find(|mount| mount["mountPath"] == place).unwrap();
        assert_ne!(mount["readOnly"], true);
        let mut volumes = list(&pod["volumes"]).iter();
        let volume = volumes.find(|it| it["name"] == mount["name"]).unwrap();
        assert!(volume["emptyDir"].is_object(), "{volume}");

        let egress = manifests.one("NetworkPolicy", "importguard-decider-to-nats");
        let decider = json!({ "app.kubernetes.io/name": "importguard-decider" });
        assert_eq!(egress["spec"]["podSelector"]["matchLabels"], decider);
        assert_eq!(egress["spec"]["egress"][0]["ports"][0]["port"], 4222);
    }
}

#[test]
fn a_patch_for_something_that_is_not_there_is_an_error() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    kustomize.write(
        "other/kustomization.yaml",
        "components: [../components/tls]\n",
    );
    let error = kustomize.render("other").unwrap_err();
    assert!(error.contains("importguard-gateway"), "{error}");
}

#[test]
fn production_asks_for_a_policy_of_ones_own() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let error = kustomize.render("production").unwrap_err();
    assert!(error.contains("production/policy.yaml"), "{error}");
    kustomize.write("production/policy.yaml", POLICY);
    let production = kustomize.render("production").unwrap();
    let policy = production.one("ConfigMap", "importguard-policy");
    assert_eq!(policy["data"], json!({ "policy.yaml": POLICY }));
}

#[test]
fn another_namespace_gets_all_resources_and_no_policy_for_its_other_pods() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    kustomize.write("production/policy.yaml", POLICY);
    kustomize.write(
        "openim/kustomization.yaml",
        "namespace: openim\nresources: [../production]\ncomponents: [../components/prometheus-operator]\n",
    );
    let manifests = kustomize.render("openim").unwrap();
    for resource in manifests.resources() {
        assert_ne!(resource["kind"], "Namespace");
        assert_eq!(resource["metadata"]["namespace"], "openim", "{resource}");
        let name = resource["metadata"]["name"].as_str().unwrap();
        assert!(
            name.starts_with("importguard"),
            "{name} could be somebody else's"
        );
    }
}

#[test]
fn the_kustomizations_of_the_handbook_render() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let page = fs::read_to_string(workspace().join("docs/kubernetes.md")).unwrap();
    // The network policies do not admit the API server to the admin ports.
    assert!(!page.contains("/proxy/"));
    let mut directories = BTreeSet::new();
    for block in page.split("```yaml\n# ").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let (name, content) = block.split_once('\n').unwrap();
        kustomize.write(name, content);
        if let Some(directory) = name.strip_suffix("/kustomization.yaml") {
            directories.insert(directory);
        }
    }
    // Files that are the reader's.
    kustomize.write("mine/policy.yaml", POLICY);
    kustomize.write("detector/detector.yaml", &rules());
    for list in [
        "mine/lists/blocked.txt",
        "several/lists/banned-2025.txt",
        "several/lists/banned-2026.txt",
    ] {
        kustomize.write(list, "mallory\n");
    }
    kustomize.write(
        "others/kustomization.yaml",
        "resources: [../mine, job.yaml, upstream.yaml, nats.yaml]\npatches: [{ path: password.yaml }, { path: base-path.yaml }]\n",
    );
    for (file, place) in [
        ("drain/job.yaml", "job"),
        ("mine/upstream.yaml", "upstream"),
        ("mine/nats.yaml", "nats"),
        ("mine/password.yaml", "password"),
        ("mine/base-path.yaml", "base-path"),
    ] {
        let content = kustomize.read(file);
        kustomize.write(&format!("others/{place}.yaml"), &content);
    }
    assert_eq!(
        directories,
        BTreeSet::from(["detector", "download", "larger", "live", "mine", "several"])
    );
    directories.insert("others");
    for directory in directories {
        let manifests = kustomize.render(directory).unwrap();
        let policy = manifests.one("ConfigMap", "importguard-policy");
        assert_eq!(policy["data"]["blocked.txt"], "mallory\n", "{directory}");
    }
}

#[test]
fn the_handbook_names_every_component_with_what_it_needs() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let page = fs::read_to_string(workspace().join("docs/kubernetes.md")).unwrap();
    for component in kustomize.components() {
        let row = format!("| `{component}` |");
        let row = page.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("docs/kubernetes.md lacks {component}"));
        let manifests = kustomize.base_with(&[&component], "").unwrap();
        for workload in workloads(&manifests) {
            for volume in list(&workload["spec"]["template"]["spec"]["volumes"]) {
                // One that is optional is that of another component.
                let needed = volume["secret"]["optional"] != true;
                let secret = volume["secret"]["secretName"].as_str();
                let secret = secret.filter(|_| needed);
                let claim = volume["persistentVolumeClaim"]["claimName"].as_str();
                for name in secret.into_iter().chain(claim) {
                    assert!(row.contains(&format!("`{name}`")), "{row} lacks {name}");
                }
            }
        }
    }
}

#[test]
fn what_kubernetes_would_fill_in_is_written_out() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let all = kustomize.base_with(&kustomize.components(), "").unwrap();
    // Each of these made the second apply change something, or one with --server-side conflict with one without.
    for (parent, field) in [
        ("fieldRef", "apiVersion"),
        ("ports", "protocol"),
        ("strategy", "type"),
        ("volumeClaimTemplates", "apiVersion"),
        ("volumeClaimTemplates", "kind"),
        ("volumeClaimTemplates", "status"),
    ] {
        let mut found = 0;
        for resource in all.resources() {
            each_in(resource, parent, &mut |value| {
                found += 1;
                assert!(!value[field].is_null(), "{parent} without {field}: {value}");
            });
        }
        assert!(found > 0, "{parent}");
    }
}

/// Calls `check` with each value of a field `name`, or with its elements if it is a list.
fn each_in(value: &Value, name: &str, check: &mut impl FnMut(&Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| each_in(item, name, check)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Array(items) if key == name => items.iter().for_each(&mut *check),
                    value if key == name => check(value),
                    value => each_in(value, name, check),
                }
            }
        }
        _ => (),
    }
}

#[test]
fn the_prometheus_operator_gets_the_same_rules() {
    let source = workspace().join("deploy/prometheus/importguard.rules.yaml");
    let rules = fs::read_to_string(source).unwrap();
    let (_, groups) = rules.split_once("groups:\n").unwrap();
    let mut generated = String::from(
        "# Generated from deploy/prometheus/importguard.rules.yaml; bring it up to date with:\n\
         #   UPDATE=1 cargo test -p importguard-tests --test e2e the_prometheus_operator_gets_the_same_rules\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n  \
           name: importguard\n  \
           namespace: importguard\n  \
           labels: { app.kubernetes.io/component: metrics, app.kubernetes.io/part-of: importguard }\n\
         spec:\n  \
           groups:\n",
    );
    for line in groups.lines() {
        if !line.trim().is_empty() {
            generated.push_str("  ");
            generated.push_str(line);
        }
        generated.push('\n');
    }
    let file = workspace().join("deploy/kubernetes/components/prometheus-operator/rules.yaml");
    assert_is_current(&file, &generated);
}
