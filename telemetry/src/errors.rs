use std::{error::Error, io::Write, process::ExitCode};

use crate::log;

/// What an error says, and what lies beneath it as far as it does not say that itself.
pub fn whole_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        beneath = error.source();
    }
    text
}

/// How a process ends: quietly, or with what went wrong on standard error and exit code 1. Log lines that wait are written; who
/// doesn't read them holds it up for a second at most.
pub fn conclude(
    ended: Result<ExitCode, impl AsRef<dyn Error + Send + Sync + 'static>>,
) -> ExitCode {
    let code = ended.unwrap_or_else(|error| {
        let line = log::failure(&whole_text(error.as_ref()));
        // This writer counts what it cannot write.
        let _ = log::StandardError.write_all(line.as_bytes());
        ExitCode::FAILURE
    });
    log::flush();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_layer_is_told_once() {
        let layer = |text, source: Option<Layer>| Layer {
            text,
            source: source.map(Box::new),
        };
        let refused = layer("refused", None);
        let connect = layer("connect: refused", Some(refused));
        let top = layer("transport error", Some(connect));
        assert_eq!(whole_text(&top), "transport error: connect: refused");
    }
}
