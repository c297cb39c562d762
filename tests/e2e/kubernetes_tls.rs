//! Real processes with the settings of the component `decider-tls`.

use importguard_tests::{
    Kustomize, Manifests, MountedSecret, OpenIm, SOON, Service, Settings, TestAuthority, eventually,
};
use serde_json::Value;

use crate::kubernetes::{list, workload};

/// A Secret as cert-manager writes it.
fn secret(authority: &TestAuthority, name: &str) -> MountedSecret {
    let certificate = authority.certificate_for(name);
    MountedSecret::new(&certificate.files_trusting(&authority.pem()))
}

/// The settings that the component gives a workload, with the Secret where `mount` is in its pods.
fn settings(manifests: &Manifests, name: &str, mount: &str, secret: &MountedSecret) -> Settings {
    let pod = &workload(manifests, name)["spec"]["template"]["spec"];
    let mut settings = Settings::new();
    for variable in list(&pod["containers"][0]["env"]) {
        let text = |key: &str| variable[key].as_str().unwrap_or_default();
        if text("name").starts_with("IMPORTGUARD_DECIDER_") && variable["valueFrom"] == Value::Null
        {
            let value = text("value").replace(mount, secret.path("").to_str().unwrap());
            settings = settings.set(text("name"), value);
        }
    }
    settings
}

#[tokio::test]
async fn gateways_and_deciders_with_decider_tls_trust_each_other_by_name() {
    let Some(kustomize) = Kustomize::new() else {
        return;
    };
    let manifests = kustomize.base_with(&["decider-tls"], "").unwrap();
    let authority = TestAuthority::new();
    let decider = "importguard-decider";
    let mounted = secret(&authority, decider);
    let running = settings(&manifests, decider, "/etc/importguard/tls", &mounted);
    let decider_process = Service::decider(running).await;
    // Its Service's name does not resolve here.
    let url = decider_process.grpc_tls_url();

    let gateway = async |name: &str| {
        let mounted = secret(&authority, name);
        let place = "/etc/importguard/decider-tls";
        let settings = settings(&manifests, "importguard-gateway", place, &mounted);
        let wanted = settings.get("IMPORTGUARD_DECIDER_URL").unwrap();
        assert_eq!(wanted, "https://importguard-decider:50051");
        let settings = settings
            .with_long_timeouts()
            .set("IMPORTGUARD_DECIDER_URL", url.clone())
            .set("IMPORTGUARD_DECIDER_SERVER_NAME", decider);
        (Service::gateway(settings).await, mounted)
    };
    let (gateway_process, _mounted) = gateway("importguard-gateway").await;
    eventually("a decision over mutual TLS", SOON, async || {
        let callback = OpenIm::server(gateway_process.url());
        let answer = callback.import("op", "a", &["b", "blocked_1"]).await;
        let kept = r#""friendUserIDs":["b"]"#;
        let found = answer.text().contains(kept).then_some(());
        found.ok_or_else(|| answer.text().to_owned())
    })
    .await;

    let (stranger, _mounted) = gateway("another-service").await;
    let answer = OpenIm::server(stranger.url())
        .import("op", "a", &["b"])
        .await;
    assert!(
        answer.text().contains(r#""errCode":5910"#),
        "{}",
        answer.text()
    );
}
