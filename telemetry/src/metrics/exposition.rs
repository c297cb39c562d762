use std::fmt;

use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics in a text format.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The format of `text`.
    pub content_type: &'static str,
    /// The metrics.
    pub text: String,
}

/// Encodes the metrics of `registry`: in the OpenMetrics format, which has exemplars, if one of the request's `Accept` headers accepts
/// it, otherwise in Prometheus's own. Fails if a collector fails.
pub fn encode<'a>(
    registry: &Registry,
    accept: impl IntoIterator<Item = &'a str>,
) -> Result<Exposition, fmt::Error> {
    let mut text = String::new();
    let content_type = if accept.into_iter().any(accepts_openmetrics) {
        text::encode(&mut text, registry)?;
        OPENMETRICS_CONTENT_TYPE
    } else {
        prometheus_text::encode(&mut text, registry)?;
        prometheus_text::CONTENT_TYPE
    };
    Ok(Exposition { content_type, text })
}

/// Whether an `Accept` header accepts the supported version of OpenMetrics.
fn accepts_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        media_type.eq_ignore_ascii_case(OPENMETRICS)
            && parts.all(|parameter| match parameter.split_once('=') {
                Some(("version", version)) => version.trim_matches('"') == "1.0.0",
                Some(("q", weight)) => weight.parse().is_ok_and(|weight: f32| weight > 0.0),
                _ => true,
            })
    })
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn openmetrics_is_served_if_it_is_accepted() {
        // Prometheus 3's own header first.
        for accept in [
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1",
            "Application/OpenMetrics-Text; version=\"1.0.0\"",
            "text/plain, application/openmetrics-text",
        ] {
            assert!(accepts_openmetrics(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text-not",
        ] {
            assert!(!accepts_openmetrics(accept), "{accept}");
        }
    }

    #[test]
    fn a_counter_has_its_suffix_in_both_formats() {
        let mut registry = Registry::default();
        registry.register("example", "Examples", Counter::<u64>::default());
        let plain = encode(&registry, None).unwrap();
        assert_eq!(
            plain.content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert_eq!(
            plain.text,
            "# HELP example_total Examples.\n# TYPE example_total counter\nexample_total 0\n"
        );
        let open = encode(&registry, ["application/openmetrics-text"]).unwrap();
        assert_eq!(open.content_type, OPENMETRICS_CONTENT_TYPE);
        assert_eq!(
            open.text,
            "# HELP example Examples.\n# TYPE example counter\nexample_total 0\n# EOF\n"
        );
    }
}
