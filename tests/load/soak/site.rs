use std::time::Duration;

use anyhow::ensure;
use importguard_tests::{
    MountedSecret, NatsServer, OpenIm, SOON, Service, TestAuthority, TestCertificate, Vitals,
    eventually,
};
use tokio::time::sleep;

use super::faults::Fault;
use crate::chaos::quiet;

/// How long somebody is away or stands still: long enough for everybody else to notice, and over well before the next fault.
const AWHILE: Duration = Duration::from_secs(3);

/// A gateway with TLS on both of its sides, three deciders, and NATS.
pub(super) struct Site {
    gateway: Service,
    deciders: Vec<Service>,
    nats: NatsServer,
    authority: TestAuthority,
    /// What the gateway shows its callers, in turns.
    public: [TestCertificate; 2],
    secrets: Secrets,
    exchanges: usize,
}

struct Secrets {
    public: MountedSecret,
    gateway: MountedSecret,
    decider: MountedSecret,
}

impl Site {
    pub(super) async fn start() -> Self {
        let (nats, authority) = (NatsServer::start().await, TestAuthority::new());
        let public = [TestCertificate::new(), TestCertificate::new()];
        let ca = authority.pem();
        let inner = || MountedSecret::new(&authority.certificate().files_trusting(&ca));
        let secrets = Secrets {
            public: MountedSecret::new(&public[0].files()),
            gateway: inner(),
            decider: inner(),
        };
        let decider = quiet().requiring_clients(&secrets.decider);
        let mut deciders = Vec::new();
        for _ in 0..3 {
            deciders.push(Service::decider(decider.clone()).await);
        }
        let urls: Vec<_> = deciders.iter().map(Service::grpc_tls_url).collect();
        let settings = quiet()
            .nats(&nats)
            .to_deciders(&secrets.gateway, urls.join(","))
            .tls(&secrets.public)
            // Ten minutes are more than the gigabyte that a stream keeps by default.
            .set("IMPORTGUARD_STREAM_MAX_BYTES", "-1");
        let gateway = Service::gateway(settings.with_long_timeouts()).await;
        let site = Self {
            gateway,
            deciders,
            nats,
            authority,
            public,
            secrets,
            exchanges: 0,
        };
        site.recovers().await;
        site
    }

    /// A caller who believes in whatever certificate the gateway shows.
    pub(super) fn caller(&self) -> OpenIm {
        let url = self.gateway.url().replace("http://", "https://");
        OpenIm::server(url).trusting(&self.public)
    }

    pub(super) fn nats(&self) -> &NatsServer {
        &self.nats
    }

    /// Lets `fault` happen and puts it right.
    pub(super) async fn suffer(&mut self, fault: Fault) {
        // The first decider is never killed, so that it can be seen to grow or not.
        let victim = 1 + self.exchanges % 2;
        self.exchanges += 1;
        match fault {
            Fault::DeciderKilled => {
                self.deciders[victim].kill9();
                sleep(AWHILE).await;
                self.deciders[victim].restart().await;
            }
            Fault::DeciderFrozen => {
                self.deciders[victim].freeze().await;
                sleep(AWHILE).await;
                self.deciders[victim].thaw();
            }
            Fault::NatsFrozen => {
                self.nats.freeze().await;
                sleep(AWHILE).await;
                self.nats.thaw();
            }
            Fault::NatsKilled => {
                self.nats.kill9();
                sleep(AWHILE).await;
                self.nats.restart().await;
            }
            Fault::PolicyExchanged => self.exchange_policies(),
            Fault::PolicyBroken => self.break_policies().await,
            Fault::CertificatesExchanged => self.exchange_certificates().await,
        }
    }

    /// Another digest, and the same verdicts.
    fn exchange_policies(&self) {
        for decider in &self.deciders {
            let policy = decider.policy();
            let usual = std::fs::read_to_string(policy.path()).unwrap();
            policy.replace("policy.yaml", &format!("{usual}# exchanged\n"));
        }
    }

    async fn break_policies(&self) {
        for decider in &self.deciders {
            let policy = decider.policy();
            let usual = std::fs::read_to_string(policy.path()).unwrap();
            policy.replace("policy.yaml", "nonsense\n");
            let in_error = "importguard_policy_in_error";
            decider.wait_for_metric(in_error, |it| it == 1.0).await;
            policy.replace("policy.yaml", &usual);
            decider.wait_for_metric(in_error, |it| it == 0.0).await;
        }
    }

    async fn exchange_certificates(&mut self) {
        let ca = self.authority.pem();
        let applied = async |gateway: &Service| {
            let name = "importguard_file_reloads_total{outcome=\"applied\",setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
            gateway.metric(name).await.unwrap_or(0.0)
        };
        let before = applied(&self.gateway).await;
        // The one that is not shown now: exchanges of certificates count the reloads.
        let next = (before as usize + 1) % 2;
        self.secrets.public.replace(&self.public[next].files());
        for secret in [&mut self.secrets.gateway, &mut self.secrets.decider] {
            secret.replace(&self.authority.certificate().files_trusting(&ca));
        }
        eventually("the new certificate is shown", SOON, async || {
            let now = applied(&self.gateway).await;
            ensure!(now > before, "it isn't");
            Ok(())
        })
        .await;
    }

    /// Waits until all deciders are asked and events stream.
    pub(super) async fn recovers(&self) {
        let usable = "importguard_deciders{state=\"usable\"}";
        self.gateway
            .wait_for_metric(usable, |found| found == 3.0)
            .await;
        self.gateway.wait_for_recorder("streaming").await;
    }

    /// Ends the gateway, after which it can't store one more event.
    pub(super) async fn ends_well(&mut self) {
        let status = self.gateway.terminate(SOON).await;
        assert!(status.success(), "{status}");
    }

    /// Of the two that live from the start to the end.
    pub(super) fn vitals(&self) -> [Vitals; 2] {
        [self.gateway.vitals(), self.deciders[0].vitals()]
    }
}

/// The last third is no larger than the one before, but for what an allocator keeps and what is under way.
pub(super) fn nothing_grew(vitals: &[[Vitals; 2]]) {
    let third = vitals.len() / 3;
    let (middle, last) = (&vitals[third..2 * third], &vitals[2 * third..]);
    for (index, name) in ["the gateway", "the decider"].into_iter().enumerate() {
        let most = |all: &[[Vitals; 2]], what: fn(&Vitals) -> u64| {
            all.iter().map(|one| what(&one[index])).max().unwrap_or(0)
        };
        for (what, of, room) in [
            (
                "bytes in memory",
                (|v: &Vitals| v.resident_bytes) as fn(&Vitals) -> u64,
                8 << 20,
            ),
            ("open files", |v: &Vitals| v.files as u64, 16),
            ("threads", |v: &Vitals| v.threads as u64, 8),
        ] {
            let (before, after) = (most(middle, of), most(last, of));
            eprintln!("soak: {name}: {before} {what}, and {after} at the end");
            assert!(
                after <= before + before / 4 + room,
                "{name} had {before} {what}, and has {after}"
            );
        }
    }
}
