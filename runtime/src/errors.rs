use std::process::ExitCode;

use importguard_telemetry::whole_text;

/// The exit code for `result`: 1 for an error, which is written to standard error. Flushes the log, for up to one second.
pub fn conclude(result: anyhow::Result<ExitCode>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        importguard_telemetry::log_failure(&whole_text(error.as_ref()));
        ExitCode::FAILURE
    });
    importguard_telemetry::flush_log();
    code
}
