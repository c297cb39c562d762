//! Reports a `RUST_LOG` that silences importguard: a process without log lines looks like one that has nothing to report.

use std::io::{self, Write};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::LogFormat;

/// The crates that log in every process, besides its own.
const COMMON: [&str; 2] = ["importguard_runtime", "importguard_telemetry"];

/// Writes a line to standard error if `directives`, the value of `RUST_LOG`, silence all log lines of the process `service_name`.
pub(crate) fn report(service_name: &str, directives: Option<&str>, format: LogFormat) {
    let Some(directives) =
        directives.filter(|text| !text.is_empty() && silences(service_name, text))
    else {
        return;
    };
    let message = format!(
        "RUST_LOG={directives} selects none of importguard's log lines, so none will be written; unset it, or set for example RUST_LOG=info"
    );
    let line = match format {
        LogFormat::Human => format!("warning: {message}"),
        LogFormat::Json => serde_json::json!({
            "level": "WARN", "target": module_path!(), "message": message,
        })
        .to_string(),
    };
    // If standard error is closed, log lines are lost too.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether no line of `service_name` is selected, not even an error. Directives about spans and fields are not checked.
fn silences(service_name: &str, directives: &str) -> bool {
    let about_spans = directives.contains('[');
    let targets = directives.parse::<Targets>().ok();
    let Some(targets) = targets.filter(|_| !about_spans) else {
        return false;
    };
    let own = service_name.replace('-', "_");
    // `importguard` logs the gateway's and the decider's lines too.
    let is_ours = |target: &str| {
        target.starts_with(&own) || COMMON.iter().any(|common| target.starts_with(common))
    };
    let selects_crate = [&*own, "importguard_gateway", "importguard_decider"]
        .into_iter()
        .chain(COMMON)
        .filter(|name| is_ours(name))
        .any(|name| targets.would_enable(name, &Level::ERROR));
    // A directive may name a module.
    let selects_part = targets
        .iter()
        .any(|(target, level)| is_ours(target) && level != LevelFilter::OFF);
    !selects_crate && !selects_part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_that_select_none_of_the_process_silence_it() {
        for (service, directives, expected) in [
            ("importguard-gateway", "off", true),
            ("importguard-gateway", "importgaurd=debug", true),
            ("importguard-gateway", "importguard_decider=debug", true),
            ("importguard", "importguard_decider=debug", false),
            ("importguard-gateway", "importguard=debug", false),
            (
                "importguard-gateway",
                "importguard_gateway::server=debug",
                false,
            ),
            (
                "importguard-gateway",
                "importguard_gateway=off,error",
                false,
            ),
            ("importguard-gateway", "info,importguard=off", true),
            ("importguard-gateway", "error", false),
            ("importguard-decider", "async_nats=debug", true),
            ("importguard-decider", "[span]=debug", false),
        ] {
            assert_eq!(
                silences(service, directives),
                expected,
                "{service}: {directives}"
            );
        }
    }
}
