//! `--help` is the reference of the settings.

use std::process::Command;

use importguard_tests::Binary;

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

const GATEWAY: [&str; 18] = [
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

const DECIDER: [&str; 5] = [
    "IMPORTGUARD_DECIDER_LISTEN",
    "IMPORTGUARD_ADMIN_LISTEN",
    "IMPORTGUARD_POLICY",
    "IMPORTGUARD_LOG_FORMAT",
    "RUST_LOG",
];

#[test]
fn the_gateways_help_names_its_settings() {
    let help = help(Binary::Gateway, &["--help"]);
    mentions(&help, &GATEWAY);
    mentions(&help, &["IMPORTGUARD_DECIDER_URL"]);
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
}
