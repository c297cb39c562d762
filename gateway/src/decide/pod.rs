use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use importguard_proto::decider::{DecideResponse, decider_server::SERVICE_NAME};
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::{Request, Response, Status, client::Grpc};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{info, warn};

use super::{
    codec::{DecideCodec, Encoded},
    connect::Peer,
    error::DecideError,
    link::Link,
    resolve::Target,
};

/// Where gRPC has the method.
const DECIDE: PathAndQuery = PathAndQuery::from_static("/importguard.decider.v1.Decider/Decide");

/// A decider at one address.
pub(super) struct Pod {
    address: SocketAddr,
    decider: Grpc<Link>,
    health: HealthClient<Link>,
    /// What its connection is made with.
    config: Option<Arc<ClientConfig>>,
    in_flight: AtomicUsize,
    /// The standing in short, for those who have a verdict to ask for.
    usable: AtomicBool,
    standing: Mutex<Standing>,
}

/// What is known of a decider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet.
    New,
    /// It serves.
    Usable,
    /// It does not, for this reason.
    Aside(String),
}

/// A call to a decider, for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pod {
    /// Connects when it is asked first.
    pub(super) fn new(address: SocketAddr, target: &Target, patience: Duration) -> Self {
        let link = Link::new(Peer::new(
            address,
            &target.url,
            target.tls.as_ref(),
            patience,
        ));
        Self {
            address,
            decider: Grpc::new(link.clone()),
            health: HealthClient::new(link),
            config: target.tls.as_ref().map(|tls| tls.config()),
            in_flight: AtomicUsize::new(0),
            usable: AtomicBool::new(false),
            standing: Mutex::new(Standing::New),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its connection is made with the certificates that hold now.
    pub(super) fn is_current(&self, target: &Target) -> bool {
        match (&self.config, &target.tls) {
            (Some(config), Some(tls)) => Arc::ptr_eq(config, &tls.config()),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Asks it for a verdict.
    pub(super) async fn decide(
        &self,
        question: Request<Encoded>,
    ) -> Result<Response<DecideResponse>, Status> {
        let mut decider = self.decider.clone();
        let ready = decider.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        decider.unary(question, DECIDE, DecideCodec).await
    }

    /// Counts a call for as long as the guard lives.
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    pub(super) fn standing(&self) -> Standing {
        self.lock().clone()
    }

    /// Asks it for its health, waits for an answer for at most `within`, and remembers what came of it.
    pub(super) async fn check(&self, within: Duration) {
        let mut question = Request::new(HealthCheckRequest {
            service: SERVICE_NAME.to_owned(),
        });
        question.set_timeout(within);
        let silent = || {
            format!(
                "it did not answer within {}",
                humantime::format_duration(within)
            )
        };
        let mut health = self.health.clone();
        let standing = match timeout(within, health.check(question)).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::NotServing => {
                Standing::Aside("it says that it does not serve".to_owned())
            }
            Ok(Ok(_)) => Standing::Usable,
            Ok(Err(status)) => match DecideError::from_status(&status, within) {
                DecideError::Unavailable(why) => Standing::Aside(why),
                DecideError::Timeout(_) => Standing::Aside(silent()),
                // Somebody is there who does not know the question: what that is worth, a request for a verdict will tell.
                DecideError::Failed(_) => Standing::Usable,
            },
            Err(_) => Standing::Aside(silent()),
        };
        self.stands(standing);
    }

    /// Remembers `standing`, and tells of it where it is another one now.
    pub(super) fn stands(&self, standing: Standing) {
        self.usable
            .store(standing == Standing::Usable, Ordering::Relaxed);
        let before = std::mem::replace(&mut *self.lock(), standing.clone());
        match (before, standing) {
            (Standing::Usable, Standing::Usable) | (Standing::Aside(_), Standing::Aside(_)) => {}
            (Standing::New, Standing::Usable) => info!("decider {self} is usable"),
            (Standing::Aside(_), Standing::Usable) => info!("decider {self} is usable again"),
            (_, Standing::Aside(why)) => warn!("decider {self} is put aside: {why}"),
            (_, Standing::New) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.address, self.standing())
    }
}
