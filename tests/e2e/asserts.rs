//! Assertions about answers, and about what commands print.

use std::process::Output;

use importguard_core::Dialect;
use importguard_tests::{Reading, Response, ServerVersion, read_as_documented, read_as_server};

/// What every caller that speaks `dialect` makes of `response`; they must agree.
#[track_caller]
pub(crate) fn reading(dialect: Dialect, response: &Response) -> Reading {
    assert_eq!(response.media_type(), Some("application/json"));
    match dialect {
        Dialect::Documented => read_as_documented(&response.body),
        Dialect::Server => {
            let readings = ServerVersion::ALL.map(|v| read_as_server(v, &response.body));
            assert_eq!(readings[0], readings[1], "{}", response.text());
            readings[0].clone()
        }
    }
}

/// `response` refuses with `code`, for every caller that speaks `dialect`.
#[track_caller]
pub(crate) fn refuses(dialect: Dialect, response: &Response, status: u16, code: i32) {
    let reading = reading(dialect, response);
    let Reading::Refuses {
        code: found,
        ref message,
        ..
    } = reading
    else {
        panic!("not refused: {reading:?}: {}", response.text());
    };
    assert_eq!(
        (response.status.as_u16(), found),
        (status, code),
        "{}",
        response.text()
    );
    assert!(
        !message.is_empty(),
        "a refusal without errMsg: {}",
        response.text()
    );
}

/// `response` lets everybody through, for every caller that speaks `dialect`.
#[track_caller]
pub(crate) fn allows(dialect: Dialect, response: &Response) {
    assert_eq!(response.status, 200, "{}", response.text());
    let reading = reading(dialect, response);
    assert_eq!(
        reading,
        Reading::Imports { instead: None },
        "{}",
        response.text()
    );
}

/// `said`, all that was heard before a hang-up, is nothing, or a 4xx without a body: what comes instead of an answer where nothing was
/// asked in HTTP. OpenIM's client reads it as an error, and no version of OpenIM as consent.
#[track_caller]
pub(crate) fn is_no_answer(said: &str) {
    let bodyless = said.starts_with("HTTP/1.1 4") && said.ends_with("\r\n\r\n");
    let once = said.matches("\r\n\r\n").count() == 1;
    assert!(said.is_empty() || bodyless && once, "{said}");
}

/// The code that `response`, an answer to open-im-server, refuses with; 0 where it lets everybody through.
#[track_caller]
pub(crate) fn code(response: &Response) -> i32 {
    assert_eq!(response.status, 200, "{}", response.text());
    match reading(Dialect::Server, response) {
        Reading::Refuses { code, .. } => code,
        Reading::Imports { instead: None } => 0,
        other => panic!("{other:?}: {}", response.text()),
    }
}

/// What a command that ended with `code` printed to standard output, and to standard error.
#[track_caller]
pub(crate) fn printed(output: &Output, code: i32) -> (String, String) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

/// `text` has all `parts`.
#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}
