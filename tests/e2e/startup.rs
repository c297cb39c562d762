//! During a slow startup the process is alive and reports that it is not ready.

use std::{fs, io::ErrorKind, path::Path, process::Command};

use importguard_tests::{
    Binary, Call, Client, OpenIm, PolicyDir, SOON, Service, Settings, eventually, free_port,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Enough to take a while to load, whatever the machine.
const IDS: usize = 1_500_000;

/// Makes a file at `path` whose reader waits until somebody writes it.
fn pipe(path: &Path) -> String {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.display().to_string()
}

/// What `/readyz` of `service` says, with its status, as soon as it says anything.
async fn readiness(service: &Service) -> (u16, Value) {
    let url = format!("http://{}/readyz", service.admin_address());
    eventually("the admin listener answers", SOON, async || {
        let call = Call::new(http::Method::GET, url.clone());
        let response = Client::default().try_send(call).await?;
        let body = serde_json::from_str(response.text())?;
        anyhow::Ok((response.status.as_u16(), body))
    })
    .await
}

async fn until_starting(service: &Service, what: &str) {
    eventually(
        &format!("it opens its {what}"),
        SOON,
        async || match readiness(service).await {
            (503, told) if told["starting"] == json!([what]) => Ok(()),
            told => Err(format!("{told:?}")),
        },
    )
    .await;
    assert_eq!(service.admin("/livez").await.unwrap(), "alive\n");
    let metrics = service.admin("/metrics").await.unwrap();
    assert!(metrics.contains("process_"), "{metrics}");
}

async fn until_ready(service: &mut Service) {
    service.ready().await;
    let (status, told) = readiness(service).await;
    assert_eq!((status, &told["ready"]), (200, &json!(true)));
    assert_eq!(told.get("starting"), None, "{told}");
}

async fn refuses_connections(address: &str) {
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_decider_lives_while_it_loads_a_long_list() {
    let yaml = "apiVersion: importguard/v1
name: long
lists: { blocked: { file: blocked.txt } }
rules: [{ id: blocked, dropFriends: { in: blocked } }]
";
    let ids: String = (0..IDS).map(|id| format!("user{id}\n")).collect();
    let policy = PolicyDir::new(yaml, &[("blocked.txt", &ids)]);
    for binary in [Binary::Decider, Binary::AllInOne] {
        let mut service = Service::spawn(binary, Settings::new().policy(&policy));
        until_starting(&service, "policy").await;
        let grpc = service.grpc_url();
        refuses_connections(grpc.strip_prefix("http://").unwrap()).await;
        until_ready(&mut service).await;
    }
}

#[tokio::test]
async fn a_gateway_lives_while_it_waits_for_a_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("passwords");
    let settings = Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", pipe(&file));
    for binary in [Binary::Gateway, Binary::AllInOne] {
        let mut service = Service::spawn(binary, settings.clone());
        until_starting(&service, "credentials").await;
        // A caller that is refused can ask another gateway; one that waits would wait for as long as the file does.
        refuses_connections(service.http_address()).await;
        fs::write(&file, "openim:s3cret\n").unwrap();
        until_ready(&mut service).await;
        let caller = OpenIm::server(service.url());
        assert_eq!(caller.import("op", "a", &["b"]).await.status, 401);
    }
}

#[tokio::test]
async fn an_error_at_the_start_ends_it_with_1_and_its_text() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("passwords");
    let settings = Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", pipe(&file));
    for binary in [Binary::Gateway, Binary::AllInOne] {
        let mut service = Service::spawn(binary, settings.clone());
        until_starting(&service, "credentials").await;
        fs::write(&file, "no colon\n").unwrap();
        assert_eq!(service.exit(SOON).await.code(), Some(1));
        let said = service.stderr();
        let text = "error: IMPORTGUARD_BASIC_AUTH_FILE=";
        assert!(
            said.contains(text) && said.contains("line 1 has no colon"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn sigterm_ends_it_before_it_has_started() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("passwords");
    let settings = Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", pipe(&file));
    let mut gateway = Service::spawn(Binary::Gateway, settings);
    until_starting(&gateway, "credentials").await;
    let status = gateway.terminate(SOON).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn listeners_on_all_interfaces_are_reached_over_ipv6_and_ipv4() {
    let listeners = [
        "IMPORTGUARD_HTTP_LISTEN",
        "IMPORTGUARD_ADMIN_LISTEN",
        "IMPORTGUARD_DECIDER_LISTEN",
    ];
    let ports = listeners.map(|_| free_port());
    let settings = listeners.iter().zip(ports);
    let settings = settings.fold(Settings::new(), |settings, (name, port)| {
        settings.set(name, format!("[::]:{port}"))
    });
    let service = Service::all_in_one(settings).await;
    for loopback in ["127.0.0.1", "[::1]"] {
        for port in ports {
            TcpStream::connect(format!("{loopback}:{port}"))
                .await
                .unwrap_or_else(|error| panic!("{loopback}:{port}: {error}"));
        }
        let openim = OpenIm::server(format!("http://{loopback}:{}", ports[0]));
        let answer = openim.import("op", "alice", &["bob"]).await;
        assert_eq!(answer.status, 200);
        // A caller over IPv4 is not shown as ::ffff:127.0.0.1.
        let nowhere = Call::new(
            http::Method::POST,
            format!("http://{loopback}:{}/nowhere", ports[0]),
        );
        let rejected = Client::default().try_send(nowhere).await.unwrap();
        assert_eq!(rejected.status, 404);
        service.wait_for_log(&[&format!("peer={loopback}:")]).await;
    }
}

#[tokio::test]
async fn contradictory_settings_are_reported_at_startup() {
    let settings = Settings::new()
        .set("IMPORTGUARD_SHUTDOWN_GRACE", "10s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "3s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "2s");
    let gateway = Service::gateway(settings).await;
    gateway
        .wait_for_log(&["IMPORTGUARD_SHUTDOWN_GRACE", "IMPORTGUARD_DECIDER_TIMEOUT"])
        .await;
    let mut quiet = Service::spawn(Binary::Gateway, Settings::new());
    quiet.ready().await;
    quiet.terminate(SOON).await;
    let quiet = quiet.stderr();
    // The grace is named at each shutdown.
    assert!(!quiet.contains("IMPORTGUARD_DECIDER_TIMEOUT"), "{quiet}");
}
