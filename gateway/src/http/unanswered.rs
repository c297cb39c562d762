use std::thread;

use http::StatusCode;
use importguard_telemetry::Served;

use super::{
    Clock,
    span::{End, Request},
    tell,
};
use crate::metrics::Metrics;

/// A request that is not answered yet. Dropped as such, it tells that it was abandoned: its caller hung up, or this process
/// ends.
pub(super) struct Unanswered<'a> {
    request: Request<'a>,
    served: Option<Served>,
    metrics: &'a Metrics,
    clock: Clock,
}

impl<'a> Unanswered<'a> {
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

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(served) = self.served.take() else {
            return;
        };
        self.metrics.abandoned();
        if thread::panicking() {
            // That has a line of its own.
            self.request.abandon(served, "panic");
        } else {
            served.in_scope(|| tell::abandoned(self.clock));
            self.request.abandon(served, "abandoned");
        }
    }
}
