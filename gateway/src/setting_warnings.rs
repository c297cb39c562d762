//! Settings that are valid on their own but contradict each other.

use crate::{Settings, decide::OnFailure};

/// The warnings to log at startup.
pub(crate) fn setting_warnings(settings: &Settings) -> Vec<&'static str> {
    let Settings {
        http,
        serve,
        tls,
        authentication,
        limits,
        decide,
        fallback,
        record,
        ..
    } = settings;
    let authenticates =
        authentication.basic_auth_file.is_some() || authentication.bearer_token_file.is_some();
    let remote = !http.http_listen.ip().is_loopback();
    [
        (
            serve.shutdown_grace >= http.shutdown_timeout,
            "IMPORTGUARD_SHUTDOWN_GRACE uses up IMPORTGUARD_SHUTDOWN_TIMEOUT: callbacks in flight will be cut off, and the last events may stay in the spool",
        ),
        (
            decide.decider_timeout > http.request_budget / 2,
            "IMPORTGUARD_DECIDER_TIMEOUT exceeds half of IMPORTGUARD_REQUEST_BUDGET: a callback whose body arrives slowly leaves deciders less time",
        ),
        (
            decide.decider_retry_after >= decide.decider_timeout,
            "IMPORTGUARD_DECIDER_RETRY_AFTER uses up IMPORTGUARD_DECIDER_TIMEOUT: when a decider does not respond, no second one is tried",
        ),
        (
            http.body_read_timeout > http.request_budget,
            "IMPORTGUARD_BODY_READ_TIMEOUT exceeds IMPORTGUARD_REQUEST_BUDGET, which limits it",
        ),
        (
            record.ack_timeout > http.request_budget / 2,
            "IMPORTGUARD_ACK_TIMEOUT exceeds half of IMPORTGUARD_REQUEST_BUDGET, which limits it",
        ),
        (
            limits.queue_timeout >= http.request_budget,
            "IMPORTGUARD_QUEUE_TIMEOUT uses up IMPORTGUARD_REQUEST_BUDGET: a callback that waited that long has no time left for a decision",
        ),
        (
            fallback.on_overload == OnFailure::Allow && fallback.on_unrecordable == OnFailure::Refuse,
            "IMPORTGUARD_ON_OVERLOAD=allow applies to IMPORTGUARD_OVERLOAD_EVENTS callbacks per second only: the others are not recorded, and IMPORTGUARD_ON_UNRECORDABLE=refuse refuses them",
        ),
        (
            authenticates && remote && tls.tls_cert_file.is_none(),
            "passwords and tokens are received without TLS: set IMPORTGUARD_TLS_CERT_FILE, unless a proxy in front of importguard terminates TLS",
        ),
    ]
    .into_iter()
    .filter_map(|(holds, sentence)| holds.then_some(sentence))
    .collect()
}
