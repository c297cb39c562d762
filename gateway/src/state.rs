use std::sync::Arc;

use crate::{
    Settings, decide::Deciders, events::Origin, limit::Limit, metrics::Metrics,
    overridden_verdicts::OverriddenVerdicts, recorder::Recorder, request::RequestLog,
    upstream::Upstream,
};

/// The state of layers and handlers.
pub(crate) type App = Arc<AppState>;

/// The state that all requests share.
pub(crate) struct AppState {
    pub(crate) settings: Settings,
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    pub(crate) limit: Limit,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) deciders: Deciders,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) overridden_verdicts: OverriddenVerdicts,
    pub(crate) metrics: Metrics,
    pub(crate) log: RequestLog,
}
