//! `deploy/kubernetes` renders and is valid by Kubernetes' schemas.

use std::{collections::BTreeSet, fs, process::Command, sync::OnceLock};

use importguard_tests::{Binary, Kustomize, Manifests, workspace};
use serde_json::{Value, json};

/// A policy of one's own, without the lists of the sample.
pub(crate) const POLICY: &str = r#"apiVersion: importguard/v1
name: mine
rules:
  - id: nobody
    refuseIf: "true"
    refusal: { code: 5001, message: "Closed" }
"#;

pub(crate) const PODS: [(&str, Binary); 2] = [
    ("importguard-gateway", Binary::Gateway),
    ("importguard-decider", Binary::Decider),
];

/// What each of the directories renders to, as far as that can be seen on this machine.
fn everything() -> &'static [Manifests] {
    static RENDERED: OnceLock<Vec<Manifests>> = OnceLock::new();
    RENDERED.get_or_init(|| {
        let Some(kustomize) = Kustomize::new() else {
            return Vec::new();
        };
        kustomize.write("production/policy.yaml", POLICY);
        ["base", "try-out", "production"]
            .map(|directory| kustomize.render(directory).unwrap())
            .into()
    })
}

/// What one of them renders to.
fn rendered(directory: &str) -> Option<&'static Manifests> {
    let mut everything = everything().iter();
    everything.find(|manifests| manifests.directory() == directory)
}

/// Everything that has pods, by its kind and name.
pub(crate) fn workloads(manifests: &Manifests) -> impl Iterator<Item = &Value> {
    ["Deployment", "StatefulSet"]
        .into_iter()
        .flat_map(|kind| manifests.all(kind))
}

