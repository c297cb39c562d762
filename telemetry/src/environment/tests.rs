use super::*;

fn environment(
    set: &[(&'static str, &'static str)],
) -> Environment<impl Fn(&str) -> Option<String>> {
    let set = set.to_vec();
    Environment(move |name: &str| {
        let found = set.iter().find(|(set, _)| *set == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn otlp(set: &[(&'static str, &'static str)]) -> Result<Option<OtlpSettings>, String> {
    environment(set).otlp().map_err(|error| error.to_string())
}

#[test]
fn spans_are_exported_if_an_endpoint_is_set_and_nothing_disabled() {
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    assert!(otlp(&[]).unwrap().is_none());
    assert!(
        otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])
            .unwrap()
            .is_none()
    );
    assert_eq!(
        otlp(&[ENDPOINT]).unwrap().unwrap().endpoint,
        "http://collector:4317"
    );
    assert!(
        otlp(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")])
            .unwrap()
            .is_none()
    );
    assert!(
        otlp(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")])
            .unwrap()
            .is_none()
    );
    assert!(
        otlp(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")])
            .unwrap()
            .is_some()
    );
}

#[test]
fn the_variable_for_traces_takes_precedence_and_only_the_general_http_endpoint_is_a_base_url() {
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let general = otlp(&[
        HTTP,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318/base/"),
    ]);
    let general = general.unwrap().unwrap();
    assert_eq!(
        (general.protocol, &*general.endpoint),
        (Protocol::HttpBinary, "https://c:4318/base/v1/traces")
    );
    let both = otlp(&[
        HTTP,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://traces:4318/mine",
        ),
    ]);
    assert_eq!(both.unwrap().unwrap().endpoint, "http://traces:4318/mine");
}

#[test]
fn an_endpoint_without_a_scheme_needs_the_insecure_variable() {
    let refused = otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).unwrap_err();
    assert!(
        refused.contains("has no scheme; write for example http://"),
        "{refused}"
    );
    for (insecure, url) in [
        ("true", "http://collector:4317"),
        ("false", "https://collector:4317"),
    ] {
        let set = otlp(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
        ]);
        assert_eq!(set.unwrap().unwrap().endpoint, url);
    }
}

#[test]
fn an_unsupported_value_is_an_error_that_names_variable_and_remedy() {
    for (name, value, remedy) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "grpc, http/protobuf",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "nonsense",
            "grpc, http/protobuf",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "none, gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "grpc://collector:4317",
            "http:// or https://",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://user:pa55word@collector:4317",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/no/such/file",
            "No such file",
        ),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/dev/zero",
            "is not a regular file",
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "/no/such/file",
            "No such file",
        ),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, none"),
        ("OTEL_LOGS_EXPORTER", "otlp", "standard error"),
        (
            "OTEL_PROPAGATORS",
            "tracecontext,b3",
            "tracecontext, baggage; importguard always propagates both",
        ),
        ("OTEL_PROPAGATORS", "none", "tracecontext, baggage"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "positive"),
        ("OTEL_SDK_DISABLED", "yes", "true, false"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5", "unset it"),
    ] {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        let error = otlp(&[(name, value), endpoint]).unwrap_err();
        assert!(error.starts_with(name) && error.contains(remedy), "{error}");
        assert!(!error.contains("pa55word"), "{error}");
    }
}

#[test]
fn headers_are_decoded_and_what_is_none_is_an_error_without_its_content() {
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    const FOR_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    let settings = otlp(&[
        ENDPOINT,
        (GENERAL, "Authorization=Bearer%20s3cret==, x-team = a%2Cb ,"),
        (FOR_TRACES, ""),
    ]);
    let settings = settings.unwrap().unwrap();
    assert_eq!(settings.headers["authorization"], "Bearer s3cret==");
    assert_eq!(settings.headers["x-team"], "a,b");
    assert!(!format!("{settings:?}").contains("s3cret"));
    for (variable, value, entry) in [
        (GENERAL, "authorization: Bearer s3cret", "entry 1"),
        (GENERAL, "a=1,s3cret name=x", "entry 2"),
        (FOR_TRACES, "=s3cret", "entry 1"),
        (FOR_TRACES, "a=s3cret%0A", "entry 1"),
    ] {
        let error = otlp(&[ENDPOINT, (variable, value)]).unwrap_err();
        assert!(error.starts_with(variable), "{error}");
        assert!(
            error.contains(entry) && !error.contains("s3cret"),
            "{error}"
        );
    }
}

#[test]
fn a_sampler_is_one_of_the_standard_ones_with_a_ratio_from_0_to_1() {
    let sampler = |name, ratio| {
        let set = [
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ];
        let sampler = environment(&set).sampler();
        sampler
            .map(|sampler| format!("{sampler:?}"))
            .map_err(|error| error.to_string())
    };
    assert_eq!(sampler("", "").unwrap(), "ParentBased(AlwaysOn)");
    assert_eq!(
        sampler("traceidratio", "0.1").unwrap(),
        "TraceIdRatioBased(0.1)"
    );
    assert_eq!(
        sampler("parentbased_traceidratio", "").unwrap(),
        "ParentBased(TraceIdRatioBased(1.0))"
    );
    assert_eq!(sampler("ALWAYS_OFF", "").unwrap(), "AlwaysOff");
    assert!(
        sampler("jaeger_remote", "")
            .unwrap_err()
            .contains("parentbased_traceidratio")
    );
    for ratio in ["1.5", "-1", "seven", "NaN"] {
        let error = sampler("traceidratio", ratio).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER_ARG is"), "{error}");
    }
}

#[test]
fn resource_attributes_are_decoded_and_the_service_name_takes_precedence() {
    let resource = |set| {
        environment(set)
            .resource("importguard-gateway")
            .map_err(|error| error.to_string())
    };
    let last = |attributes: &[(String, String)], wanted: &str| {
        let named = attributes.iter().rfind(|(name, _)| name == wanted);
        named.map(|(_, value)| value.clone())
    };
    let listed: &[_] = &[(
        "OTEL_RESOURCE_ATTRIBUTES",
        "te%61m=a%2Cb, service.name=second",
    )];
    let attributes = resource(listed).unwrap();
    assert_eq!(last(&attributes, "team").as_deref(), Some("a,b"));
    assert_eq!(last(&attributes, "service.name").as_deref(), Some("second"));
    let both: &[_] = &[listed[0], ("OTEL_SERVICE_NAME", "first")];
    assert_eq!(
        last(&resource(both).unwrap(), "service.name").as_deref(),
        Some("first")
    );
    assert_eq!(
        last(&resource(&[]).unwrap(), "service.name").as_deref(),
        Some("importguard-gateway")
    );
    let error = resource(&[("OTEL_RESOURCE_ATTRIBUTES", "garbage,a=1")]).unwrap_err();
    assert!(error.contains("`garbage`"), "{error}");
}
