//! What tests say about answers.

use importguard_proto::event::Dialect;
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

/// What comes back for bytes that are no HTTP is read as consent by nobody: nothing, or one response that refuses without a body.
#[track_caller]
pub(crate) fn is_no_consent(responses: &[Response]) {
    assert!(responses.len() <= 1, "{responses:?}");
    for response in responses {
        assert!(response.status.is_client_error(), "{response:?}");
        assert_eq!(response.text(), "");
    }
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