pub(crate) fn workload<'a>(manifests: &'a Manifests, name: &str) -> &'a Value {
    workloads(manifests)
        .find(|workload| workload["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// The value of a variable in the environment of a container.
pub(crate) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut variables = list(&container["env"]).iter();
    variables
        .find(|variable| variable["name"] == name)?
        .get("value")?
        .as_str()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn pods_may_do_nothing_that_they_need_not() {
    for manifests in everything() {
        for workload in workloads(manifests) {
            let pod = &workload["spec"]["template"]["spec"];
            let name = &workload["metadata"]["name"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{name}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            for container in list(&pod["containers"]) {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{name}");
                for bound in ["requests", "limits"] {
                    assert!(container["resources"][bound]["memory"].is_string());
                }
                let image = container["image"].as_str().unwrap();
                assert!(
                    image.contains(':') && !image.ends_with(":latest"),
                    "{image}"
                );
            }
        }
    }
}

#[test]
fn both_pods_are_two_are_probed_and_are_spread_and_scaled() {
    for manifests in everything() {
        for (name, _) in PODS {
            let workload = workload(manifests, name);
            let pod = &workload["spec"]["template"]["spec"];
            // Two owners of the number would take turns.
            assert!(workload["spec"]["replicas"].is_null(), "{name}");
            let container = &pod["containers"][0];
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}");
            }
            assert_eq!(list(&pod["topologySpreadConstraints"]).len(), 2);
            let budget = &manifests.one("PodDisruptionBudget", name)["spec"];
            assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
            let scaled = &manifests.one("HorizontalPodAutoscaler", name)["spec"];
            assert_eq!(scaled["minReplicas"], 2);
            // A share of the request would scale out at a small part of a core.
            let target = &scaled["metrics"][0]["resource"]["target"];
            assert_eq!(target["averageValue"], "500m", "{name}");
            assert_eq!(scaled["scaleTargetRef"]["kind"], workload["kind"], "{name}");
        }
        let deciders = &manifests.one("Service", "importguard-decider")["spec"];
        assert_eq!(deciders["clusterIP"], "None");
    }
}

#[test]
fn an_orderly_end_fits_into_the_time_that_kubernetes_gives() {
    // For the last spans, after everything else.
    const LAST_SPANS: u64 = 5;
    for manifests in everything() {
        let grace = |name, setting: &str| {
            let workload = workload(manifests, name);
            let pod = &workload["spec"]["template"]["spec"];
            let settings = settings(manifests, workload);
            let seconds = |end: &str| {
                let wanted = setting.to_owned() + end;
                let (_, value) = settings.iter().find(|(name, _)| *name == wanted).unwrap();
                value.trim_end_matches('s').parse::<u64>().unwrap()
            };
            assert!(seconds("_GRACE") < seconds("_TIMEOUT"), "{name}");
            let needed = seconds("_TIMEOUT") + LAST_SPANS;
            let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(needed < given, "{name}: {needed} of {given} seconds");
        };
        grace("importguard-gateway", "IMPORTGUARD_SHUTDOWN");
        grace("importguard-decider", "IMPORTGUARD_DECIDER_SHUTDOWN");
    }
}

#[test]
fn a_decider_is_replaced_after_gateways_can_know_the_new_one() {
    // A cached answer of the cluster's DNS, and the gateways' next resolution.
    const KNOWN_AFTER: u64 = 30 + 5;
    for manifests in everything() {
        let decider = workload(manifests, "importguard-decider");
        let wait = decider["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
        assert!(wait > KNOWN_AFTER, "{wait} seconds");
        let update = &decider["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(update["maxUnavailable"], 0);
    }
}

/// The environment of a workload's first container, as far as it is written down: a value that comes from elsewhere is `elsewhere`.
fn settings(manifests: &Manifests, workload: &Value) -> Vec<(String, String)> {
    let container = &workload["spec"]["template"]["spec"]["containers"][0];
    let mut settings = Vec::new();
    for source in list(&container["envFrom"]) {
        let map = source["configMapRef"]["name"].as_str().unwrap();
        let data = manifests.one("ConfigMap", map)["data"].as_object().unwrap();
        for (name, value) in data {
            settings.push((name.clone(), value.as_str().unwrap().to_owned()));
        }
    }
    for variable in list(&container["env"]) {
        let text = |key: &str| variable[key].as_str().unwrap_or("elsewhere").to_owned();
        settings.push((text("name"), text("value")));
    }
    settings
}

#[test]
fn each_setting_is_one_that_its_binary_has_and_its_start_accepts() {
    for manifests in everything() {
        for (name, binary) in PODS {
            let help = Command::new(binary.path()).arg("--help").output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            let settings = settings(manifests, workload(manifests, name));
            let ours = settings
                .iter()
                .filter(|(name, _)| name.starts_with("IMPORTGUARD_") || name.starts_with("NATS_"));
            for (setting, _) in ours.clone() {
                let marked = [format!("[env: {setting}=]"), format!("[env: {setting}]")];
                assert!(
                    marked.iter().any(|mark| help.contains(mark)),
                    "{name} has no {setting}"
                );
            }
            // Values are read before the command is run; nobody listens there.
            let asked = Command::new(binary.path())
                .args(["healthcheck", "--admin-listen", "127.0.0.1:1"])
                .envs(ours.cloned())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&asked.stderr);
            assert_eq!(asked.status.code(), Some(1), "{name}: {said}");
        }
    }
}

#[test]
fn secrets_are_referenced_and_not_embedded() {
    for manifests in everything() {
        assert_eq!(manifests.all("Secret").count(), 0);
    }
    let Some(production) = rendered("production") else {
        return;
    };
    let gateway = workload(production, "importguard-gateway");
    let volumes = list(&gateway["spec"]["template"]["spec"]["volumes"]);
    let secrets: BTreeSet<_> = volumes
        .iter()
        .filter_map(|volume| volume["secret"]["secretName"].as_str())
        .collect();
    let named = ["importguard-callers", "importguard-nats", "importguard-tls"];
    assert_eq!(secrets, BTreeSet::from(named));
}

#[test]
fn every_list_of_the_policy_is_mounted_whatever_its_name() {
    for manifests in everything() {
        let pod = &workload(manifests, "importguard-decider")["spec"]["template"]["spec"];
        let mounts = list(&pod["containers"][0]["volumeMounts"]);
        let places: Vec<_> = mounts.iter().map(|mount| &mount["mountPath"]).collect();
        assert_eq!(
            places,
            ["/etc/importguard/policy", "/etc/importguard/policy/lists"]
        );
        for mount in mounts {
            assert_eq!(mount["name"], "policy");
            assert!(mount["subPath"].is_null(), "{mount}");
        }
        let sources = list(&pod["volumes"][0]["projected"]["sources"]);
        for (index, source) in sources.iter().enumerate() {
            // A key that is named and missing keeps the volume as it is, without a word from the decider.
            assert!(source["configMap"]["items"].is_null(), "{source}");
            assert_eq!(source["configMap"]["optional"] == true, index > 0);
        }
        assert_eq!(sources[0]["configMap"]["name"], "importguard-policy");
        assert_eq!(sources.len(), 5);
    }
}

#[test]
fn a_spool_outlives_its_container_and_in_production_its_pod() {
    let gateway = |directory| {
        let manifests = rendered(directory)?;
        Some(workload(manifests, "importguard-gateway"))
    };
    if let Some(gateway) = gateway("base") {
        assert_eq!(gateway["kind"], "StatefulSet");
        let volume = &gateway["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume["name"], "spool");
        assert!(volume["emptyDir"].is_object());
    }
    if let Some(gateway) = gateway("production") {
        assert_eq!(gateway["kind"], "StatefulSet");
        let claim = &gateway["spec"]["volumeClaimTemplates"][0];
        assert_eq!(claim["metadata"]["name"], "spool");
        // It cannot be changed any more, so nothing may be in it that changes with each version.
        assert!(claim["metadata"]["labels"].is_null(), "{claim}");
        let retention = &gateway["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(
            *retention,
            json!({ "whenDeleted": "Retain", "whenScaled": "Retain" })
        );
        let mounts = list(&gateway["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]);
        assert!(mounts.iter().any(|mount| mount["name"] == "spool"));
        let volumes = list(&gateway["spec"]["template"]["spec"]["volumes"]);
        assert!(volumes.iter().all(|volume| volume["name"] != "spool"));
    }
}

#[test]
fn the_autoscaler_removes_no_gateway_as_it_cannot_see_its_spool() {
    for manifests in everything() {
        let gateways = manifests.one("HorizontalPodAutoscaler", "importguard-gateway");
        let down = &gateways["spec"]["behavior"]["scaleDown"];
        assert_eq!(*down, json!({ "selectPolicy": "Disabled" }));
    }
}

#[test]
fn everything_says_what_it_is_part_of_and_of_which_version() {
    let version = env!("CARGO_PKG_VERSION");
    let ours = everything().iter().flat_map(Manifests::resources);
    for resource in ours.filter(|resource| {
        let name = resource["metadata"]["name"].as_str().unwrap();
        name.starts_with("importguard") && resource["kind"] != "ConfigMap"
    }) {
        let pod = &resource["spec"]["template"]["metadata"];
        for metadata in [&resource["metadata"], pod] {
            if metadata.is_null() {
                continue;
            }
            let name = &metadata["name"];
            let label = |key: &str| &metadata["labels"][format!("app.kubernetes.io/{key}")];
            // The try-out's own parts are no part of the base.
            if name != "importguard-to-nats" {
                assert_eq!(label("part-of"), "importguard", "{resource}");
                assert_eq!(label("version"), version, "{resource}");
            }
        }
    }
    for manifests in everything() {
        for (name, _) in PODS {
            let workload = workload(manifests, name);
            let pod = &workload["spec"]["template"];
            let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
            assert_eq!(
                Some(component.as_str().unwrap()),
                name.strip_prefix("importguard-")
            );
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            assert!(image.ends_with(&format!(":{version}")), "{image}");
        }
    }
}

#[test]
fn pods_listen_on_all_addresses_of_ipv6_and_ipv4() {
    for manifests in everything() {
        for (name, _) in PODS {
            let settings = settings(manifests, workload(manifests, name));
            let listens: Vec<_> = settings
                .iter()
                .filter(|(name, _)| name.ends_with("_LISTEN"))
                .collect();
            assert_eq!(listens.len(), 2, "{name}");
            for (setting, address) in listens {
                assert!(address.starts_with("[::]:"), "{setting}={address}");
            }
        }
    }
}

#[test]
fn the_namespace_is_the_operators_and_other_pods_in_it_are_not_touched() {
    for manifests in everything() {
        assert_eq!(manifests.all("Namespace").count(), 0);
        for policy in manifests.all("NetworkPolicy") {
            let pods = &policy["spec"]["podSelector"]["matchLabels"];
            assert!(pods.is_object(), "{policy}");
        }
    }
}

#[test]
fn only_gateways_reach_deciders_and_only_admitted_callers_reach_gateways() {
    for manifests in everything() {
        let nothing = &manifests.one("NetworkPolicy", "importguard-default-deny")["spec"];
        let ours = json!({ "matchLabels": { "app.kubernetes.io/part-of": "importguard" } });
        assert_eq!(nothing["podSelector"], ours);
        assert_eq!(nothing["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(nothing["ingress"].is_null() && nothing["egress"].is_null());

        let app = |name: &str| json!({ "matchLabels": { "app.kubernetes.io/name": name } });
        let space = |name: &str| json!({ "matchLabels": { "kubernetes.io/metadata.name": name } });
        let decider = &manifests.one("NetworkPolicy", "importguard-decider")["spec"];
        let gateway = &manifests.one("NetworkPolicy", "importguard-gateway")["spec"];
        let prometheus = json!([{ "namespaceSelector": space("monitoring") }]);
        assert_eq!(
            who_reaches(decider, "grpc"),
            json!([{ "podSelector": app("importguard-gateway") }])
        );
        assert_eq!(
            who_reaches(gateway, "http"),
            json!([
                { "namespaceSelector": { "matchLabels": { "importguard-callers": "true" } } },
                { "namespaceSelector": space("ingress-nginx"), "podSelector": app("ingress-nginx") },
            ])
        );
        for policy in [decider, gateway] {
            assert_eq!(who_reaches(policy, "admin"), prometheus);
            assert_eq!(list(&policy["ingress"]).len(), 2);
        }
    }
}

/// Who may connect to the port, of whom only one rule may speak.
fn who_reaches(policy: &Value, port: &str) -> Value {
    let rules = list(&policy["ingress"]);
    let mut rules = rules
        .iter()
        .filter(|rule| list(&rule["ports"]).iter().any(|open| open["port"] == port));
    let rule = rules.next().unwrap();
    assert!(rules.next().is_none(), "{port}");
    assert_eq!(list(&rule["ports"]).len(), 1, "{port}");
    rule["from"].clone()
}

#[test]
fn each_pod_receives_the_replies_of_nats_where_nats_server_conf_permits_it() {
    let conf = fs::read_to_string(workspace().join("deploy/nats/nats-server.conf")).unwrap();
    for manifests in everything() {
        for (name, _) in PODS {
            let user = name.strip_prefix("importguard-").unwrap();
            let start = format!("{{ user: {user}, ");
            let (_, permissions) = conf.split_once(&start).unwrap();
            let (permissions, _) = permissions.split_once("} }").unwrap();
            let settings = settings(manifests, workload(manifests, name));
            let prefix = settings.iter().find(|it| it.0 == "NATS_INBOX_PREFIX");
            let (_, prefix) = prefix.unwrap_or_else(|| panic!("{name} has no NATS_INBOX_PREFIX"));
            let permitted = format!("subscribe: [\"{prefix}.>\"]");
            assert!(permissions.contains(&permitted), "{user}: {permitted}");
        }
    }
}
