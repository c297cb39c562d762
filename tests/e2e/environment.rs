//! Errors in the environment end the process at startup and name the variable and the remedy.

use std::{collections::BTreeSet, process::Output};

use importguard_runtime::environment;
use importguard_tests::{Binary, Help, SOON, Service, Setting, Settings};

const BINARIES: [Binary; 3] = [Binary::Gateway, Binary::Decider, Binary::AllInOne];

/// Runs a command that reads all of the binary's settings and ends by itself.
fn run(binary: Binary, arguments: &[&str], variables: &[(&str, &str)]) -> (Output, String) {
    let settings = variables
        .iter()
        .fold(Settings::new(), |settings, (name, value)| {
            settings.set(name, *value)
        });
    let output = settings
        .command(binary.path())
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    (output, stderr)
}

#[track_caller]
fn refused(binary: Binary, arguments: &[&str], variable: (&str, &str), told: &[&str]) {
    let (output, stderr) = run(binary, arguments, &[variable]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{binary:?} {variable:?}: {stderr}"
    );
    for told in told {
        assert!(
            stderr.contains(told),
            "{binary:?} {variable:?}: no {told:?} in: {stderr}"
        );
    }
}

/// The settings of both pods' binaries, which are all that there are.
fn settings() -> Vec<(Binary, Setting)> {
    let pods = [Binary::Gateway, Binary::Decider];
    let settings = pods.into_iter().flat_map(|binary| {
        let help = Help::of(binary, &[]);
        let settings: Vec<_> = help.settings().cloned().collect();
        settings.into_iter().map(move |setting| (binary, setting))
    });
    settings
        .filter(|(_, setting)| setting.env.is_some())
        .collect()
}

#[test]
fn an_interval_or_a_timeout_of_zero_is_refused_unless_help_says_what_zero_means() {
    let mut durations = 0;
    for (binary, setting) in settings() {
        let name = setting.env.unwrap();
        let is_duration = setting.flag.contains("<DURATION>") && name != "IMPORTGUARD_TRACE_SLOW";
        if is_duration && !setting.text.contains("0s") {
            let told = [&*name, "at least 1ms", "for example"];
            refused(binary, &["healthcheck"], (&name, "0s"), &told);
            durations += 1;
        }
    }
    assert!(durations > 15, "only {durations}");
}

#[test]
fn the_usage_after_a_missing_argument_has_no_setting_of_the_environment() {
    let nats = ("NATS_URL", "nats://localhost:4222");
    let (output, stderr) = run(Binary::AllInOne, &["spool", "drain"], &[nats]);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("IMPORTGUARD_SPOOL (<DIR>)"), "{stderr}");
    assert!(
        stderr.contains("Usage: importguard spool drain [OPTIONS] <DIR>\n"),
        "{stderr}"
    );
}

/// Bounds that users need not know: those that go without saying, and those of the integers that hold a value.
const UNSAID_BOUNDS: [&str; 4] = [
    "1",
    "4294967295",
    "9223372036854775807",
    "18446744073709551615",
];

#[test]
fn help_has_the_bounds_of_counts_and_sizes() {
    let detect = Help::of(Binary::AllInOne, &["detect"]);
    let detect = detect
        .settings()
        .filter(|setting| setting.env.as_deref() == Some("IMPORTGUARD_DETECT_MEMORY"))
        .map(|setting| (Binary::AllInOne, setting.clone()));
    let mut bounds = 0;
    for (binary, setting) in settings().into_iter().chain(detect) {
        if !["<SIZE>", "<COUNT>"]
            .iter()
            .any(|kind| setting.flag.contains(kind))
        {
            continue;
        }
        let name = setting.env.unwrap();
        let command = if name.contains("DETECT") {
            "detect"
        } else {
            "healthcheck"
        };
        for (value, bound) in [("0", "at least"), ("18446744073709551615", "at most")] {
            let (_, stderr) = run(binary, &[command], &[(&name, value)]);
            let Some((_, refused)) = stderr.split_once(&format!("must be {bound} ")) else {
                continue;
            };
            let limit = refused.lines().next().unwrap().trim_end_matches(" bytes");
            if UNSAID_BOUNDS.contains(&limit) && name != "IMPORTGUARD_MAX_BYTES_IN_FLIGHT" {
                continue;
            }
            let said = format!("{bound} {limit}");
            assert!(
                setting.text.contains(&said),
                "{name}: no {said:?} in: {}",
                setting.text
            );
            bounds += 1;
        }
    }
    assert!(bounds > 10, "only {bounds}");
}

#[test]
fn an_empty_variable_is_refused() {
    for (binary, setting) in settings() {
        let name = setting.env.unwrap();
        let told = format!("{name} is set but empty; unset it");
        refused(binary, &["healthcheck"], (&name, ""), &[&told]);
    }
    let told = ["NATS_URL is set but empty", "nats://127.0.0.1:4222"];
    refused(Binary::AllInOne, &["tail"], ("NATS_URL", ""), &told);
}

