//! Size of the stream and age of its oldest event, as last seen.

use std::{fmt, time::SystemTime};

use async_nats::jetstream::stream::Info;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

/// The stream as last seen; `None` before the first look.
#[derive(Debug, Default)]
pub(super) struct StreamStats(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    bytes: u64,
    /// `None` if there is no limit.
    max_bytes: Option<u64>,
    /// When the oldest event was stored, by NATS's clock; `None` if the stream is empty.
    oldest: Option<SystemTime>,
}

impl StreamStats {
    pub(super) fn set(&self, info: &Info) {
        let max_bytes = u64::try_from(info.config.max_bytes).ok();
        let has_events = info.state.messages > 0;
        *self.0.lock() = Some(Seen {
            bytes: info.state.bytes,
            max_bytes: max_bytes.filter(|&bytes| bytes > 0),
            oldest: has_events.then(|| info.state.first_timestamp.into()),
        });
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let seen = *self.0.lock();
        let oldest = seen.and_then(|seen| seen.oldest);
        // The clocks of NATS and this machine may differ slightly.
        let age = oldest.map(|oldest| oldest.elapsed().unwrap_or_default().as_secs());
        let max_bytes = seen.and_then(|seen| seen.max_bytes);
        for (name, help, value) in [
            (
                "importguard_stream_bytes",
                "Size of the stream IMPORTGUARD, as NATS counts it.",
                seen.map(|seen| seen.bytes),
            ),
            (
                "importguard_stream_max_bytes",
                "Size from which on the stream IMPORTGUARD discards its oldest events, if it has a limit.",
                max_bytes,
            ),
            (
                "importguard_stream_oldest_event_age_seconds",
                "How long ago the oldest event in the stream IMPORTGUARD was stored, in seconds, if there is one.",
                age,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            if let Some(value) = value {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}
