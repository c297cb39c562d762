use std::{fmt, mem::replace, net::SocketAddr, sync::Arc, time::Duration};

use importguard_proto::decider::{
    DecideRequest, DecideResponse, decider_client::DeciderClient, decider_server::SERVICE_NAME,
};
use importguard_runtime::{ClientTls, Saturation};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::timeout;
use tonic::{Request, Response, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{info, warn};

use super::fallback::{DecideError, broke};
use crate::metrics::Counted;

/// Why the connection may have broken. A decider with TLS closes a connection without it, and cannot say why.
const MAY_EXPECT_TLS: &str = "it may require TLS: then use https:// in IMPORTGUARD_DECIDER_URL, and set IMPORTGUARD_DECIDER_CA_FILE";

/// One decider: its channel, load and health. A different address or client certificate makes it a different decider.
pub(super) struct Decider {
    address: SocketAddr,
    tls: Option<Arc<ClientTls>>,
    client: DeciderClient<Channel>,
    health: HealthClient<Channel>,
    in_flight: Gauge,
    state: Mutex<State>,
}

/// The state of a decider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not checked yet.
    New,
    /// It serves requests.
    Usable,
    /// It gets no calls until a check succeeds.
    Ejected { why: String, was_usable: bool },
}

impl Decider {
    /// The decider at `address`, which `channel` connects to on first use, with the TLS configuration `tls`. Its responses may have so
    /// many bytes.
    pub(super) fn new(
        address: SocketAddr,
        tls: Option<Arc<ClientTls>>,
        channel: Channel,
        max_response_bytes: usize,
    ) -> Self {
        let client = DeciderClient::new(channel.clone());
        Self {
            address,
            tls,
            client: client.max_decoding_message_size(max_response_bytes),
            health: HealthClient::new(channel),
            in_flight: Gauge::default(),
            state: Mutex::new(State::New),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is the decider at `address` that was found with the TLS configuration `tls`.
    pub(super) fn is(&self, address: SocketAddr, tls: Option<&Arc<ClientTls>>) -> bool {
        self.address == address && self.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
    }

    /// Requests a decision.
    pub(super) async fn decide(
        &self,
        request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        let _in_flight = Counted::new(&self.in_flight);
        self.client.clone().decide(request).await
    }

    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    pub(super) fn is_usable(&self) -> bool {
        *self.state.lock() == State::Usable
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Checks its health with timeout `within` and stores the result.
    pub(super) async fn check(&self, within: Duration) {
        self.enter(self.health(within).await);
    }

    /// Why it cannot be used, if so, by a health check with timeout `within`.
    pub(super) async fn health(&self, within: Duration) -> Option<String> {
        let mut request = Request::new(HealthCheckRequest {
            service: SERVICE_NAME.to_owned(),
        });
        request.set_timeout(within);
        let mut health = self.health.clone();
        let waited = Saturation::begin();
        // If this process had no time for an answer, what was known stays.
        let late = || match waited.is_saturated() {
            true => self.state().problem(within),
            false => Some(timed_out(within)),
        };
        match timeout(within, health.check(request)).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::NotServing => {
                Some("health check reports NOT_SERVING".to_owned())
            }
            Ok(Ok(_)) => None,
            Ok(Err(status)) => match DecideError::from_status(&status, within) {
                DecideError::Unavailable { why, .. } => {
                    Some(match self.may_expect_tls() && broke(&status) {
                        true => format!("{why}; {MAY_EXPECT_TLS}"),
                        false => why,
                    })
                }
                DecideError::Timeout(_) => late(),
                // It has no capacity, or does not implement the health service; calls may still succeed.
                DecideError::Overloaded(_) | DecideError::Saturated(_) | DecideError::Failed(_) => {
                    None
                }
            },
            Err(_) => late(),
        }
    }

    /// Whether it is called without TLS, and has never answered.
    fn may_expect_tls(&self) -> bool {
        self.tls.is_none() && !self.state.lock().was_usable()
    }

    /// Stores whether it is usable, or why not, and logs a change.
    pub(super) fn enter(&self, error: Option<String>) {
        let mut state = self.state.lock();
        let next = match &error {
            None => State::Usable,
            Some(why) => State::Ejected {
                why: why.clone(),
                was_usable: state.was_usable(),
            },
        };
        let before = replace(&mut *state, next);
        drop(state);
        match (before, error) {
            (State::New, None) => info!("decider {self} available"),
            (State::Ejected { .. }, None) => info!("decider {self} available again"),
            (State::New | State::Usable, Some(why)) => warn!("decider {self} unavailable: {why}"),
            (State::Usable, None) | (State::Ejected { .. }, Some(_)) => {}
        }
    }
}

impl State {
    /// Why a decider in this state cannot be used, after a check that says nothing within `within`.
    fn problem(self, within: Duration) -> Option<String> {
        match self {
            Self::New => Some(timed_out(within)),
            Self::Usable => None,
            Self::Ejected { why, .. } => Some(why),
        }
    }

    /// Whether it has ever been usable.
    fn was_usable(&self) -> bool {
        match self {
            Self::New => false,
            Self::Usable => true,
            Self::Ejected { was_usable, .. } => *was_usable,
        }
    }
}

fn timed_out(within: Duration) -> String {
    let within = humantime::format_duration(within);
    format!("no response within {within}")
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
