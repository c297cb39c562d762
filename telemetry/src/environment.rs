//! The OpenTelemetry environment variables that importguard reads itself. An unsupported value is an error: the SDK would ignore it
//! and use a default.
//!
//! The names and their meaning are those of the OpenTelemetry specification (environment variables of the SDK and of the OTLP
//! exporter). An empty variable counts as unset, as the specification says.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use crate::read_file;

/// Maximum size of a file with certificates or a key: far more than the certificates of all public authorities.
const MAX_PEM_BYTES: u64 = 4 << 20;

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
    pub(crate) headers: HeaderMap,
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
        let headers = self.headers()?;
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
            headers,
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
            let decoded = |text: &str| {
                let decoded = percent_decode_str(text.trim()).decode_utf8();
                decoded.map(Cow::into_owned).map_err(|_| {
                    invalid(VARIABLE, format!("has a value of {name} that is not UTF-8"))
                })
            };
            attributes.push((decoded(name)?, decoded(value)?));
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
        let read = read_file(&path, MAX_PEM_BYTES);
        read.map(Some)
            .map_err(|error| invalid(&variable, format!("names {}: {error}", path.display())))
    }

    /// The request headers, percent-decoded. The error repeats nothing of them: a name may be the beginning of a secret.
    fn headers(&self) -> Checked<HeaderMap> {
        let mut headers = HeaderMap::new();
        let Some((variable, list)) = self.otlp_variable("HEADERS") else {
            return Ok(headers);
        };
        let members = list.split(',').map(str::trim);
        let members = members.filter(|member| !member.is_empty());
        for (number, member) in (1..).zip(members) {
            let Some((name, mut value)) = header(member) else {
                return Err(invalid(
                    &variable,
                    format!(
                        "has no header in entry {number}; write name=value,…, with spaces, commas and other special characters in values percent-encoded"
                    ),
                ));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
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
            let supported = ["tracecontext", "baggage"];
            supported_value("OTEL_PROPAGATORS", propagator.trim(), &supported)
                .map_err(|error| error.and("; importguard always propagates both"))?;
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

/// A header in the form `name=value`.
fn header(member: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = member.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let name = name.trim().parse().ok()?;
    Some((name, HeaderValue::from_str(&value).ok()?))
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
