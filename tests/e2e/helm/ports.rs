//! Network policies allow the ports that the settings name.

use importguard_tests::{Chart, Manifests};
use serde_json::{Value, json};

use super::{sample, with};
use crate::{detector::kubernetes::rules, kubernetes::list};

/// The ports to which a policy lets pods connect, by rule.
fn egress(release: &Manifests, policy: &str) -> Vec<Vec<u64>> {
    let rules = list(&release.one("NetworkPolicy", policy)["spec"]["egress"]);
    let ports = |rule: &Value| {
        let ports = list(&rule["ports"]).iter();
        ports.map(|it| it["port"].as_u64().unwrap()).collect()
    };
    rules.iter().map(ports).collect()
}

#[test]
fn network_policies_allow_the_ports_of_nats_and_of_the_collector() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let values = json!({
        "nats": { "url": "tls://nats-0.example.com:4443,nats-1.example.com,[2001:db8::1]:4443" },
        "tracing": { "endpoint": "http://otel-collector.observability:4318/v1" },
        "liveLists": { "enabled": true },
        "detector": { "enabled": true, "rules": rules() },
    });
    let values = with(sample(), &values);
    let release = chart.render(&values).unwrap();
    let gateway = "importguard-gateway";
    assert_eq!(
        egress(&release, gateway),
        [vec![50051], vec![4443, 4222], vec![4318]]
    );
    assert_eq!(egress(&release, "importguard-decider"), [[4318]]);
    for policy in ["importguard-decider-to-nats", "importguard-detector"] {
        assert_eq!(egress(&release, policy), [[4443, 4222]], "{policy}");
    }

    // A setting takes precedence, and a URL without a port has that of its scheme.
    let own = json!({ "gateway": { "settings": {
        "NATS_URL": "nats://[2001:db8::1]:5222",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otel.example.com",
    } } });
    let release = chart.render(&with(values, &own)).unwrap();
    assert_eq!(
        egress(&release, gateway),
        [vec![50051], vec![5222], vec![443]]
    );
    assert_eq!(egress(&release, "importguard-decider"), [[4318]]);
}
