//! Which values the chart takes, and what it says of the others.

use importguard_tests::Chart;
use serde_json::{Value, json};

use super::{base, sample, with};

/// The sample policy and other values, as in `gateway.spool.type=claim; gateway.spool.size=10Gi`.
fn sample_with(assignments: &str) -> Value {
    let mut values = sample();
    for assignment in assignments.split("; ") {
        let (path, value) = assignment.split_once('=').unwrap();
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        let keys = path.rsplit('.');
        let nested = keys.fold(value, |value, key| json!({ key: value }));
        values = with(values, &nested);
    }
    values
}

#[test]
fn values_that_cannot_be_used_are_reported_where_they_are() {
    let Some(chart) = Chart::new() else {
        return;
    };
    for (value, reason) in [
        (
            "gateway.replica=3",
            "additional properties 'replica' not allowed",
        ),
        ("gateway.spool.type=pvc", "one of 'emptyDir', 'claim'"),
        ("gateway.spool.size=a lot", "does not match"),
        (
            "gateway.autoscaling.minReplicas=two",
            "got string, want integer",
        ),
        (
            "gateway.settings.IMPORTGUARD_REQUEST_BUGET=1s",
            "'IMPORTGUARD_REQUEST_BUGET' not allowed",
        ),
        (
            "decider.settings.IMPORTGUARD_UPSTREAM=http://x",
            "'IMPORTGUARD_UPSTREAM' not allowed",
        ),
        (
            "detector.settings.IMPORTGUARD_POLICY=x",
            "'IMPORTGUARD_POLICY' not allowed",
        ),
        (
            "detector.replicas=2",
            "additional properties 'replicas' not allowed",
        ),
        ("callers.secret=Our Secret", "does not match"),
        ("tracing.ratio=2", "got 2, want 1"),
        (
            "gateway.settings.IMPORTGUARD_REQUEST_BUDGET=banana",
            "does not match",
        ),
        (
            "gateway.settings.IMPORTGUARD_REQUEST_BUDGET=5",
            "got number, want null or string",
        ),
        (
            "decider.settings.IMPORTGUARD_RELOAD_INTERVAL=1 second or so",
            "does not match",
        ),
        (
            "gateway.settings.IMPORTGUARD_MAX_BODY_BYTES=2MB",
            "does not match",
        ),
        ("decider.settings.IMPORTGUARD_THREADS=two", "does not match"),
        ("gateway.spool.maxBytes=1GB", "does not match"),
        (
            "gateway.terminationGracePeriodSeconds=60s",
            "got string, want integer",
        ),
        ("networkPolicy.callers=openim", "got string, want array"),
        ("gateway.image.digest=latest", "does not match"),
        (
            r#"policy.files={"lists/blocked.txt":"x"}"#,
            "'lists/blocked.txt' not allowed",
        ),
    ] {
        let error = chart.render(&sample_with(value)).unwrap_err();
        let (path, _) = value.split_once('=').unwrap();
        let (above, _) = path.rsplit_once('.').unwrap();
        assert!(
            error.contains(reason) && error.contains(&above.replace('.', "/")),
            "{value}: {error}"
        );
    }
}

