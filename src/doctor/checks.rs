//! The requests that are sent, and the conclusions from their answers.

use std::io;

use http::StatusCode;
use importguard_runtime::TlsFailure;
use serde_json::json;

use strum::{EnumIter, IntoStaticStr};

use super::{
    ask::{AskError, CA_AS_SERVER, Question, Response, Webhook},
    reading::{Answer, Effect, Meaning, OpenIm},
};

/// The owner and the friends of the requested imports.
pub(super) const OWNER: &str = "importguard_doctor";
const FRIENDS: [&str; 2] = ["importguard_doctor_friend1", "importguard_doctor_friend2"];

const BEFORE: &str = "callbackBeforeImportFriendsCommand";
const AFTER: &str = "callbackAfterImportFriendsCommand";
const DOCUMENTED: &str = "ImportFriendReqBeforeCommand";

/// A request, and what its answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumIter)]
#[strum(serialize_all = "camelCase", const_into_str)]
pub(super) enum Check {
    /// An import, as open-im-server requests it. It is decided and recorded.
    Import,
    /// The same with a friend twice and the owner in the list: every policy removes those.
    Shorten,
    /// A request whose body names another callback, which is refused before it is decided.
    Refusal,
    /// A report of a completed import whose body names another callback: it is answered, but not recorded.
    Report,
    /// An import as OpenIM's documentation describes it. It is decided and recorded.
    Documented,
}

impl Check {
    /// Its question, for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Import => "May these friends be imported?",
            Self::Shorten => "May the owner and a repeated friend be imported, too?",
            Self::Refusal => "A request that must be refused",
            Self::Report => "A report after an import",
            Self::Documented => "May these friends be imported? (in the documented dialect)",
        }
    }

    /// Whether open-im-server reads the answer.
    pub(super) const fn is_read_by_servers(self) -> bool {
        matches!(self, Self::Import | Self::Shorten | Self::Refusal)
    }

    pub(super) fn question(self, operation_id: &str) -> Question<'_> {
        let (path, command, friends) = match self {
            Self::Import => (format!("/{BEFORE}"), BEFORE, FRIENDS.to_vec()),
            Self::Shorten => (
                format!("/{BEFORE}"),
                BEFORE,
                vec![FRIENDS[0], FRIENDS[0], OWNER],
            ),
            Self::Refusal => (format!("/{BEFORE}"), AFTER, FRIENDS.to_vec()),
            Self::Report => (format!("/{AFTER}"), BEFORE, FRIENDS.to_vec()),
            Self::Documented => (
                format!("?command={DOCUMENTED}&contenttype=json"),
                DOCUMENTED,
                FRIENDS.to_vec(),
            ),
        };
        let body =
            json!({"callbackCommand": command, "ownerUserID": OWNER, "friendUserIDs": friends});
        Question {
            suffix: path,
            operation_id,
            body: body.to_string(),
        }
    }
}

/// An answered check.
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) response: Response,
    pub(super) answer: Answer,
    /// What each version does; empty if open-im-server does not read the answer.
    pub(super) effects: Vec<(OpenIm, Effect)>,
}

impl Finding {
    pub(super) fn new(check: Check, response: Response, versions: &[OpenIm]) -> Self {
        let answer = Answer::read(&response.body);
        let readers = versions.iter().filter(|_| check.is_read_by_servers());
        let effects = readers.map(|version| (*version, version.read(&answer)));
        Self {
            effects: effects.collect(),
            check,
            response,
            answer,
        }
    }

    /// The problem with the answer that is independent of the version, with its remedy.
    pub(super) fn problem(&self, webhook: &Webhook) -> Option<String> {
        let status = self.response.status;
        if status.is_redirection() {
            return Some(format!(
                "the answer is a redirection ({status}): OpenIM follows redirects and loses the request's body. Use the final URL"
            ));
        }
        let Some(meaning) = &self.answer.meaning else {
            return Some(stranger(status, &self.answer));
        };
        if let Some(problem) = misconfiguration(&self.answer, webhook) {
            return Some(problem);
        }
        let text = &self.answer.text;
        match (self.check, meaning) {
            (Check::Import | Check::Shorten | Check::Documented, _) if status != StatusCode::OK => {
                Some(format!("the import was not decided ({status}): {text}"))
            }
            (Check::Import | Check::Shorten | Check::Documented, Meaning::Refuse)
                if (5900..=5999).contains(&self.answer.code) =>
            {
                Some(format!(
                    "importguard could not decide, and refuses every import ({}: {text}). See its log and /readyz",
                    self.answer.code
                ))
            }
            (Check::Shorten, Meaning::Allow) => Some(
                "the owner's own ID and a repeated friend were not removed: this is not importguard, or something changes its answers"
                    .to_owned(),
            ),
            (Check::Refusal, Meaning::Allow | Meaning::Shorten(_)) => Some(
                "a request that names two callbacks was not refused: this is not importguard, or something changes its answers"
                    .to_owned(),
            ),
            (Check::Report, Meaning::Refuse | Meaning::Shorten(_)) => {
                Some(format!("a report was refused: {text}. OpenIM 3.5 would tell its caller that a completed import failed"))
            }
            _ => None,
        }
    }

