use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use http::Uri;
use importguard_runtime::{ClientTls, LastGood};
use tokio::{net::lookup_host, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use tracing::warn;

use super::{
    DecideSettings, DeciderTlsError,
    connect::{Tls, connect, server_name},
    decider::Decider,
    settings::{host_and_port, uri_of},
};

/// Time limit for resolving a name: as long as the C library waits for its first name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval and timeout of HTTP/2 keep-alive pings: a connection to an unreachable machine fails after both, where TCP alone takes a
/// quarter of an hour. So does one to a suspended decider, which then has no stale requests to process when it resumes.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// HTTP/2 flow-control window of a stream, in bytes: twice a response on ten thousand friends with IDs of a hundred bytes.
const STREAM_WINDOW: u32 = 2 << 20;
/// The window of a connection, in bytes: the largest response leaves room for others.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Space for a response's indexes of friends, per friend: each is kept, or removed by one rule, and its index has at most 28 bits.
const INDEX_BYTES: usize = 4;
/// Space for a response's other parts, the policy's rules and texts among them: as much as tonic allows by default.
const OTHER_BYTES: usize = 4 << 20;

/// Finds deciders. A new client certificate makes every decider a new one.
pub(crate) struct Discovery {
    targets: Vec<Target>,
    connect_timeout: Duration,
    max_response_bytes: usize,
}

/// A URL and the addresses of its deciders.
struct Target {
    url: Uri,
    tls: Option<Tls>,
    /// Their addresses when the URL's name was last resolved.
    addresses: Vec<SocketAddr>,
    /// Why the last attempt to resolve it failed, if it did.
    error: Option<String>,
}

impl Discovery {
    pub(super) fn new(
        settings: &DecideSettings,
        tls: Option<LastGood<ClientTls>>,
        max_friends: usize,
    ) -> Result<Self, DeciderTlsError> {
        let target = |url: &Uri| {
            let tls = match &tls {
                Some(tls) => Some((tls.clone(), server_name(&settings.tls, url)?)),
                None => None,
            };
            Ok::<_, DeciderTlsError>(Target {
                url: url.clone(),
                tls,
                addresses: Vec::new(),
                error: None,
            })
        };
        let targets = settings.decider_url.iter().map(target);
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            connect_timeout: settings.decider_timeout,
            max_response_bytes: max_friends
                .saturating_mul(INDEX_BYTES)
                .saturating_add(OTHER_BYTES),
        })
    }

    /// Resolves the names.
    pub(super) async fn resolve(&mut self) {
        join_all(self.targets.iter_mut().map(Target::resolve)).await;
    }

    /// Whether a name had `address` when it was last resolved.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| target.addresses.contains(&address))
    }

    /// The deciders at the addresses that were last found, without those in `known`.
    pub(super) fn new_deciders(&self, known: &[Arc<Decider>]) -> Vec<Arc<Decider>> {
        let mut new = Vec::new();
        for target in &self.targets {
            let tls = target.tls.as_ref().map(|(tls, _)| tls.load());
            for &address in &target.addresses {
                let mut all = known.iter().chain(&new);
                if all.any(|decider| decider.is(address, tls.as_ref())) {
                    continue;
                }
                let channel = channel(address, target, self.connect_timeout);
                let decider = Decider::new(address, tls.clone(), channel, self.max_response_bytes);
                new.push(Arc::new(decider));
            }
        }
        new
    }

    /// Names that cannot be resolved, and why.
    pub(super) fn errors(&self) -> Vec<String> {
        let errors = self
            .targets
            .iter()
            .filter_map(|target| target.error.clone());
        errors.collect()
    }
}

/// A channel that connects on first use, and again after its connection broke. Must be called inside a tokio runtime.
fn channel(address: SocketAddr, target: &Target, connect_timeout: Duration) -> Channel {
    let tls = target.tls.clone();
    Endpoint::from(uri_of(address))
        .origin(target.url.clone())
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(service_fn(move |_| connect(address, tls.clone())))
}

impl Target {
    /// Resolves the name. Keeps the known addresses if that fails.
    async fn resolve(&mut self) {
        let (host, port) = host_and_port(&self.url);
        if let Ok(address) = host.parse::<IpAddr>() {
            self.addresses = vec![SocketAddr::new(address, port)];
            return;
        }
        let error = match timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await {
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                let none = found.is_empty();
                if !none {
                    self.addresses = found;
                }
                none.then(|| format!("{host} has no address"))
            }
            Ok(Err(error)) => Some(format!("{host} cannot be resolved: {error}")),
            Err(_) => Some(format!(
                "{host} cannot be resolved: the name servers do not respond"
            )),
        };
        if let (Some(error), None) = (&error, &self.error) {
            warn!("{error}; keeping the known deciders");
        }
        self.error = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(deciders: &[Arc<Decider>]) -> Vec<String> {
        deciders.iter().map(ToString::to_string).collect()
    }

    fn target(url: &Uri) -> Target {
        Target {
            url: url.clone(),
            tls: None,
            addresses: Vec::new(),
            error: None,
        }
    }

    #[tokio::test]
    async fn new_addresses_are_found_and_an_unresolvable_name_keeps_its_addresses() {
        let urls = "http://127.0.0.1:9,http://127.0.0.2:9,http://127.0.0.1:9";
        let urls: super::super::DeciderUrls = urls.parse().unwrap();
        let mut discovery = Discovery {
            targets: urls.iter().map(target).collect(),
            connect_timeout: Duration::from_millis(200),
            max_response_bytes: OTHER_BYTES,
        };
        discovery.resolve().await;
        let first = discovery.new_deciders(&[]);
        assert_eq!(addresses(&first), ["127.0.0.1:9", "127.0.0.2:9"]);
        discovery.resolve().await;
        assert!(discovery.new_deciders(&first).is_empty());

        discovery.targets[1].url = Uri::from_static("http://127.0.0.3:9");
        discovery.resolve().await;
        let second = discovery.new_deciders(&first);
        assert_eq!(addresses(&second), ["127.0.0.3:9"]);
        let is_kept = |decider: &Arc<Decider>| discovery.has(decider.address());
        assert!(is_kept(&first[0]) && !is_kept(&first[1]));

        discovery.targets[1].url = Uri::from_static("http://nobody.invalid:9");
        discovery.resolve().await;
        assert!(discovery.has(second[0].address()));
        let errors = discovery.errors();
        assert!(
            errors[0].contains("nobody.invalid cannot be resolved"),
            "{errors:?}"
        );
    }
}
