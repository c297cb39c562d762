use crate::{NatsServer, OpenIm, Service, Settings};

/// A gateway, a decider and a nats-server as three connected processes.
#[derive(Debug)]
pub struct Line {
    /// Answers callbacks.
    pub gateway: Service,
    /// Decides.
    pub decider: Service,
    /// Stores the events.
    pub nats: NatsServer,
}

impl Line {
    /// The three with their defaults, and long timeouts.
    pub async fn start() -> Self {
        Self::with(Settings::new()).await
    }

    /// The three, with `settings` for gateway and decider, and long timeouts where these name none.
    pub async fn with(settings: Settings) -> Self {
        Self::around(NatsServer::start().await, settings).await
    }

    /// The same without NATS, which a test may start later.
    pub async fn without_nats(settings: Settings) -> Self {
        Self::around(NatsServer::not_started(), settings).await
    }

    /// The same with this `nats`, whose URL `settings` may override.
    pub async fn around(nats: NatsServer, settings: Settings) -> Self {
        let settings = settings.or_set("NATS_URL", || nats.url());
        let settings = settings.with_long_timeouts();
        let decider = Service::decider(settings.clone()).await;
        let mut gateway = Service::gateway(settings.decider(&decider)).await;
        gateway.ready().await;
        Self {
            gateway,
            decider,
            nats,
        }
    }

    /// open-im-server, calling the gateway.
    pub fn server(&self) -> OpenIm {
        OpenIm::server(self.gateway.url())
    }

    /// A caller that follows the documentation, calling the gateway.
    pub fn documented(&self) -> OpenIm {
        OpenIm::documented(self.gateway.url())
    }
}
