//! What protects a gateway, as its settings make it.

use importguard_core::Cause;
use importguard_runtime::security::{
    ALLOWING_FALLBACKS, AUTHENTICATION, CALLBACK_TLS, DECIDER_LINK, NATS, PSEUDONYMS,
};

use strum::IntoEnumIterator;

use crate::{
    Settings,
    decide::{DecideSettings, FallbackSettings, OnFailure},
    settings::{AuthenticationSettings, HttpSettings},
};

impl Settings {
    /// What protects a gateway with these settings, for [`security::log`](importguard_runtime::security::log).
    pub fn security(&self) -> Vec<(&'static str, String)> {
        let on = |is_on| if is_on { "on" } else { "off" }.to_owned();
        vec![
            (CALLBACK_TLS, on(self.tls.tls_cert_file.is_some())),
            (
                AUTHENTICATION,
                authentication(&self.authentication, &self.http),
            ),
            (DECIDER_LINK, decider_link(&self.decide).to_owned()),
            (NATS, self.record.nats.security()),
            (PSEUDONYMS, on(self.record.pseudonyms.is_on())),
            (ALLOWING_FALLBACKS, allowing(&self.fallback)),
        ]
    }
}

fn authentication(settings: &AuthenticationSettings, http: &HttpSettings) -> String {
    let kinds = [
        (settings.basic_auth_file.is_some(), "passwords"),
        (settings.bearer_token_file.is_some(), "bearer tokens"),
        (!http.base_path.to_string().is_empty(), "base path"),
    ];
    let kinds = kinds.into_iter();
    let kinds = kinds.filter_map(|(is_on, kind)| is_on.then_some(kind));
    joined(kinds, " and ")
}

fn decider_link(settings: &DecideSettings) -> &'static str {
    match (
        settings.decider_url.tls(),
        &settings.tls.decider_client_cert_file,
    ) {
        (false, _) => "without TLS",
        (true, None) => "TLS, without a client certificate",
        (true, Some(_)) => "mutual TLS",
    }
}

/// The variables of the fallbacks that are set to allow.
fn allowing(settings: &FallbackSettings) -> String {
    let all = Cause::iter().map(|cause| settings.named(cause));
    let allowing = all.filter(|(_, answer)| *answer == OnFailure::Allow);
    joined(allowing.map(|(variable, _)| variable), ", ")
}

fn joined(parts: impl Iterator<Item = &'static str>, separator: &str) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(separator)
    }
}
