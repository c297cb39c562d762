use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use http::Uri;
use importguard_runtime::{ClientTls, LastGood};
use rustls::pki_types::ServerName;
use tokio::{net::lookup_host, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tower::{discover::Change, service_fn};
use tracing::warn;

use super::{
    DecideSettings, DeciderTlsError,
    connect::connect,
    endpoint::Decider,
    tls::server_name,
    urls::{host_and_port, uri_of},
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

/// Discovers deciders, as changes to an initially empty set. A new client certificate makes every decider a new one.
#[derive(Debug)]
pub(super) struct Discovery {
    targets: Vec<Target>,
    tls: Option<LastGood<ClientTls>>,
    known: HashMap<SocketAddr, Option<Arc<ClientTls>>>,
    connect_timeout: Duration,
}

/// A URL and the addresses of its deciders.
#[derive(Debug)]
struct Target {
    url: Uri,
    /// The name that their certificates must contain, with TLS.
    name: Option<ServerName<'static>>,
    /// Their addresses when the URL's name was last resolved.
    addresses: Vec<SocketAddr>,
    /// Why the last attempt to resolve it failed, if it did.
    error: Option<String>,
}

impl Discovery {
    pub(super) fn new(
        settings: &DecideSettings,
        tls: Option<LastGood<ClientTls>>,
    ) -> Result<Self, DeciderTlsError> {
        let target = |url: &Uri| {
            let name = tls.as_ref().map(|_| server_name(&settings.tls, url));
            Ok::<_, DeciderTlsError>(Target {
                url: url.clone(),
                name: name.transpose()?,
                addresses: Vec::new(),
                error: None,
            })
        };
        let targets = settings.decider_url.iter().map(target);
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            tls,
            known: HashMap::new(),
            connect_timeout: settings.decider_timeout,
        })
    }

    /// The changes since the last call.
    pub(super) async fn changes(&mut self) -> Vec<Change<SocketAddr, Decider>> {
        join_all(self.targets.iter_mut().map(Target::resolve)).await;
        let tls = self.tls.as_ref().map(LastGood::load);
        let mut wanted = HashMap::new();
        for target in &self.targets {
            for &address in &target.addresses {
                wanted.entry(address).or_insert(target);
            }
        }
        let is_gone = |address: &&SocketAddr| !wanted.contains_key(*address);
        let gone = self.known.keys().filter(is_gone).copied();
        let mut changes: Vec<_> = gone.map(Change::Remove).collect();
        self.known.retain(|address, _| wanted.contains_key(address));
        for (address, target) in wanted {
            let is_same = |known: &Option<Arc<ClientTls>>| {
                known.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr)
            };
            if self.known.get(&address).is_some_and(is_same) {
                continue;
            }
            self.known.insert(address, tls.clone());
            let channel = channel(address, target, self.tls.clone(), self.connect_timeout);
            let decider = Decider::new(address, tls.clone(), channel);
            changes.push(Change::Insert(address, decider));
        }
        changes
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
fn channel(
    address: SocketAddr,
    target: &Target,
    tls: Option<LastGood<ClientTls>>,
    connect_timeout: Duration,
) -> Channel {
    let tls = tls.zip(target.name.clone());
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

    fn addresses(changes: Vec<Change<SocketAddr, Decider>>) -> (Vec<String>, Vec<String>) {
        let (mut inserted, mut removed) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Insert(address, _) => inserted.push(address.to_string()),
                Change::Remove(address) => removed.push(address.to_string()),
            }
        }
        inserted.sort();
        (inserted, removed)
    }

    fn target(url: &Uri) -> Target {
        Target {
            url: url.clone(),
            name: None,
            addresses: Vec::new(),
            error: None,
        }
    }

    #[tokio::test]
    async fn address_changes_are_reported_and_an_unresolvable_name_keeps_its_addresses() {
        let urls = "http://127.0.0.1:9,http://127.0.0.2:9,http://127.0.0.1:9";
        let urls: super::super::DeciderUrls = urls.parse().unwrap();
        let mut discovery = Discovery {
            targets: urls.iter().map(target).collect(),
            tls: None,
            known: HashMap::new(),
            connect_timeout: Duration::from_millis(200),
        };
        let none: Vec<String> = Vec::new();
        let (inserted, removed) = addresses(discovery.changes().await);
        assert_eq!(
            (inserted, removed),
            (
                vec!["127.0.0.1:9".into(), "127.0.0.2:9".into()],
                none.clone()
            )
        );
        assert!(discovery.changes().await.is_empty());

        discovery.targets[1].url = Uri::from_static("http://127.0.0.3:9");
        let (inserted, removed) = addresses(discovery.changes().await);
        assert_eq!(
            (inserted, removed),
            (vec!["127.0.0.3:9".into()], vec!["127.0.0.2:9".into()])
        );

        discovery.targets[1].url = Uri::from_static("http://nobody.invalid:9");
        assert!(discovery.changes().await.is_empty());
        let errors = discovery.errors();
        assert!(
            errors[0].contains("nobody.invalid cannot be resolved"),
            "{errors:?}"
        );
    }
}