    /// Whether `effect` is what importguard intends.
    pub(super) fn agrees(&self, effect: &Effect) -> bool {
        match (&self.answer.meaning, effect) {
            (Some(Meaning::Allow), Effect::ImportsAll) => true,
            (Some(Meaning::Shorten(meant)), Effect::ImportsOnly(friends)) => meant == friends,
            (Some(Meaning::Refuse), Effect::Refuses(_) | Effect::Fails(_)) => true,
            _ => false,
        }
    }
}

/// Describes an answer that is not importguard's.
fn stranger(status: StatusCode, answer: &Answer) -> String {
    if answer.is_admin {
        return "this is importguard's admin listener: use the port of IMPORTGUARD_HTTP_LISTEN, which is 8080 by default".to_owned();
    }
    let what = "the answer is not importguard's: another program, or a proxy in between, gave it";
    let effect = if answer.is_object {
        "OpenIM takes a JSON object without nextCode for consent, so **every import gets through**"
    } else {
        "OpenIM cannot read it"
    };
    format!("{what} ({status}). {effect}. Check host, port and path of the URL")
}

/// Describes a rejection that a setting in OpenIM or importguard causes.
fn misconfiguration(answer: &Answer, webhook: &Webhook) -> Option<String> {
    let text = &answer.text;
    match answer.code {
        5902 if webhook.has_password() => Some(
            "the user or the password in the URL is wrong (401). Compare it with IMPORTGUARD_BASIC_AUTH_FILE; special characters must be percent-encoded in the URL"
                .to_owned(),
        ),
        5902 => Some(
            "importguard requires credentials (401), and the URL has none: write it as http://user:password@host:port, with a line of IMPORTGUARD_BASIC_AUTH_FILE"
                .to_owned(),
        ),
        5901 => Some(
            "the path is wrong (404): the URL in OpenIM must end in the gateway's IMPORTGUARD_BASE_PATH, and nothing else"
                .to_owned(),
        ),
        5900 if text.contains("accepts only TLS") => {
            Some("the gateway accepts only TLS at this port: begin the URL with https://".to_owned())
        }
        5904 => Some(format!(
            "the operationID does not arrive ({text}): something between OpenIM and importguard removes or repeats it"
        )),
        _ => None,
    }
}

/// The remedy if there is no answer.
pub(super) fn remedy(error: &AskError, webhook: &Webhook) -> String {
    match error {
        AskError::Host(..) => "check the host in the URL; run this where OpenIM runs".to_owned(),
        AskError::Connect(..) => {
            "is the gateway running, and is this its callback port (IMPORTGUARD_HTTP_LISTEN, on 127.0.0.1 by default)? Does a firewall or network policy block it?".to_owned()
        }
        AskError::Tls(_, error) => tls_remedy(error),
        AskError::Trust(..) => {
            "name a PEM file with the CA of the gateway's certificate in SSL_CERT_FILE, in OpenIM's environment and for this command".to_owned()
        }
        AskError::Http(..) if webhook.is_https() => {
            "is this the gateway's callback port?".to_owned()
        }
        AskError::Http(..) => {
            "is this the gateway's callback port? If it accepts only TLS, begin the URL with https://"
                .to_owned()
        }
        AskError::Timeout(..) => {
            "OpenIM's timeout must be longer than IMPORTGUARD_REQUEST_BUDGET (2s by default); if it is, the network drops packets, or the gateway hangs".to_owned()
        }
    }
}

fn tls_remedy(error: &io::Error) -> String {
    match TlsFailure::find(error) {
        Some(TlsFailure::UnknownIssuer) => return "OpenIM would not trust this certificate: name a PEM file with its CA in SSL_CERT_FILE, in OpenIM's environment and for this command".to_owned(),
        Some(TlsFailure::NoTls) => return "the port does not speak TLS: begin the URL with http://, or set IMPORTGUARD_TLS_CERT_FILE".to_owned(),
        _ => {}
    }
    let error = error.to_string();
    if error.contains(CA_AS_SERVER) {
        "issue a certificate for the gateway with that CA, and set it with IMPORTGUARD_TLS_CERT_FILE. The CA's own certificate belongs in SSL_CERT_FILE only".to_owned()
    } else if error.contains("not valid for name") || error.contains("NotValidForName") {
        "the certificate is for another name than the URL's host".to_owned()
    } else if error.contains("Expired") || error.contains("expired") {
        "the certificate has expired, or this machine's clock is wrong".to_owned()
    } else {
        "check the gateway's certificate (IMPORTGUARD_TLS_CERT_FILE) and its log".to_owned()
    }
}
