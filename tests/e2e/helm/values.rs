//! Which values the chart takes, and what it says of the others.

use importguard_tests::Chart;
use serde_json::{Value, json};

use super::{base, sample, settings, with};

#[test]
fn values_that_cannot_be_used_are_reported_where_they_are() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let one = |path: &str, value: Value| {
        let nested = path
            .rsplit('.')
            .fold(value, |value, key| json!({ key: value }));
        (with(sample(), &nested), path.replace('.', "/"))
    };
    let mistakes = [
        (
            one("gateway.replica", json!(3)),
            "additional properties 'replica' not allowed",
        ),
        (
            one("gateway.spool.type", json!("pvc")),
            "one of 'emptyDir', 'claim'",
        ),
        (one("gateway.spool.size", json!("a lot")), "does not match"),
        (
            one("gateway.autoscaling.minReplicas", json!("two")),
            "got string, want integer",
        ),
        (
            one("gateway.settings.IMPORTGUARD_REQUEST_BUGET", json!("1s")),
            "'IMPORTGUARD_REQUEST_BUGET' not allowed",
        ),
        (
            one("decider.settings.IMPORTGUARD_UPSTREAM", json!("http://x")),
            "'IMPORTGUARD_UPSTREAM' not allowed",
        ),
        (
            one("detector.settings.IMPORTGUARD_POLICY", json!("x")),
            "'IMPORTGUARD_POLICY' not allowed",
        ),
        (
            one("detector.replicas", json!(2)),
            "additional properties 'replicas' not allowed",
        ),
        (one("callers.secret", json!("Our Secret")), "does not match"),
        (one("tracing.ratio", json!(2)), "got 2, want 1"),
        (
            one(
                "gateway.settings.IMPORTGUARD_REQUEST_BUDGET",
                json!("banana"),
            ),
            "does not match",
        ),
        (
            one("gateway.settings.IMPORTGUARD_REQUEST_BUDGET", json!(5)),
            "got number, want null or string",
        ),
        (
            one(
                "decider.settings.IMPORTGUARD_RELOAD_INTERVAL",
                json!("1 second or so"),
            ),
            "does not match",
        ),
        (
            one("gateway.settings.IMPORTGUARD_MAX_BODY_BYTES", json!("2MB")),
            "does not match",
        ),
        (
            one("decider.settings.IMPORTGUARD_THREADS", json!("two")),
            "does not match",
        ),
        (
            one("gateway.spool.maxBytes", json!("1GB")),
            "does not match",
        ),
        (
            one("gateway.terminationGracePeriodSeconds", json!("60s")),
            "got string, want integer",
        ),
        (
            one("networkPolicy.callers", json!("openim")),
            "got string, want array",
        ),
        (
            one("gateway.image.digest", json!("latest")),
            "does not match",
        ),
        (
            one("policy.files", json!({ "lists/blocked.txt": "x" })),
            "'lists/blocked.txt' not allowed",
        ),
    ];
    for ((values, place), reason) in mistakes {
        let error = chart.render(&values).unwrap_err();
        let last = place.rsplit_once('/').unwrap().0;
        assert!(
            error.contains(reason) && error.contains(last),
            "{place}: {error}"
        );
    }
    let combinations = [
        (json!({}), "There is no policy"),
        (with(sample(), &base()), "set exactly one of"),
        (
            json!({ "policy": { "files": { "mine.yaml": "x" } } }),
            "no policy.yaml",
        ),
        (
            with(sample(), &json!({ "deciderTLS": { "gatewaySecret": "x" } })),
            "set both",
        ),
        (
            with(
                sample(),
                &json!({ "gateway": { "autoscaling": { "minReplicas": 9 } } }),
            ),
            "minReplicas (9) is more than",
        ),
        (
            with(sample(), &json!({ "liveLists": { "user": "decider" } })),
            "liveLists.user is set without a password",
        ),
        (
            with(sample(), &json!({ "detector": { "user": "detector" } })),
            "detector.user is set without a password",
        ),
        (
            with(sample(), &json!({ "detector": { "enabled": true } })),
            "no sample rules decide who is blocked",
        ),
        (
            with(
                sample(),
                &json!({ "liveLists": { "credentialsSecret": "x" } }),
            ),
            "set liveLists.enabled=true, or leave it empty",
        ),
        (
            with(
                sample(),
                &json!({ "detector": { "credentialsSecret": "x" } }),
            ),
            "set detector.enabled=true, or leave it empty",
        ),
        (
            with(
                sample(),
                &json!({ "natsServer": { "enabled": true }, "nats": { "url": "nats://elsewhere:4222" } }),
            ),
            "nats.url is nats://elsewhere:4222, but natsServer.enabled",
        ),
        (
            with(
                sample(),
                &json!({ "gateway": { "spool": { "size": "1Gi", "maxBytes": "2GiB" } } }),
            ),
            "gateway.spool.size (1Gi) must be more than twice the maximum size of a spool (2GiB)",
        ),
        (
            with(
                sample(),
                &json!({ "gateway": { "spool": { "size": "2Gi" } } }),
            ),
            "gateway.spool.size (2Gi) must be more than twice",
        ),
        (
            with(
                sample(),
                &settings("gateway", "IMPORTGUARD_SPOOL_MAX_BYTES", json!("50GiB")),
            ),
            "spool (50GiB), because a corrupt spool is set aside",
        ),
        (
            with(
                sample(),
                &settings(
                    "gateway",
                    "IMPORTGUARD_SPOOL_MAX_BYTES",
                    json!(53_687_091_200_u64),
                ),
            ),
            "spool (53687091200), because",
        ),
        (
            with(
                sample(),
                &settings("gateway", "IMPORTGUARD_HTTP_LISTEN", json!("0.0.0.0:9090")),
            ),
            "gateway.settings.IMPORTGUARD_HTTP_LISTEN: the Service, the probes and the network policies need port 8080",
        ),
        (
            with(
                sample(),
                &settings(
                    "gateway",
                    "IMPORTGUARD_ADMIN_LISTEN",
                    json!("127.0.0.1:8081"),
                ),
            ),
            "need port 8081 on all addresses",
        ),
        (
            // The default is 127.0.0.1.
            with(
                sample(),
                &settings("gateway", "IMPORTGUARD_HTTP_LISTEN", json!(null)),
            ),
            "Leave it out: the chart sets [::]:8080",
        ),
        (
            with(
                sample(),
                &settings("decider", "IMPORTGUARD_DECIDER_LISTEN", json!("[::]:50052")),
            ),
            "need port 50051",
        ),
        (
            with(
                sample(),
                &settings("detector", "IMPORTGUARD_ADMIN_LISTEN", json!("[::]:8081")),
            ),
            "need port 8083",
        ),
        (
            with(
                sample(),
                &settings("gateway", "IMPORTGUARD_SHUTDOWN_TIMEOUT", json!("1m 30s")),
            ),
            "gateway.terminationGracePeriodSeconds (30) is too short for IMPORTGUARD_SHUTDOWN_TIMEOUT=1m 30s",
        ),
        (
            with(
                sample(),
                &settings(
                    "decider",
                    "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT",
                    json!("24500ms"),
                ),
            ),
            "Set it to at least 31",
        ),
        (
            with(
                sample(),
                &json!({ "gateway": { "terminationGracePeriodSeconds": 25 } }),
            ),
            "Set it to at least 26",
        ),
    ];
    for (values, reason) in combinations {
        let error = chart.render(&values).unwrap_err();
        assert!(error.contains(reason), "{values}: {error}");
    }
}

