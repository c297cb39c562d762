//! What both pods' metrics are made with. Each declares its own with [`families!`](crate::families): a doc comment is the help text.
//! No user id and no operationID is ever a label.

mod each;
mod family;
mod lost;
mod policy;
mod process;

use prometheus::Registry;

pub use self::{
    each::{Each, Label, Labels},
    family::Family,
    policy::policy_info,
};

/// A registry that tells of the process and its build already; the pods add what they count.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    Build::register(&registry)?
        .info
        .with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH])
        .set(1);
    lost::register(&registry)?;
    process::register(&registry)?;
    Ok(registry)
}

crate::families! {
    struct Build {
        /// 1, with the version of importguard and what it was built for.
        info: prometheus::IntGaugeVec = "importguard_build_info", ["version", "arch"];
    }
}

/// Declares a struct of metrics, and how they are made and registered:
///
/// ```
/// # use prometheus::{IntCounter, HistogramVec, Registry};
/// importguard_telemetry::families! {
///     /// What is counted.
///     struct Metrics {
///         /// Cups of tea.
///         cups: IntCounter = "tea_cups_total";
///         /// Seconds until the water boiled, by kettle.
///         boiling: HistogramVec = "tea_boiling_seconds", ["kettle"], in [1.0, 10.0, 100.0];
///     }
/// }
/// let metrics = Metrics::register(&Registry::new())?;
/// metrics.cups.inc();
/// metrics.boiling.with_label_values(&["blue"]).observe(42.0);
/// # Ok::<_, prometheus::Error>(())
/// ```
///
/// A field's doc comment is the family's help text. The struct is a collector itself: one that fills its metrics only when it is
/// asked makes them with `new` and delegates.
#[macro_export]
macro_rules! families {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {$(
            $(#[doc = $help:literal])+
            $field:ident: $kind:ty = $family:literal
            $(, [$($label:literal),+])? $(, in $buckets:expr)?;
        )+}
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        $vis struct $name {$(
            $(#[doc = $help])+
            $field: $kind,
        )+}

        impl $name {
            /// Makes the metrics and registers them; an error if that was done before.
            #[allow(dead_code)]
            $vis fn register(registry: &::prometheus::Registry) -> ::prometheus::Result<Self> {
                let metrics = Self::new()?;
                registry.register(::std::boxed::Box::new(metrics.clone()))?;
                Ok(metrics)
            }

            $vis fn new() -> ::prometheus::Result<Self> {
                Ok(Self {$(
                    $field: <$kind as $crate::metrics::Family>::new(
                        $family,
                        ::std::concat!($($help),+).trim(),
                        &[$($($label),+)?],
                        [$(&$buckets as &[f64])?].first().copied(),
                    )?,
                )+})
            }
        }

        impl ::prometheus::core::Collector for $name {
            fn desc(&self) -> ::std::vec::Vec<&::prometheus::core::Desc> {
                let mut all = ::std::vec::Vec::new();
                $(all.extend(::prometheus::core::Collector::desc(&self.$field));)+
                all
            }

            fn collect(&self) -> ::std::vec::Vec<::prometheus::proto::MetricFamily> {
                let mut all = ::std::vec::Vec::new();
                $(all.extend(::prometheus::core::Collector::collect(&self.$field));)+
                all
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, IntCounter, TextEncoder};

    use super::*;

    crate::families! {
        struct Sample {
            /// One line of help
            /// and another.
            one: IntCounter = "one_total";
            /// Buckets.
            two: Histogram = "two_seconds", in [0.5, 1.0];
        }
    }

    #[test]
    fn a_doc_comment_is_the_help_text() {
        let registry = Registry::new();
        let sample = Sample::register(&registry).unwrap();
        sample.one.inc();
        sample.two.observe(0.7);
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(
            text.contains("# HELP one_total One line of help and another.\n"),
            "{text}"
        );
        assert!(
            text.contains("two_seconds_bucket{le=\"0.5\"} 0\n"),
            "{text}"
        );
        assert!(text.contains("two_seconds_bucket{le=\"1\"} 1\n"), "{text}");
        assert!(Sample::register(&registry).is_err());
    }

    #[test]
    fn a_registry_begins_with_the_process_and_its_build() {
        let text = TextEncoder::new()
            .encode_to_string(&registry().unwrap().gather())
            .unwrap();
        for name in [
            "importguard_build_info{",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name} in {text}");
        }
    }
}
