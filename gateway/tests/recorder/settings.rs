use std::{fs, process::Command};

use importguard_gateway::recorder::StartError;
use importguard_nats::NatsSettingsError;
use importguard_runtime::Secret;
use importguard_tests::{Process, free_port};

use super::*;

/// A nats-server with a configuration of its own.
struct Configured {
    url: String,
    _process: Process,
    _dir: TempDir,
}

impl Configured {
    fn start(config: &str, userinfo: &str) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let file = dir.path().join("nats.conf");
        let store = dir.path().join("store");
        let config = config.replace("STORE", store.to_str().unwrap());
        fs::write(&file, format!("listen: 127.0.0.1:{port}\n{config}")).unwrap();
        let mut command = Command::new(NatsServer::program());
        command.arg("--config").arg(file);
        let process = Process::spawn("nats-server", command, dir.path());
        Self {
            url: format!("nats://{userinfo}127.0.0.1:{port}"),
            _process: process,
            _dir: dir,
        }
    }

    async fn recording(&self, spool: &TempDir) -> Recording {
        Recording::with(settings_for(&self.url, spool)).await
    }
}

impl Recording {
    /// Waits until the last trouble with NATS contains `text`.
    async fn troubled_by(&self, text: &str) -> RecorderStatus {
        eventually(text, SOON, async || {
            let status = self.recorder.status();
            match &status.last_error {
                Some(error) if error.contains(text) => Ok(status),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_of_the_url_are_used_and_not_shown() {
    let config = "jetstream { store_dir: \"STORE\" }\n\
                  authorization { user: guard, password: s3cret }";
    let (nats, spool) = (
        Configured::start(config, "guard:s3cret@"),
        TempDir::new().unwrap(),
    );
    let recording = Recording::with(patient(settings_for(&nats.url, &spool))).await;
    let status = recording.until(State::Streaming).await;
    assert_eq!(recording.record(0).await, Recorded::Streamed);
    assert!(!format!("{status:?}").contains("s3cret"), "{status:?}");
    assert!(!format!("{:?}", recording.recorder).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_events_are_spooled() {
    let config = "jetstream { store_dir: \"STORE\" }\n\
                  authorization { user: guard, password: s3cret }";
    let (nats, spool) = (
        Configured::start(config, "guard:wrong@"),
        TempDir::new().unwrap(),
    );
    let recording = nats.recording(&spool).await;
    recording.troubled_by("authorization violation").await;
    assert_eq!(recording.record(0).await, Recorded::Spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_told_and_events_are_spooled() {
    let (nats, spool) = (Configured::start("", ""), TempDir::new().unwrap());
    let recording = nats.recording(&spool).await;
    let status = recording.troubled_by("JetStream is off").await;
    assert_eq!(status.state, State::Spooling);
    assert_eq!(recording.record(0).await, Recorded::Spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_not_be_created_is_told_and_events_are_spooled() {
    let config = "jetstream { store_dir: \"STORE\", max_file_store: 1MB }";
    let (nats, spool) = (Configured::start(config, ""), TempDir::new().unwrap());
    let recording = nats.recording(&spool).await;
    recording.troubled_by("refused to create it").await;
    assert_eq!(recording.record(0).await, Recorded::Spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_that_lives_is_found() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut settings = settings(&nats, &spool);
    let urls = format!("nats://127.0.0.1:{},{}", free_port(), nats.url());
    settings.nats.nats_url = urls.parse().unwrap();
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_told_at_the_start() {
    let start = async |change: fn(&mut RecordSettings)| -> StartError {
        let (nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
        let mut settings = settings(&nats, &spool);
        change(&mut settings);
        Recorder::start(settings, &mut runtime()).await.unwrap_err()
    };
    let two = start(|settings| {
        settings.nats.nats_url = "nats://user:s3cret@a".parse().unwrap();
        settings.nats.nats_user = Some("user".to_owned());
        settings.nats.nats_password = Some(Secret::new("s3cret"));
    })
    .await;
    assert!(
        matches!(
            two,
            StartError::NatsSettings(NatsSettingsError::TwoLogins("NATS_USER"))
        ),
        "{two}"
    );
    assert!(!two.to_string().contains("s3cret"), "{two}");
    let no_creds = start(|settings| settings.nats.nats_creds = Some("/no/such.creds".into())).await;
    assert!(
        no_creds.to_string().contains("/no/such.creds"),
        "{no_creds}"
    );
    let no_dir = start(|settings| settings.spool = "/proc/spool".into()).await;
    assert!(no_dir.to_string().contains("/proc/spool"), "{no_dir}");
}
