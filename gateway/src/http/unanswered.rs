use http::StatusCode;
use importguard_telemetry::Served;

use super::{
    Clock,
    span::{End, Request},
    tell,
};
use crate::metrics::Metrics;

/// A request that is not answered yet. Whoever drops it tells that it never was: its caller hung up, or this process ends.
pub(super) struct Open<'a> {
    request: Request<'a>,
    served: Option<Served>,
    metrics: &'a Metrics,
    clock: Clock,
}

impl<'a> Open<'a> {
    pub(super) fn new(
        request: Request<'a>,
        served: Served,
        metrics: &'a Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            request,
            served: Some(served),
            metrics,
            clock,
        }
    }

    /// Tells how it was answered.
    pub(super) fn answered(mut self, end: End, status: StatusCode) {
        if let Some(served) = self.served.take() {
            self.request.end(served, end, status);
        }
        self.metrics
            .answered(self.request.route, status, self.clock.elapsed());
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(served) = self.served.take() {
            self.metrics.abandoned();
            served.in_scope(|| tell::abandoned(self.clock));
            self.request.abandon(served);
        }
    }
}
