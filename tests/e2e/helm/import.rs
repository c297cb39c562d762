//! What `helm test` does.

use std::{path::Path, process::Output};

use importguard_tests::{Chart, MountedSecret, Service, Settings, tool};
use serde_json::Value;
use tokio::process::Command;

use super::{sample, selects, values_of, with};

/// The values of a release with passwords and TLS.
fn locked() -> Value {
    ["callers", "tls"]
        .iter()
        .fold(sample(), |values, name| with(values, &values_of(name)))
}

#[test]
fn its_pod_is_let_in_and_asks_the_service() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let objects = chart.test_objects(&locked()).unwrap();
    let pod = objects.one("Pod", "importguard-test");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert_eq!(
        pod["spec"]["containers"][0]["env"][0]["value"],
        "https://importguard-gateway:8080"
    );
    let policy = objects.one("NetworkPolicy", "importguard-gateway-from-test");
    let peer = policy.pointer("/spec/ingress/0/from/0/podSelector/matchLabels");
    let peer = peer.unwrap().as_object().unwrap();
    assert!(selects(peer, &pod["metadata"]["labels"]), "{peer:?}");
}

/// Runs the pod's command with this gateway.
async fn ask(pod: &Value, gateway: &Service, callers: &Path, base_path: &str) -> Output {
    let command: Vec<_> = pod["spec"]["containers"][0]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    Command::new(command[0])
        .args(&command[1..])
        .env("GATEWAY", gateway.url())
        .env("IMPORTGUARD_BASE_PATH", base_path)
        .env("CALLERS", callers)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn it_succeeds_with_a_verdict_of_the_policy_and_with_nothing_else() {
    let (Some(chart), Some(_)) = (Chart::new(), tool("curl", "CURL", "helm test")) else {
        return;
    };
    let objects = chart.test_objects(&locked()).unwrap();
    let pod = objects.one("Pod", "importguard-test");
    let secret = MountedSecret::new(&[
        ("basic-auth", "openim:s3cret\nnext:s3cret\n"),
        ("other", "openim:other\n"),
    ]);
    let settings =
        || Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("basic-auth"));

    let decider = Service::decider(Settings::new()).await;
    let gateway = Service::gateway(settings().decider(&decider)).await;
    let callers = secret.setting("basic-auth");
    let callers = Path::new(&callers);
    let hidden = settings().decider(&decider);
    let hidden = Service::gateway(hidden.set("IMPORTGUARD_BASE_PATH", "/s3cret/")).await;
    for (gateway, base_path) in [(&gateway, ""), (&hidden, "/s3cret/")] {
        let passed = ask(pod, gateway, callers, base_path).await;
        let output = String::from_utf8(passed.stdout).unwrap();
        assert!(passed.status.success(), "{output}");
        assert!(output.ends_with("OK: the policy has decided\n"), "{output}");
    }

    let other = secret.setting("other");
    let without_password = ask(pod, &gateway, Path::new(&other), "").await;
    assert!(!without_password.status.success(), "{without_password:?}");
    let alone = Service::gateway(settings()).await;
    let undecided = ask(pod, &alone, callers, "").await;
    let output = String::from_utf8(undecided.stderr).unwrap();
    assert!(
        !undecided.status.success() && output.contains("FAILED"),
        "{output}"
    );
}
