//! The metrics of live lists.

use std::fmt;

use importguard_telemetry::metrics::gauge;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::Watch;

impl Collector for Watch {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.status();
        let lists = self.load();
        gauge(
            &mut encoder,
            "importguard_live_lists_current",
            "1 while every change of the live lists is applied that NATS had within IMPORTGUARD_LISTS_MAX_AGE, or there are none in the policy.",
            f64::from(u8::from(status.is_current())),
        )?;
        gauge(
            &mut encoder,
            "importguard_live_lists_confirmed_timestamp_seconds",
            "When the live lists were last known to be complete, in seconds since 1970; 0 if never.",
            status.confirmed_at().unwrap_or_default(),
        )?;
        gauge(
            &mut encoder,
            "importguard_live_lists_revision",
            "Revision of the bucket of live lists that is applied.",
            lists.revision() as f64,
        )?;
        let (changes, rereads) = status.counts();
        for (name, help, count) in [
            (
                "importguard_live_lists_changes",
                "Changes of live lists that were applied.",
                changes,
            ),
            (
                "importguard_live_lists_rereads",
                "How often all live lists were read anew, because the bucket was created anew, restored or changed behind the watch.",
                rereads,
            ),
        ] {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(counter)?;
        }
        let help =
            "Entries of each live list in the bucket, until they are removed or cleared away.";
        let mut family = encoder.encode_descriptor(
            "importguard_live_list_entries",
            help,
            None,
            MetricType::Gauge,
        )?;
        // A list of the policy that the bucket does not have has nobody on it.
        let needed = status.needed();
        let missing = needed.iter().filter(|name| lists.get(name).is_none());
        let known = lists
            .iter()
            .map(|(name, list)| (name, list.entries.entries()));
        for (name, entries) in known.chain(missing.map(|name| (name.as_str(), 0))) {
            let entries = ConstGauge::new(i64::try_from(entries).unwrap_or(i64::MAX));
            entries.encode(family.encode_family(&[("list", name)])?)?;
        }
        Ok(())
    }
}
