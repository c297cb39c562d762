//! A gateway and a NATS with one fault.

use std::{collections::BTreeMap, fs, time::Duration};

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy, Source},
};
use importguard_tests::{NatsServer, OpenIm, Proxy, Service, Settings, eventually, stored_with};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Fault, SOON, Told};

const STREAM: &str = "IMPORTGUARD";
const EVERY_SUBJECT: &str = "importguard.v1.>";
const DECISIONS: &str = "importguard.v1.decision.*";
const IMPORTED: &str = "importguard.v1.imported";

/// The configuration of nats-server.
#[derive(Clone)]
struct NatsConfig {
    jetstream: &'static str,
    max_payload: &'static str,
    password: &'static str,
    denied: &'static str,
}

const SOUND: NatsConfig = NatsConfig {
    jetstream: "enabled",
    max_payload: "1MB",
    password: "secret",
    denied: "importguard.v2.nothing",
};

/// A gateway, and a NATS that it reaches through a proxy.
pub(super) struct World {
    pub(super) nats: NatsServer,
    proxy: Proxy,
    pub(super) gateway: Service,
    dir: TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("nats.conf");
        write(&dir, &SOUND);
        let nats = NatsServer::configured(file, &[], "admin:admin").await;
        let proxy = Proxy::to(nats.address()).await;
        let url = format!("nats://gateway:secret@{}", proxy.address());
        let settings = Settings::new().with_long_timeouts().set("NATS_URL", url);
        let gateway = Service::gateway(settings).await;
        gateway.wait_for_recorder("streaming").await;
        Self {
            nats,
            proxy,
            gateway,
            dir,
        }
    }

    /// Callbacks that become events on two subjects, all answered.
    pub(super) async fn ask(&self, name: &str) -> Vec<String> {
        let server = OpenIm::server(self.gateway.url());
        let mut asked = Vec::new();
        for number in 0..4 {
            let id = format!("{name}-{number}-decision");
            let answer = server.import(&id, "a", &["b"]).await;
            // There is no decider; and 5914 would say that it is not recorded.
            assert_eq!(crate::asserts::code(&answer), 5910, "{id}");
            asked.push(id);
            let id = format!("{name}-{number}-imported");
            let answer = server.send(server.after_import(&id, "a", &["b"])).await;
            assert_eq!(crate::asserts::code(&answer), 0, "{id}");
            asked.push(id);
        }
        asked
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.nats.client().await)
    }

    async fn change(&self, change: impl FnOnce(&mut Config)) {
        let jetstream = self.jetstream().await;
        let mut stream = jetstream.get_stream(STREAM).await.unwrap();
        let mut config = stream.info().await.unwrap().config.clone();
        change(&mut config);
        jetstream.update_stream(config).await.unwrap();
    }

    async fn delete(&self, stream: &str) {
        self.jetstream().await.delete_stream(stream).await.unwrap();
    }

    async fn create(&self, config: Config) {
        self.jetstream().await.create_stream(config).await.unwrap();
    }

    async fn configure(&self, config: &NatsConfig) {
        write(&self.dir, config);
        self.nats.reload().await;
    }

    async fn restart_as(&mut self, config: &NatsConfig) {
        write(&self.dir, config);
        self.nats.kill9();
        self.nats.restart().await;
    }

    pub(super) async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::NoStream => {
                let denied = NatsConfig {
                    denied: "$JS.API.STREAM.CREATE.IMPORTGUARD",
                    ..SOUND
                };
                self.configure(&denied).await;
                self.delete(STREAM).await;
            }
            Fault::JetStreamOff => {
                let off = NatsConfig {
                    jetstream: "disabled",
                    ..SOUND
                };
                self.restart_as(&off).await;
            }
            Fault::PermissionDenied => {
                let denied = NatsConfig {
                    denied: IMPORTED,
                    ..SOUND
                };
                self.configure(&denied).await;
            }
            Fault::WrongPassword => {
                let another = NatsConfig {
                    password: "another",
                    ..SOUND
                };
                self.configure(&another).await;
            }
            Fault::MaxPayload => {
                let small = NatsConfig {
                    max_payload: "600",
                    ..SOUND
                };
                self.restart_as(&small).await;
                self.gateway.wait_for_recorder("streaming").await;
            }
            Fault::MaxMessageSize => self.change(|config| config.max_message_size = 300).await,
            Fault::Sealed => self.change(|config| config.sealed = true).await,
            Fault::Mirror => {
                self.delete(STREAM).await;
                self.create(Config {
                    name: "ORIGIN".to_owned(),
                    ..Config::default()
                })
                .await;
                self.create(Config {
                    name: STREAM.to_owned(),
                    mirror: Some(Source {
                        name: "ORIGIN".to_owned(),
                        ..Source::default()
                    }),
                    ..Config::default()
                })
                .await;
            }
            Fault::SubjectMissing => self.only_decisions().await,
            Fault::OtherStream => {
                self.only_decisions().await;
                self.create(Config {
                    name: "OTHER".to_owned(),
                    subjects: vec![IMPORTED.to_owned()],
                    ..Config::default()
                })
                .await;
            }
            Fault::Frozen => self.nats.freeze().await,
            Fault::Stalled => self.proxy.stall(),
            Fault::Torn => {
                let ask = self.ask("torn");
                tokio::join!(self.proxy.cut(), ask);
            }
            Fault::Killed => self.nats.kill9(),
            Fault::Full => {
                let full = |config: &mut Config| {
                    config.discard = DiscardPolicy::New;
                    config.max_messages = 8;
                };
                self.change(full).await;
            }
            Fault::NoAck => self.change(|config| config.no_ack = true).await,
        }
    }

    async fn only_decisions(&self) {
        self.change(|config| config.subjects = vec![DECISIONS.to_owned()])
            .await;
    }

    pub(super) async fn mend(&mut self, fault: Fault) {
        let every_subject = |config: &mut Config| config.subjects = vec![EVERY_SUBJECT.to_owned()];
        match fault {
            Fault::NoStream | Fault::WrongPassword => self.configure(&SOUND).await,
            Fault::PermissionDenied => {
                self.configure(&SOUND).await;
                // Nothing tells a client what it may: until it is tried again by itself, SIGHUP has it tried.
                self.gateway.sighup();
            }
            Fault::JetStreamOff | Fault::MaxPayload => self.restart_as(&SOUND).await,
            Fault::MaxMessageSize => self.change(|config| config.max_message_size = -1).await,
            Fault::Sealed | Fault::Mirror => {
                // A stream that is created while nats-server 2.9 still deletes the files of its namesake can lose its first ones.
                self.proxy.stall();
                self.delete(STREAM).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.proxy.restore().await;
            }
            Fault::SubjectMissing => self.change(every_subject).await,
            Fault::OtherStream => {
                self.delete("OTHER").await;
                self.change(every_subject).await;
            }
            Fault::Frozen => self.nats.thaw(),
            Fault::Stalled => self.proxy.restore().await,
            Fault::Torn => {}
            Fault::Killed => self.nats.restart().await,
            Fault::Full => self.change(|config| config.max_messages = -1).await,
            Fault::NoAck => self.change(|config| config.no_ack = false).await,
        }
    }

    /// Gives the gateway its permissions back, and tells it nothing.
    pub(super) async fn permit_everything(&self) {
        self.configure(&SOUND).await;
    }

    /// Keeps the spool from taking events for as long as this lives.
    pub(super) fn locked_spool(&self) -> Connection {
        let spool = Connection::open(self.gateway.spool_dir().join("spool.db")).unwrap();
        spool.execute_batch("BEGIN IMMEDIATE").unwrap();
        spool
    }

    /// Reports an import, and returns whether its event is in the stream.
    pub(super) async fn reports(&self, id: &str) -> bool {
        let server = OpenIm::server(self.gateway.url());
        server.send(server.after_import(id, "a", &["b"])).await;
        self.streamed().await.contains_key(id)
    }

    /// How often each operation is in the stream.
    pub(super) async fn streamed(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for event in stored_with(self.nats.client().await).await {
            *times.entry(event.operation_id().to_owned()).or_default() += 1;
        }
        times
    }

    pub(super) async fn tells(&self, told: &Told) {
        let (state, text) = match told {
            Told::Spooling(text) => ("spooling", *text),
            Told::Parked(reason) => ("streaming", *reason),
            Told::Anything => return,
        };
        eventually(&format!("{state} and {text} are told"), SOON, async || {
            let recorder = self.gateway.recorder().await?;
            let is_told = match told {
                Told::Parked(reason) => {
                    let parked = recorder["parked"].as_array();
                    let of_reason = parked.is_some_and(|all| {
                        all.iter().any(|parked| {
                            parked["reason"] == *reason && parked["detail"].is_string()
                        })
                    });
                    let gauge = format!("importguard_spool_parked_events{{reason=\"{reason}\"}}");
                    of_reason && self.gateway.metric(&gauge).await? > 0.0
                }
                _ => recorder["lastError"]
                    .as_str()
                    .is_some_and(|error| error.contains(text)),
            };
            anyhow::ensure!(recorder["state"] == state && is_told, "{recorder}");
            Ok(())
        })
        .await;
    }
}

fn write(dir: &TempDir, config: &NatsConfig) {
    let NatsConfig {
        jetstream,
        max_payload,
        password,
        denied,
    } = config;
    let text = format!(
        "jetstream {{ store_dir: $STORE_DIR }}
         max_payload: {max_payload}
         no_auth_user: admin
         accounts {{ A {{ jetstream: {jetstream}, users: [
             {{ user: admin, password: admin }}
             {{ user: gateway, password: {password}, permissions: {{ publish: {{ deny: \"{denied}\" }} }} }}
         ] }} }}"
    );
    fs::write(dir.path().join("nats.conf"), text).unwrap();
}
