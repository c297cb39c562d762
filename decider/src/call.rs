//! What is recorded about a call: a span, a metric and, if it is refused, a log line.

use std::{
    net::SocketAddr,
    thread,
    time::{Instant, SystemTime},
};

use importguard_core::VerdictKind;
use importguard_telemetry::{
    Flood, propagation,
    span::{KeyValue, ServerSpan},
};
use tonic::{
    Code, Status,
    codegen::http::{HeaderMap, Response},
};
use tracing::warn;

use crate::{
    grpc::METHOD,
    metrics::{CallResult, Metrics},
};

/// A call until it ends. If it is dropped before, its caller has given it up, or it panicked.
pub(crate) struct Call<'a> {
    pub(crate) span: ServerSpan,
    metrics: &'a Metrics,
    began: Instant,
    ended: Option<(CallResult, String)>,
}

impl<'a> Call<'a> {
    /// A call that has just arrived with these `headers`.
    pub(crate) fn start(headers: &HeaderMap, metrics: &'a Metrics) -> Self {
        let operation_id = propagation::metadata_operation_id(headers).ok();
        Self {
            span: ServerSpan::start(headers, operation_id.as_ref(), METHOD, SystemTime::now()),
            metrics,
            began: Instant::now(),
            ended: None,
        }
    }

    /// Ends it with a response, which has a verdict or else a status.
    pub(crate) fn respond<B>(self, response: &Response<B>, peer: SocketAddr, refused: &Flood) {
        match response.extensions().get() {
            Some(verdict) => self.decided(*verdict),
            None => {
                let status = Status::from_header_map(response.headers());
                let status = status.unwrap_or_else(|| Status::internal("no verdict"));
                self.fail(&status, peer, refused);
            }
        }
    }

    fn decided(mut self, verdict: VerdictKind) {
        self.ended = Some((CallResult::Verdict(verdict), String::new()));
    }

    /// Ends it with an error, and logs that, unless the gateway or live lists do.
    pub(crate) fn fail(mut self, status: &Status, peer: SocketAddr, refused: &Flood) {
        let result = CallResult::of(status);
        if !matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable) {
            let line = || {
                let result = result.as_ref();
                warn!(result, %peer, "refused a call: {}", status.message());
            };
            let rest = |calls| warn!(calls, "more calls were refused in the last second");
            self.span.in_scope(|| refused.count(line, rest));
        }
        self.ended = Some((result, status.message().to_owned()));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let (result, message) = self
            .ended
            .take()
            .unwrap_or_else(|| match thread::panicking() {
                true => (CallResult::Internal, "panicked".to_owned()),
                false => (CallResult::Cancelled, String::new()),
            });
        let took = self.began.elapsed();
        self.span.in_scope(|| self.metrics.called(result, took));
        let error = result.is_error();
        self.span.set(|| {
            let code = result.into_str();
            let rpc = [
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", METHOD),
                KeyValue::new("rpc.response.status_code", code),
            ];
            let error_type = error.then(|| KeyValue::new("error.type", code));
            rpc.into_iter().chain(error_type)
        });
        if error {
            self.span.fail(message);
        }
        // An evaluation that has not noticed its end yet has the span as well.
        self.span.end_at(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use importguard_telemetry::metrics::{PolicyInfo, encode};
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn each_call_is_counted_by_how_it_ends() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, PolicyInfo::default());
        let (peer, refused) = (([127, 0, 0, 1], 1).into(), Flood::default());
        let start = || Call::start(&HeaderMap::new(), &metrics);
        let mut decided = Response::new(());
        decided.extensions_mut().insert(VerdictKind::Allow);
        start().respond(&decided, peer, &refused);
        let status = Status::out_of_range("too large").into_http::<()>();
        start().respond(&status, peer, &refused);
        start().fail(&Status::cancelled("too slow"), peer, &refused);
        drop(start());
        let panics = AssertUnwindSafe(|| {
            let _call = start();
            panic!("as intended");
        });
        assert!(catch_unwind(panics).is_err());
        let text = encode(&registry, None).unwrap().text;
        let prefix = "importguard_decider_request_duration_seconds_count{result=";
        let counts = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let mut counts: Vec<_> = counts.filter(|line| !line.ends_with("} 0")).collect();
        counts.sort_unstable();
        assert_eq!(
            counts,
            [
                r#""CANCELLED"} 2"#,
                r#""INTERNAL"} 1"#,
                r#""OUT_OF_RANGE"} 1"#,
                r#""allow"} 1"#
            ]
        );
    }
}