#[test]
fn an_unknown_variable_is_refused_by_every_command() {
    let unknown = ("IMPORTGUARD_ON_DECIDER_UNAVAIL", "allow");
    let told = [
        unknown.0,
        "did you mean IMPORTGUARD_ON_DECIDER_UNAVAILABLE?",
        "unset",
    ];
    for binary in BINARIES {
        refused(binary, &["healthcheck"], unknown, &told);
        // The process itself; in one process, `serve` is the default.
        refused(binary, &[], unknown, &told);
    }
    for command in [
        &["serve"][..],
        &["policy", "check"],
        &["pseudonym", "a"],
        &["tail"],
    ] {
        refused(Binary::AllInOne, command, unknown, &told);
    }
    let far = ("IMPORTGUARD_XYZ", "1");
    refused(
        Binary::Gateway,
        &["healthcheck"],
        far,
        &["IMPORTGUARD_XYZ", "--help"],
    );
}

#[test]
fn help_and_version_work_whatever_the_environment() {
    let broken = [
        ("IMPORTGUARD_XYZ", "1"),
        ("NATS_URL", ""),
        ("IMPORTGUARD_RELOAD_INTERVAL", "0s"),
    ];
    for binary in BINARIES {
        for arguments in [&["--help"][..], &["--version"], &["healthcheck", "--help"]] {
            let (output, stderr) = run(binary, arguments, &broken);
            assert!(
                output.status.success(),
                "{binary:?} {arguments:?}: {stderr}"
            );
        }
    }
}

#[test]
fn every_variable_that_a_binary_reads_is_known_to_all() {
    let read = |binary, command: &[&str]| {
        let help = Help::of(binary, command);
        let names: Vec<_> = help
            .settings()
            .filter_map(|setting| setting.env.clone())
            .collect();
        names
    };
    let commands = [
        &["serve"][..],
        &["policy", "check"],
        &["policy", "test"],
        &["policy", "explain"],
        &["policy", "init"],
        &["tail"],
        &["stats"],
        &["why"],
        &["list", "add"],
        &["detect"],
        &["pseudonym"],
        &["healthcheck"],
    ];
    let own = commands
        .iter()
        .flat_map(|command| read(Binary::AllInOne, command));
    let pods = [Binary::Gateway, Binary::Decider]
        .into_iter()
        .flat_map(|binary| read(binary, &[]));
    let read: BTreeSet<_> = pods
        .chain(own)
        .filter(|name| name.starts_with("IMPORTGUARD_"))
        .collect();
    let known = environment::VARIABLES
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(read, known);
}

#[tokio::test]
async fn variables_of_kubernetes_services_and_retired_ones_are_no_errors() {
    let mut settings = Settings::new().set("IMPORTGUARD_MAX_QUEUED", "2");
    for service in ["IMPORTGUARD", "IMPORTGUARD_GATEWAY", "IMPORTGUARD_DECIDER"] {
        for (end, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.0.0.1"),
        ] {
            settings = settings.set(&format!("{service}_{end}"), value);
        }
    }
    let gateway = Service::gateway(settings.clone()).await;
    gateway
        .wait_for_log(&["IMPORTGUARD_MAX_QUEUED is retired"])
        .await;
    Service::decider(settings).await;
}

#[tokio::test]
async fn sizes_are_written_with_units() {
    let gateway =
        Service::gateway(Settings::new().set("IMPORTGUARD_SPOOL_MAX_BYTES", "64MiB")).await;
    let most = gateway.metric("importguard_recorder_spool_max_bytes").await;
    assert_eq!(most.unwrap(), f64::from(64 << 20));
    let small = ("IMPORTGUARD_SPOOL_MAX_BYTES", "131072");
    let told = [small.0, "131072", "must be at least 2MiB"];
    refused(Binary::Gateway, &["healthcheck"], small, &told);
    let unclear = ("IMPORTGUARD_MAX_BODY_BYTES", "2 MB");
    refused(
        Binary::Gateway,
        &["healthcheck"],
        unclear,
        &[unclear.0, "64MiB"],
    );
}

#[test]
fn an_invalid_value_is_reported_with_its_variable_unless_it_is_secret() {
    let bad = ("IMPORTGUARD_HTTP_LISTEN", "8080");
    refused(
        Binary::Gateway,
        &["healthcheck"],
        bad,
        &[bad.0, "'8080'", "--http-listen", "[::]:8080"],
    );
    for secret in [
        ("IMPORTGUARD_PSEUDONYM_KEY", "hunter2"),
        ("IMPORTGUARD_UPSTREAM", "http://user:hunter2@backend"),
    ] {
        refused(Binary::Gateway, &["healthcheck"], secret, &[secret.0]);
        let (_, stderr) = run(Binary::Gateway, &["healthcheck"], &[secret]);
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    let alone = ("IMPORTGUARD_TLS_CERT_FILE", "cert.pem");
    refused(
        Binary::Gateway,
        &["healthcheck"],
        alone,
        &["IMPORTGUARD_TLS_KEY_FILE"],
    );
}

#[tokio::test]
async fn a_filter_that_silences_everything_is_reported() {
    for filter in ["off", "importgaurd=debug"] {
        for format in ["human", "json"] {
            let settings = Settings::new()
                .set("RUST_LOG", filter)
                .set("IMPORTGUARD_LOG_FORMAT", format);
            let mut gateway = Service::gateway(settings).await;
            gateway.wait_for_log(&["RUST_LOG", filter, "unset"]).await;
            gateway.terminate(SOON).await;
            assert_eq!(gateway.stderr().lines().count(), 1, "{}", gateway.stderr());
        }
    }
    let mut gateway = Service::gateway(Settings::new().set("RUST_LOG", "error")).await;
    gateway.terminate(SOON).await;
    assert!(
        !gateway.stderr().contains("RUST_LOG"),
        "{}",
        gateway.stderr()
    );
}
