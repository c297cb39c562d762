//! The OpenTelemetry environment variables that importguard reads itself. An unsupported value is an error: the SDK would ignore it
//! and use a default.
//!
//! The names and their meaning are those of the OpenTelemetry specification (environment variables of the SDK and of the OTLP
//! exporter). An empty variable counts as unset, as the specification says.

use std::{fs, path::PathBuf, time::Duration};

use http::Uri;
use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

/// A variable with an unsupported value.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct EnvironmentError {
    variable: String,
    problem: String,
}

/// Where spans are sent, and how.
#[derive(Debug)]
pub(crate) struct OtlpSettings {
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: String,
    pub(crate) gzip: bool,
    /// Time limit for exporting one batch.
    pub(crate) timeout: Duration,
    /// CA certificates for the endpoint, in PEM; default: the system's.
    pub(crate) certificate: Option<Vec<u8>>,
    /// Client certificate and private key, in PEM.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Maximum number of spans waiting for export.
    pub(crate) max_queue_size: usize,
}

/// The variables of a process, from [`std::env::var`] or a test.
pub(crate) struct Environment<F>(pub(crate) F);

type Checked<T> = Result<T, EnvironmentError>;

impl Environment<fn(&str) -> Option<String>> {
    pub(crate) fn of_process() -> Self {
        Self(|name| std::env::var(name).ok())
    }
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    /// The exporter's settings; `None` without an endpoint, or if the SDK or its exporter is disabled.
    pub(crate) fn otlp(&self) -> Checked<Option<OtlpSettings>> {
        if self.flag("OTEL_SDK_DISABLED")? {
            return Ok(None);
        }
        self.check_unsupported()?;
        let exporter = self.one_of("OTEL_TRACES_EXPORTER", &["otlp", "none"])?;
        let protocol = match self.otlp_one_of("PROTOCOL", &["grpc", "http/protobuf"])? {
            Some("http/protobuf") => Protocol::HttpBinary,
            _ => Protocol::Grpc,
        };
        let gzip = self.otlp_one_of("COMPRESSION", &["none", "gzip"])? == Some("gzip");
        let timeout = self.otlp_milliseconds("TIMEOUT")?;
        let max_queue_size = self.count("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(2048);
        let endpoint = self.endpoint(protocol)?;
        let Some(endpoint) = endpoint.filter(|_| exporter != Some("none")) else {
            return Ok(None);
        };
        let certificate = self.otlp_file("CERTIFICATE")?;
        let identity = match (
            self.otlp_file("CLIENT_CERTIFICATE")?,
            self.otlp_file("CLIENT_KEY")?,
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let variable = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
                return Err(invalid(
                    variable,
                    "and OTEL_EXPORTER_OTLP_CLIENT_KEY must be set together",
                ));
            }
        };
        Ok(Some(OtlpSettings {
            protocol,
            endpoint,
            gzip,
            timeout,
            certificate,
            identity,
            max_queue_size,
        }))
    }

    /// The resource attributes: those of `OTEL_RESOURCE_ATTRIBUTES`, percent-decoded, and the service name. `OTEL_SERVICE_NAME` takes
    /// precedence; `service_name` is the default.
    pub(crate) fn resource(&self, service_name: &str) -> Checked<Vec<(String, String)>> {
        const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = vec![("service.name".to_owned(), service_name.to_owned())];
        let listed = self.get(VARIABLE).unwrap_or_default();
        for member in listed
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
        {
            let (name, value) = member.split_once('=').ok_or_else(|| {
                invalid(VARIABLE, format!("has `{member}`, which is not name=value"))
            })?;
            let value = percent_decode_str(value.trim()).decode_utf8();
            let value = value.map_err(|_| {
                invalid(VARIABLE, format!("has a value of {name} that is not UTF-8"))
            })?;
            attributes.push((name.trim().to_owned(), value.into_owned()));
        }
        attributes.extend(
            self.get("OTEL_SERVICE_NAME")
                .map(|name| ("service.name".to_owned(), name)),
        );
        Ok(attributes)
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// Name and value of the variable for traces, or else of the general one.
    fn otlp_variable(&self, suffix: &str) -> Option<(String, String)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"]
            .into_iter()
            .find_map(|prefix| {
                let name = format!("{prefix}{suffix}");
                self.get(&name).map(|value| (name, value))
            })
    }