#[test]
fn values_that_contradict_each_other_are_reported() {
    let Some(chart) = Chart::new() else {
        return;
    };
    let policies = [
        (json!({}), "There is no policy"),
        (with(sample(), &base()), "set exactly one of"),
        (
            json!({ "policy": { "files": { "mine.yaml": "x" } } }),
            "no policy.yaml",
        ),
    ];
    let others = [
        ("deciderTLS.gatewaySecret=x", "set both"),
        (
            "gateway.autoscaling.minReplicas=9",
            "minReplicas (9) is more than",
        ),
        (
            "liveLists.user=decider",
            "liveLists.user is set without a password",
        ),
        (
            "detector.user=detector",
            "detector.user is set without a password",
        ),
        (
            "detector.enabled=true",
            "no sample rules decide who is blocked",
        ),
        (
            "liveLists.credentialsSecret=x",
            "set liveLists.enabled=true, or leave it empty",
        ),
        (
            "detector.credentialsSecret=x",
            "set detector.enabled=true, or leave it empty",
        ),
        (
            // Which may have a password.
            "natsServer.enabled=true; nats.url=nats://me:s3cret@elsewhere:4222",
            "nats.url is set, but natsServer.enabled",
        ),
        (
            "gateway.spool.size=1Gi; gateway.spool.maxBytes=2GiB",
            "gateway.spool.size (1Gi) must be at least 4160Mi: twice the maximum size of a spool (2GiB)",
        ),
        (
            // More than twice, but SQLite's logs do not fit.
            "gateway.spool.size=2111Mi",
            "gateway.spool.size (2111Mi) must be at least 2112Mi",
        ),
        (
            "gateway.settings.IMPORTGUARD_SPOOL_MAX_BYTES=50GiB",
            "spool (50GiB), because a corrupt spool is set aside",
        ),
        (
            "gateway.settings.IMPORTGUARD_SPOOL_MAX_BYTES=53687091200",
            "spool (53687091200), because",
        ),
        (
            "gateway.settings.IMPORTGUARD_HTTP_LISTEN=0.0.0.0:9090",
            "gateway.settings.IMPORTGUARD_HTTP_LISTEN: the Service, the probes and the network policies need port 8080",
        ),
        (
            "gateway.settings.IMPORTGUARD_ADMIN_LISTEN=127.0.0.1:8081",
            "need port 8081 on all addresses",
        ),
        (
            // The default is 127.0.0.1.
            "gateway.settings.IMPORTGUARD_HTTP_LISTEN=null",
            "Leave it out: the chart sets [::]:8080",
        ),
        (
            "decider.settings.IMPORTGUARD_DECIDER_LISTEN=[::]:50052",
            "need port 50051",
        ),
        (
            "detector.settings.IMPORTGUARD_ADMIN_LISTEN=[::]:8081",
            "need port 8083",
        ),
        (
            "gateway.settings.IMPORTGUARD_SHUTDOWN_TIMEOUT=1m 30s",
            "gateway.terminationGracePeriodSeconds (30) is too short for IMPORTGUARD_SHUTDOWN_TIMEOUT=1m 30s",
        ),
        (
            "decider.settings.IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT=24500ms",
            "Set it to at least 31",
        ),
        (
            "gateway.terminationGracePeriodSeconds=25",
            "Set it to at least 26",
        ),
        (
            "gateway.settings.NATS_PASSWORD=s3cret",
            "gateway.settings.NATS_PASSWORD is a secret",
        ),
        (
            "decider.settings.NATS_TOKEN=s3cret",
            "name that in decider.settingsSecret",
        ),
        (
            "gateway.settings.IMPORTGUARD_PSEUDONYM_KEY=s3cret",
            "IMPORTGUARD_PSEUDONYM_KEY is a secret",
        ),
        (
            "gateway.settings.OTEL_EXPORTER_OTLP_HEADERS=authorization=s3cret",
            "OTEL_EXPORTER_OTLP_HEADERS is a secret",
        ),
        (
            "decider.settings.OTEL_EXPORTER_OTLP_TRACES_HEADERS=authorization=s3cret",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS is a secret",
        ),
        (
            "nats.url=nats://gateway:s3cret@nats:4222",
            "The NATS_URL of deciders has credentials",
        ),
        (
            "detector.settings.NATS_URL=s3cret@nats:4222",
            "The NATS_URL of detectors has credentials",
        ),
    ];
    let others = others.map(|(values, reason)| (sample_with(values), reason));
    for (values, reason) in policies.into_iter().chain(others) {
        let error = chart.render(&values).unwrap_err();
        assert!(error.contains(reason), "{values}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn values_that_can_be_used_are_not_refused() {
    let Some(chart) = Chart::new() else {
        return;
    };
    for values in [
        "gateway.settings.IMPORTGUARD_REQUEST_BUDGET=1m 30s",
        "gateway.settings.IMPORTGUARD_SHUTDOWN_GRACE=0s",
        "gateway.settings.IMPORTGUARD_TRACE_SLOW=never",
        "gateway.settings.IMPORTGUARD_STREAM_MAX_BYTES=-1",
        "gateway.settings.IMPORTGUARD_STREAM_MAX_BYTES=100 gib",
        "gateway.settings.IMPORTGUARD_HTTP_LISTEN=0.0.0.0:8080",
        "gateway.settings.IMPORTGUARD_SPOOL_MAX_BYTES=null",
        "gateway.settings.IMPORTGUARD_SHUTDOWN_TIMEOUT=24s",
        "gateway.settings.IMPORTGUARD_THREADS=\"2\"",
        "gateway.spool.size=2112Mi",
        "gateway.spool.size=10Gi; gateway.spool.maxBytes=4GiB",
        "natsServer.enabled=true; nats.url=nats://nats:4222",
    ] {
        chart.render(&sample_with(values)).unwrap();
    }
    let longer = sample_with(
        "gateway.terminationGracePeriodSeconds=66; gateway.settings.IMPORTGUARD_SHUTDOWN_TIMEOUT=60s",
    );
    let release = chart.render(&longer).unwrap();
    let seconds = |kind, name| {
        let pod = &release.one(kind, name)["spec"]["template"]["spec"];
        pod["terminationGracePeriodSeconds"].as_u64()
    };
    assert_eq!(seconds("StatefulSet", "importguard-gateway"), Some(66));
    assert_eq!(seconds("Deployment", "importguard-decider"), Some(30));
}