#[test]
fn values_that_can_be_used_are_not_refused() {
    let Some(chart) = Chart::new() else {
        return;
    };
    for values in [
        settings("gateway", "IMPORTGUARD_REQUEST_BUDGET", json!("1m 30s")),
        settings("gateway", "IMPORTGUARD_SHUTDOWN_GRACE", json!("0s")),
        settings("gateway", "IMPORTGUARD_TRACE_SLOW", json!("never")),
        settings("gateway", "IMPORTGUARD_STREAM_MAX_BYTES", json!(-1)),
        settings("gateway", "IMPORTGUARD_STREAM_MAX_BYTES", json!("100 gib")),
        settings("gateway", "IMPORTGUARD_HTTP_LISTEN", json!("0.0.0.0:8080")),
        settings("gateway", "IMPORTGUARD_SPOOL_MAX_BYTES", json!(null)),
        settings("gateway", "IMPORTGUARD_SHUTDOWN_TIMEOUT", json!("24s")),
        settings("gateway", "IMPORTGUARD_THREADS", json!("2")),
        json!({ "gateway": { "spool": { "size": "10Gi", "maxBytes": "4GiB" } } }),
        json!({ "natsServer": { "enabled": true }, "nats": { "url": "nats://nats:4222" } }),
    ] {
        chart.render(&with(sample(), &values)).unwrap();
    }
    let longer = json!({ "gateway": {
        "terminationGracePeriodSeconds": 66,
        "settings": { "IMPORTGUARD_SHUTDOWN_TIMEOUT": "60s" },
    } });
    let release = chart.render(&with(sample(), &longer)).unwrap();
    let seconds = |kind, name| {
        let pod = &release.one(kind, name)["spec"]["template"]["spec"];
        pod["terminationGracePeriodSeconds"].as_u64()
    };
    assert_eq!(seconds("StatefulSet", "importguard-gateway"), Some(66));
    assert_eq!(seconds("Deployment", "importguard-decider"), Some(30));
}
