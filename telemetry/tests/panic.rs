//! A panic is reported in the log.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{env, process::Command, time::SystemTime};

use clap::Parser;
use http::HeaderMap;
use importguard_core::OperationId;
use importguard_telemetry::{TelemetrySettings, flush_log, init, span::ServerSpan};

/// Set for the child process that panics, which runs this test again with its own standard error.
const CHILD: &str = "IMPORTGUARD_TEST_PANICS";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

#[tokio::test]
async fn a_panic_is_a_line_in_the_logs_format() {
    if env::var_os(CHILD).is_some() {
        return panics().await;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_panic_is_a_line_in_the_logs_format"])
        .env(CHILD, "")
        .env("RUST_LOG", "info")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!(line["level"], "ERROR", "{line}");
    assert_eq!(line["message"], "panicked: nobody\nexpected this", "{line}");
    assert_eq!(line["operationID"], "op-panics", "{line}");
    assert_eq!(line["trace_id"].as_str().map(str::len), Some(32), "{line}");
    let location = line["location"].as_str().unwrap();
    assert!(location.contains("tests/panic.rs:"), "{line}");
}

async fn panics() {
    let cli = Cli::parse_from(["panics", "--log-format", "json"]);
    let _telemetry = init("panics", None, &cli.telemetry).unwrap();
    let id = OperationId::parse("op-panics").unwrap();
    let span = ServerSpan::start(&HeaderMap::new(), Some(&id), "panics", SystemTime::now());
    let task = tokio::spawn(span.instrument(async { panic!("nobody\nexpected this") }));
    assert!(task.await.unwrap_err().is_panic());
    flush_log();
}
