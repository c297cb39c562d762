use importguard_core::Dialect;
use importguard_gateway::openim::{Answer, Refusals, Rejection};
use importguard_tests::{Reading, ServerVersion, read_as_documented, read_as_server};

/// What every caller that speaks `dialect` makes of an answer; they must agree.
pub fn spoken(dialect: Dialect, body: &[u8]) -> Reading {
    match dialect {
        Dialect::Documented => read_as_documented(body),
        Dialect::Server => {
            let [old, new] = ServerVersion::ALL.map(|version| read_as_server(version, body));
            assert_eq!(old, new, "{}", String::from_utf8_lossy(body));
            new
        }
    }
}

/// The answer to a request that is not decided upon refuses, whoever reads it.
pub fn refuses(dialect: Dialect, rejection: &Rejection) {
    let detail = rejection.to_string();
    let answer = Answer::Refuse {
        code: rejection.code(),
        message: rejection.message(),
        detail: &detail,
        request: None,
    };
    let expected = Reading::Refuses {
        code: rejection.code(),
        message: rejection.message().to_owned(),
        detail: detail.clone(),
    };
    assert_eq!(
        spoken(dialect, &answer.encode(dialect, Refusals::Readable)),
        expected
    );
    assert!(!rejection.status().is_success());
}
