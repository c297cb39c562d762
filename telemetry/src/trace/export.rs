use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tracing::{Metadata, info, warn};

/// How many spans nobody took, since the process began.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many spans nobody took, since the process began.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Whether this is the SDK's own line about a batch that nobody took: one every five seconds, which does not say what to do.
pub(crate) fn is_told_here(line: &Metadata<'_>) -> bool {
    line.name() == "BatchSpanProcessor.ExportError"
}

/// Sends spans, and tells once when nobody takes them, and once when somebody does again.
#[derive(Debug)]
pub(super) struct Exporter<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E> Exporter<E> {
    pub(super) fn new(exporter: E) -> Self {
        Self {
            exporter,
            failing: AtomicBool::new(false),
        }
    }
}

impl<E: SpanExporter> SpanExporter for Exporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        let was_failing = self.failing.swap(sent.is_err(), Relaxed);
        match &sent {
            Ok(()) if was_failing => info!("spans are taken again"),
            Ok(()) => {}
            Err(error) => {
                // A usize fits.
                LOST.fetch_add(spans as u64, Relaxed);
                if !was_failing {
                    warn!(
                        "spans are lost, as nobody takes them: {error}; callbacks are answered as ever: see whether OTEL_EXPORTER_OTLP_ENDPOINT names a collector that runs"
                    );
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
