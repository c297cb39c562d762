use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;

use crate::{
    decide::{Deciders, FallbackSettings},
    events::Origin,
    limit::Limit,
    metrics::Metrics,
    openim::{BasePath, Limits, OnMissingOperationId, Refusals},
    overridden_verdicts::OverriddenVerdicts,
    recorder::Recorder,
    request::RequestLog,
    upstream::Upstream,
};

/// The state of layers and handlers.
pub(crate) type App = Arc<AppState>;

/// The state that all requests share.
pub(crate) struct AppState {
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    pub(crate) base_path: BasePath,
    pub(crate) on_missing_operation_id: OnMissingOperationId,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    pub(crate) max_header_bytes: usize,
    pub(crate) body_read_timeout: Duration,
    pub(crate) request_budget: Duration,
    pub(crate) limit: Limit,
    pub(crate) decider_timeout: Duration,
    pub(crate) fallback: FallbackSettings,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) deciders: Deciders,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) overridden_verdicts: OverriddenVerdicts,
    pub(crate) metrics: Metrics,
    pub(crate) log: RequestLog,
}

impl FromRef<App> for Limits {
    fn from_ref(app: &App) -> Self {
        app.limits
    }
}
