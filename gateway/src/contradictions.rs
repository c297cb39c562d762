//! Settings that each make sense, and together don't.

use crate::{Settings, decide::OnFailure};

/// What to tell the operator at the start: each a sentence.
pub(crate) fn contradictions(settings: &Settings) -> Vec<&'static str> {
    let Settings {
        http,
        serve,
        tls,
        authentication,
        limits,
        decide,
        fallback,
        ..
    } = settings;
    let authenticates =
        authentication.basic_auth_file.is_some() || authentication.bearer_token_file.is_some();
    let remote = !http.http_listen.ip().is_loopback();
    [
        (
            serve.shutdown_grace >= http.shutdown_timeout,
            "IMPORTGUARD_SHUTDOWN_GRACE takes all of IMPORTGUARD_SHUTDOWN_TIMEOUT: callbacks in flight will be cut and the last events may stay in the spool",
        ),
        (
            decide.decider_timeout > http.request_budget,
            "IMPORTGUARD_DECIDER_TIMEOUT is longer than IMPORTGUARD_REQUEST_BUDGET: it is cut to that",
        ),
        (
            decide.decider_retry_after >= decide.decider_timeout,
            "IMPORTGUARD_DECIDER_RETRY_AFTER takes all of IMPORTGUARD_DECIDER_TIMEOUT: where a decider is silent no other one is asked",
        ),
        (
            http.body_read_timeout > http.request_budget,
            "IMPORTGUARD_BODY_READ_TIMEOUT is longer than IMPORTGUARD_REQUEST_BUDGET: it is cut to that",
        ),
        (
            limits.queue_timeout >= http.request_budget,
            "IMPORTGUARD_QUEUE_TIMEOUT takes all of IMPORTGUARD_REQUEST_BUDGET: who waited has no time left to be decided upon",
        ),
        (
            fallback.on_overload == OnFailure::Allow && fallback.on_unrecordable == OnFailure::Refuse,
            "IMPORTGUARD_ON_OVERLOAD=allow holds for IMPORTGUARD_OVERLOAD_EVENTS callbacks a second only: the others cannot be recorded, and IMPORTGUARD_ON_UNRECORDABLE refuses those",
        ),
        (
            authenticates && remote && tls.tls_cert_file.is_none(),
            "passwords and tokens arrive without TLS: set IMPORTGUARD_TLS_CERT_FILE, unless something in front of importguard speaks TLS",
        ),
    ]
    .into_iter()
    .filter_map(|(holds, sentence)| holds.then_some(sentence))
    .collect()
}
