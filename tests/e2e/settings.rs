//! `--help` is the reference of the settings.

use std::process::Command;

use importguard_tests::{Binary, SOON, Service, Settings};

fn help(binary: Binary, arguments: &[&str]) -> String {
    let output = Command::new(binary.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{binary:?} {arguments:?}: {}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn mentions(help: &str, names: &[&str]) {
    for name in names {
        let whole = help
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .any(|word| word == *name);
        assert!(whole, "no {name} in:\n{help}");
    }
}

const GATEWAY: [&str; 40] = [
    "IMPORTGUARD_ON_OVERLOAD",
    "IMPORTGUARD_MAX_IN_FLIGHT",
    "IMPORTGUARD_QUEUE_TIMEOUT",
    "IMPORTGUARD_OVERLOAD_EVENTS",
    "IMPORTGUARD_MAX_CONNECTIONS",
    "IMPORTGUARD_MAX_HEADER_BYTES",
    "IMPORTGUARD_HEADER_READ_TIMEOUT",
    "IMPORTGUARD_BODY_READ_TIMEOUT",
    "IMPORTGUARD_IDLE_TIMEOUT",
    "IMPORTGUARD_WRITE_TIMEOUT",
    "IMPORTGUARD_MAX_BYTES_IN_FLIGHT",
    "IMPORTGUARD_HTTP2_MAX_STREAMS",
    "IMPORTGUARD_SHUTDOWN_GRACE",
    "IMPORTGUARD_SHUTDOWN_TIMEOUT",
    "IMPORTGUARD_TLS_CERT_FILE",
    "IMPORTGUARD_TLS_KEY_FILE",
    "IMPORTGUARD_BASIC_AUTH_FILE",
    "IMPORTGUARD_BEARER_TOKEN_FILE",
    "IMPORTGUARD_UPSTREAM",
    "IMPORTGUARD_UPSTREAM_TIMEOUT",
    "IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
    "IMPORTGUARD_UPSTREAM_FORWARD_AUTHORIZATION",
    "IMPORTGUARD_HTTP_LISTEN",
    "IMPORTGUARD_ADMIN_LISTEN",
    "IMPORTGUARD_DECIDER_TIMEOUT",
    "IMPORTGUARD_REQUEST_BUDGET",
    "IMPORTGUARD_ACK_TIMEOUT",
    "IMPORTGUARD_SPOOL",
    "IMPORTGUARD_SPOOL_MAX_BYTES",
    "IMPORTGUARD_ON_DECIDER_UNAVAILABLE",
    "IMPORTGUARD_ON_DECIDER_TIMEOUT",
    "IMPORTGUARD_ON_DECIDER_ERROR",
    "IMPORTGUARD_ON_UNRECORDABLE",
    "IMPORTGUARD_BASE_PATH",
    "IMPORTGUARD_MAX_BODY_BYTES",
    "IMPORTGUARD_OPERATION_ID",
    "NATS_URL",
    "NATS_CREDS",
    "IMPORTGUARD_LOG_FORMAT",
    "RUST_LOG",
];

/// What a gateway only needs where deciders are other processes.
const APART: [&str; 6] = [
    "IMPORTGUARD_DECIDER_URL",
    "IMPORTGUARD_DECIDER_RETRY_AFTER",
    "IMPORTGUARD_DECIDER_CA_FILE",
    "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
    "IMPORTGUARD_DECIDER_CLIENT_KEY_FILE",
    "IMPORTGUARD_DECIDER_SERVER_NAME",
];

const DECIDER: [&str; 13] = [
    "IMPORTGUARD_DECIDER_LISTEN",
    "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE",
    "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    "IMPORTGUARD_DECIDER_MAX_FRIENDS",
    "IMPORTGUARD_DECIDER_REQUEST_TIMEOUT",
    "IMPORTGUARD_DECIDER_IDLE_TIMEOUT",
    "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
    "IMPORTGUARD_DECIDER_TLS_KEY_FILE",
    "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
    "IMPORTGUARD_ADMIN_LISTEN",
    "IMPORTGUARD_POLICY",
    "IMPORTGUARD_LOG_FORMAT",
    "RUST_LOG",
];

#[test]
fn the_gateways_help_names_its_settings() {
    let help = help(Binary::Gateway, &["--help"]);
    mentions(&help, &GATEWAY);
    mentions(&help, &APART);
}

#[test]
fn the_deciders_help_names_its_settings() {
    mentions(&help(Binary::Decider, &["--help"]), &DECIDER);
}

#[test]
fn the_all_in_one_help_names_both() {
    let help = help(Binary::AllInOne, &["serve", "--help"]);
    mentions(&help, &GATEWAY);
    mentions(&help, &["IMPORTGUARD_POLICY"]);
    assert!(!help.contains(APART[0]), "{help}");
}

#[tokio::test]
async fn contradictory_settings_are_reported_at_startup() {
    let settings = Settings::new()
        .set("IMPORTGUARD_SHUTDOWN_GRACE", "10s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "3s");
    let gateway = Service::gateway(settings).await;
    gateway
        .wait_for_log(&["IMPORTGUARD_SHUTDOWN_GRACE", "IMPORTGUARD_DECIDER_TIMEOUT"])
        .await;
    let mut quiet = Service::gateway(Settings::new()).await;
    quiet.terminate(SOON).await;
    let quiet = quiet.stderr();
    // The grace is named at each shutdown.
    assert!(!quiet.contains("IMPORTGUARD_DECIDER_TIMEOUT"), "{quiet}");
}
