use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};
use tracing::{info, warn};

use super::{pod::Pod, pods::Pods, tls::Tls, urls::DeciderUrl};

/// How long a name may take to be resolved: as long as the C library waits for its first name server.
const PATIENCE: Duration = Duration::from_secs(5);

/// The deciders behind a URL.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: DeciderUrl,
    pub(super) tls: Option<Tls>,
    /// Where they were when its name could be resolved last.
    addresses: Vec<SocketAddr>,
    /// Why it could not be now.
    trouble: Option<String>,
}

impl Target {
    pub(super) fn new(url: DeciderUrl, tls: Option<Tls>) -> Self {
        Self {
            url,
            tls,
            addresses: Vec::new(),
            trouble: None,
        }
    }

    /// Looks where they are now. Where that cannot be found out they are where they were.
    async fn look_up(&mut self, within: Duration) {
        let DeciderUrl { host, port, .. } = &self.url;
        if let Ok(address) = host.parse::<IpAddr>() {
            self.addresses = vec![SocketAddr::new(address, *port)];
            return;
        }
        let found = match timeout(within, lookup_host((host.as_str(), *port))).await {
            Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the name servers do not answer".to_owned()),
        };
        let trouble = match found {
            Ok(found) if !found.is_empty() => {
                self.addresses = found;
                None
            }
            Ok(_) => Some(format!("{host} has no address")),
            Err(error) => Some(format!("{host} cannot be resolved: {error}")),
        };
        if let (Some(trouble), None) = (&trouble, &self.trouble) {
            warn!("{trouble}; the deciders that are known stay so");
        }
        self.trouble = trouble;
    }
}

/// Keeps the known deciders those that the settings name.
#[derive(Debug)]
pub(super) struct Resolver {
    targets: Vec<Target>,
    pods: Arc<Pods>,
    /// How long a new decider may take to answer.
    patience: Duration,
}

impl Resolver {
    pub(super) fn new(targets: Vec<Target>, pods: Arc<Pods>, patience: Duration) -> Self {
        Self {
            targets,
            pods,
            patience,
        }
    }

    /// Looks for the first time, briefly: nobody is asked anything yet.
    pub(super) async fn begin(&mut self) {
        self.look_up(self.patience).await;
        let (pods, patience) = (self.wanted(), self.patience);
        let pods = pods.map(|(address, target)| Pod::new(address, target, patience));
        self.pods.replace(pods.map(Arc::new).collect());
    }

    /// Looks again: makes who appeared known, forgets who is gone, and has connections made anew where their certificates are
    /// others now.
    pub(super) async fn refresh(&mut self) {
        self.look_up(PATIENCE).await;
        let known = self.pods.all();
        let (mut pods, mut fresh) = (Vec::new(), Vec::new());
        for (address, target) in self.wanted() {
            let old = known.iter().find(|pod| pod.address() == address);
            match old {
                Some(pod) if pod.is_current(target) => pods.push(Arc::clone(pod)),
                _ => fresh.push((Arc::new(Pod::new(address, target, self.patience)), old)),
            }
        }
        // Nobody has to wait for a connection that was not there before.
        join_all(fresh.iter().map(|(pod, _)| pod.check(self.patience))).await;
        for (pod, old) in fresh {
            pods.push(match old {
                Some(old) if old.usable() && !pod.usable() => {
                    warn!("decider {pod} is asked on the old connection: with the new certificates there is none");
                    Arc::clone(old)
                }
                Some(_) => pod,
                None => {
                    info!("decider {pod} is known now");
                    pod
                }
            });
        }
        let gone = |old: &&Arc<Pod>| pods.iter().all(|pod| pod.address() != old.address());
        for pod in known.iter().filter(gone) {
            info!("decider {pod} is forgotten: its name has other addresses");
        }
        self.pods.replace(pods);
    }

    async fn look_up(&mut self, within: Duration) {
        join_all(self.targets.iter_mut().map(|target| target.look_up(within))).await;
        let troubles = self
            .targets
            .iter()
            .filter_map(|target| target.trouble.clone());
        self.pods.unresolved(troubles.collect());
    }

    /// Each address once.
    fn wanted(&self) -> impl Iterator<Item = (SocketAddr, &Target)> {
        let all = || {
            self.targets.iter().flat_map(|target| {
                target
                    .addresses
                    .iter()
                    .map(move |&address| (address, target))
            })
        };
        all()
            .enumerate()
            .filter(move |(index, (address, _))| {
                all().take(*index).all(|(earlier, _)| earlier != *address)
            })
            .map(|(_, wanted)| wanted)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::decide::{DeciderUrls, metrics::Metrics};

    fn resolver(urls: &str) -> Resolver {
        let urls: DeciderUrls = urls.parse().unwrap();
        let targets = urls.iter().map(|url| Target::new(url.clone(), None));
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let pods = Arc::new(Pods::new(metrics));
        Resolver::new(targets.collect(), pods, Duration::from_millis(200))
    }

    fn known(resolver: &Resolver) -> Vec<String> {
        let known = resolver.pods.all();
        let mut known: Vec<_> = known.iter().map(ToString::to_string).collect();
        known.sort();
        known
    }

    #[tokio::test]
    async fn addresses_come_and_go_and_a_name_without_any_keeps_its_last() {
        let mut resolver = resolver("http://127.0.0.1:9,http://127.0.0.2:9,http://127.0.0.1:9");
        resolver.begin().await;
        assert_eq!(known(&resolver), ["127.0.0.1:9", "127.0.0.2:9"]);
        let stays = resolver.pods.all()[0].clone();

        resolver.targets[1].url.host = "127.0.0.3".to_owned();
        resolver.refresh().await;
        assert_eq!(known(&resolver), ["127.0.0.1:9", "127.0.0.3:9"]);
        let same = |pod: &Arc<Pod>| Arc::ptr_eq(pod, &stays);
        assert!(resolver.pods.all().iter().any(same), "it was made anew");

        resolver.targets[1].url.host = "nobody.invalid".to_owned();
        resolver.refresh().await;
        assert_eq!(known(&resolver), ["127.0.0.1:9", "127.0.0.3:9"]);
        let told = resolver.pods.describe().to_string();
        assert!(told.contains("nobody.invalid cannot be resolved"), "{told}");
    }
}
