//! The limit of open files: connections to one listener do not exhaust it for the other, and a limit that is too low is reported at
//! startup.

use std::fs;

use importguard_core::Dialect::Server;
use importguard_tests::{Binary, OpenIm, SOON, Service, Settings};
use tokio::net::TcpStream;

use crate::asserts;

#[tokio::test]
async fn idle_connections_to_the_admin_listener_keep_no_probe_out() {
    // What many systems give a process at first, and let it raise.
    let gateway = Service::gateway_with_limits("ulimit -Sn 256", Settings::new()).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(gateway.admin_address()).await.unwrap());
    }
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    asserts::refuses(Server, &answer, 200, 5910);
    gateway.admin("/readyz").await.unwrap();
}

#[tokio::test]
async fn fewer_files_than_connections_are_an_error_at_the_start() {
    for binary in [Binary::Gateway, Binary::AllInOne] {
        let mut process = Service::spawn_with_limits("ulimit -n 200", binary, Settings::new());
        let status = process.exit(SOON).await;
        assert!(!status.success(), "{binary:?}: {status}");
        let said = process.stderr();
        assert!(said.contains("IMPORTGUARD_MAX_CONNECTIONS"), "{said}");
    }
}

#[tokio::test]
async fn fewer_connections_are_enough_for_fewer_files() {
    let settings = Settings::new().set("IMPORTGUARD_MAX_CONNECTIONS", "50");
    let mut gateway = Service::gateway_with_limits("ulimit -n 1024", settings).await;
    assert_eq!(gateway.ended(), None);
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised() {
    let gateway = Service::gateway(Settings::new()).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut files = files.unwrap().split_whitespace().skip(3);
    assert_eq!(files.next(), files.next(), "{limits}");
}
