use std::ffi::{OsStr, OsString};

/// `OTEL_METRICS_EXPORTER` selects an exporter that importguard does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "OTEL_METRICS_EXPORTER={} is not supported: metrics are not pushed but served at /metrics on IMPORTGUARD_ADMIN_LISTEN; \
     unset the variable (or set prometheus or none), and scrape them, for example with the OpenTelemetry Collector's prometheus \
     receiver",
    .0.display()
)]
pub struct UnsupportedExporterError(OsString);

/// Checks the value of `OTEL_METRICS_EXPORTER`. An empty one counts as unset, as OpenTelemetry's specification says.
pub(super) fn check(exporter: Option<&OsStr>) -> Result<(), UnsupportedExporterError> {
    match exporter {
        Some(exporter)
            if !["", "none", "prometheus"]
                .iter()
                .any(|known| exporter == *known) =>
        {
            Err(UnsupportedExporterError(exporter.to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prometheus_and_no_exporter_are_supported() {
        for supported in [None, Some(""), Some("none"), Some("prometheus")] {
            assert_eq!(check(supported.map(OsStr::new)), Ok(()), "{supported:?}");
        }
        for unsupported in ["otlp", "console", "prometheus,otlp", "None"] {
            let error = check(Some(OsStr::new(unsupported))).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("OTEL_METRICS_EXPORTER={unsupported} "))
            );
        }
    }
}