    fn one_of(&self, variable: &str, supported: &[&'static str]) -> Checked<Option<&'static str>> {
        let Some(value) = self.get(variable) else {
            return Ok(None);
        };
        supported_value(variable, &value, supported).map(Some)
    }

    fn otlp_one_of(
        &self,
        suffix: &str,
        supported: &[&'static str],
    ) -> Checked<Option<&'static str>> {
        let Some((variable, value)) = self.otlp_variable(suffix) else {
            return Ok(None);
        };
        supported_value(&variable, &value, supported).map(Some)
    }

    fn flag(&self, variable: &str) -> Checked<bool> {
        Ok(self.one_of(variable, &["true", "false"])? == Some("true"))
    }

    fn count(&self, variable: &str) -> Checked<Option<usize>> {
        let Some(value) = self.get(variable) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(invalid(
                variable,
                format!("is `{value}`; write a positive integer"),
            )),
        }
    }

    fn otlp_milliseconds(&self, suffix: &str) -> Checked<Duration> {
        // The specification's default.
        let Some((variable, value)) = self.otlp_variable(suffix) else {
            return Ok(Duration::from_secs(10));
        };
        match value.parse() {
            Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
            _ => Err(invalid(
                &variable,
                format!("is `{value}`; write milliseconds, for example 10000"),
            )),
        }
    }

    fn otlp_file(&self, suffix: &str) -> Checked<Option<Vec<u8>>> {
        let Some((variable, path)) = self.otlp_variable(suffix) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        let read = fs::read(&path);
        read.map(Some)
            .map_err(|error| invalid(&variable, format!("names {}: {error}", path.display())))
    }

    /// The endpoint of the exporter. Credentials in it are not repeated in the error.
    fn endpoint(&self, protocol: Protocol) -> Checked<Option<String>> {
        let Some((variable, value)) = self.otlp_variable("ENDPOINT") else {
            return Ok(None);
        };
        let http = protocol == Protocol::HttpBinary;
        let example = if http {
            "http://127.0.0.1:4318"
        } else {
            "http://127.0.0.1:4317"
        };
        let has_scheme = value.contains("://");
        let insecure = self.otlp_one_of("INSECURE", &["true", "false"])?;
        let url = match (has_scheme, insecure) {
            (true, _) => value,
            (false, Some(insecure)) if !http => {
                let scheme = if insecure == "true" { "http" } else { "https" };
                format!("{scheme}://{value}")
            }
            (false, _) => {
                return Err(invalid(
                    &variable,
                    format!("has no scheme; write for example {example}, or https:// for TLS"),
                ));
            }
        };
        let uri: Uri = url.parse().map_err(|error| {
            invalid(
                &variable,
                format!("is not a URL ({error}); write for example {example}"),
            )
        })?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid(
                &variable,
                format!("must begin with http:// or https://, for example {example}"),
            ));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(invalid(
                &variable,
                "contains credentials; send them as headers with OTEL_EXPORTER_OTLP_HEADERS=name=value",
            ));
        }
        // The general endpoint is a base URL, to which the signal's path is added; the one for traces is complete.
        Ok(Some(if http && variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
            format!("{}/v1/traces", url.trim_end_matches('/'))
        } else {
            url
        }))
    }

    /// The sampler that `OTEL_TRACES_SAMPLER` names.
    pub(crate) fn sampler(&self) -> Checked<Sampler> {
        const NAMES: [&str; 6] = [
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ];
        let name = self.one_of("OTEL_TRACES_SAMPLER", &NAMES)?;
        let name = name.unwrap_or("parentbased_always_on");
        let root = match name.trim_start_matches("parentbased_") {
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(self.sampling_ratio()?),
            _ => Sampler::AlwaysOn,
        };
        Ok(if name.starts_with("parentbased_") {
            Sampler::ParentBased(Box::new(root))
        } else {
            root
        })
    }

    /// 1 by default, as in the specification.
    fn sampling_ratio(&self) -> Checked<f64> {
        const VARIABLE: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.get(VARIABLE) else {
            return Ok(1.0);
        };
        let ratio = value
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| {
            invalid(
                VARIABLE,
                format!("is `{value}`; write a ratio from 0 to 1, for example 0.1"),
            )
        })
    }

    /// Checks variables that only the SDK reads, which ignores invalid values, and rejects variables that have no effect.
    fn check_unsupported(&self) -> Checked<()> {
        self.one_of("OTEL_LOGS_EXPORTER", &["none"])
            .map_err(|error| error.and("; log lines are written to standard error: collect them with a Collector's filelog receiver"))?;
        for variable in [
            "OTEL_BSP_SCHEDULE_DELAY",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_SPAN_EVENT_COUNT_LIMIT",
            "OTEL_SPAN_LINK_COUNT_LIMIT",
        ] {
            self.count(variable)?;
        }
        for propagator in self
            .get("OTEL_PROPAGATORS")
            .iter()
            .flat_map(|list| list.split(','))
        {
            supported_value(
                "OTEL_PROPAGATORS",
                propagator.trim(),
                &["tracecontext", "baggage"],
            )?;
        }
        for variable in [
            "OTEL_BSP_EXPORT_TIMEOUT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_CONFIG_FILE",
        ] {
            if self.get(variable).is_some() {
                return Err(invalid(variable, "is not supported; unset it"));
            }
        }
        Ok(())
    }
}

impl EnvironmentError {
    fn and(mut self, more: &str) -> Self {
        self.problem.push_str(more);
        self
    }
}

fn invalid(variable: &str, problem: impl Into<String>) -> EnvironmentError {
    EnvironmentError {
        variable: variable.to_owned(),
        problem: problem.into(),
    }
}

fn supported_value(
    variable: &str,
    value: &str,
    supported: &[&'static str],
) -> Checked<&'static str> {
    let found = supported
        .iter()
        .find(|name| name.eq_ignore_ascii_case(value));
    found.copied().ok_or_else(|| {
        invalid(
            variable,
            format!("is `{value}`; supported: {}", supported.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
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
                "OTEL_EXPORTER_OTLP_CLIENT_KEY",
                "/no/such/file",
                "No such file",
            ),
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, none"),
            ("OTEL_LOGS_EXPORTER", "otlp", "standard error"),
            (
                "OTEL_PROPAGATORS",
                "tracecontext,b3",
                "tracecontext, baggage",
            ),
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
            "team=a%2Cb, service.name=second",
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
}
