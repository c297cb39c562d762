use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use importguard_proto::decider::{
    DecideRequest, DecideResponse, decider_client::DeciderClient, decider_server::SERVICE_NAME,
};
use importguard_runtime::ClientTls;
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
    /// Whether the state is [`State::Usable`], without locking.
    usable: AtomicBool,
    /// Whether it has ever been.
    was_usable: AtomicBool,
    state: Mutex<State>,
}

/// The state of a decider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not checked yet.
    New,
    /// It serves requests.
    Usable,
    /// It gets no calls until a check succeeds; with the reason.
    Ejected(String),
}

impl Decider {
    /// The decider at `address`, which `channel` connects to on first use, with the TLS configuration `tls`.
    pub(super) fn new(address: SocketAddr, tls: Option<Arc<ClientTls>>, channel: Channel) -> Self {
        Self {
            address,
            tls,
            client: DeciderClient::new(channel.clone()),
            health: HealthClient::new(channel),
            in_flight: Gauge::default(),
            usable: AtomicBool::new(false),
            was_usable: AtomicBool::new(false),
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

    /// Whether `found` is this decider with a newer client certificate.
    pub(super) fn is_replaced_by(&self, found: &Self) -> bool {
        self.address == found.address && !self.is(found.address, found.tls.as_ref())
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
        self.usable.load(Relaxed)
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Checks its health with timeout `within` and stores the result.
    pub(super) async fn check(&self, within: Duration) {
        let mut request = Request::new(HealthCheckRequest {
            service: SERVICE_NAME.to_owned(),
        });
        request.set_timeout(within);
        let mut health = self.health.clone();
        let error = match timeout(within, health.check(request)).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::NotServing => {
                Some("health check reports NOT_SERVING".to_owned())
            }
            Ok(Ok(_)) => None,
            Ok(Err(status)) => match DecideError::from_status(&status, within) {
                DecideError::Unavailable(why) if self.may_expect_tls() && broke(&status) => {
                    Some(format!("{why}; {MAY_EXPECT_TLS}"))
                }
                DecideError::Unavailable(why) => Some(why),
                DecideError::Timeout(_) => Some(timed_out(within)),
                // It has no capacity, or does not implement the health service; calls may still succeed.
                DecideError::Overloaded(_) | DecideError::Failed(_) => None,
            },
            Err(_) => Some(timed_out(within)),
        };
        self.enter(error.map_or(State::Usable, State::Ejected));
    }

    /// Whether it is called without TLS, and has never answered.
    fn may_expect_tls(&self) -> bool {
        self.tls.is_none() && !self.was_usable.load(Relaxed)
    }

    /// Stores `state` and logs a change.
    pub(super) fn enter(&self, state: State) {
        self.usable.store(state == State::Usable, Relaxed);
        if state == State::Usable {
            self.was_usable.store(true, Relaxed);
        }
        let before = std::mem::replace(&mut *self.state.lock(), state.clone());
        match (before, state) {
            (State::Usable, State::Usable) | (State::Ejected(_), State::Ejected(_)) => {}
            (State::New, State::Usable) => info!("decider {self} available"),
            (State::Ejected(_), State::Usable) => info!("decider {self} available again"),
            (_, State::Ejected(why)) => warn!("decider {self} unavailable: {why}"),
            (_, State::New) => {}
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
