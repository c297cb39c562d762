use http::Method;
use importguard_core::Dialect;
use serde_json::json;

use crate::{Call, Client, Response, TestCertificate};

const DOCUMENTED_COMMAND: &str = "ImportFriendReqBeforeCommand";
const SERVER_COMMAND: &str = "callbackBeforeImportFriendsCommand";
const AFTER_COMMAND: &str = "callbackAfterImportFriendsCommand";

/// A caller that behaves like OpenIM, in one of its two dialects.
#[derive(Clone, Debug)]
pub struct OpenIm {
    dialect: Dialect,
    base: String,
    client: Client,
}

impl OpenIm {
    /// As open-im-server, configured with the URL `base`.
    pub fn server(base: impl Into<String>) -> Self {
        Self::new(Dialect::Server, base)
    }

    /// As OpenIM's documentation, with the callback URL `base`.
    pub fn documented(base: impl Into<String>) -> Self {
        Self::new(Dialect::Documented, base)
    }

    /// In `dialect`.
    pub fn new(dialect: Dialect, base: impl Into<String>) -> Self {
        Self {
            dialect,
            base: base.into(),
            client: Client::default(),
        }
    }

    /// The same, trusting `certificates`.
    #[must_use]
    pub fn trusting(mut self, certificates: &[TestCertificate]) -> Self {
        self.client = Client::trusting(certificates);
        self
    }

    /// The dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The callback before an import, to be sent or modified.
    pub fn before_import(&self, operation_id: &str, owner: &str, friends: &[&str]) -> Call {
        self.with_body(operation_id, &self.body(owner, friends))
    }

    /// The callback before an import with this body.
    pub fn with_body(&self, operation_id: &str, body: &str) -> Call {
        let base = self.base.trim_end_matches('/');
        match self.dialect {
            Dialect::Documented => Call::new(
                Method::POST,
                format!("{base}/?command={DOCUMENTED_COMMAND}&contenttype=json"),
            )
            .header("Content-Type", "application/json")
            .header("operationID", operation_id)
            .body(body.to_owned()),
            Dialect::Server => {
                as_go(format!("{base}/{SERVER_COMMAND}"), operation_id).body(format!("{body}\n"))
            }
        }
    }

    /// The body of the callback before an import, with its fields in the documented order.
    pub fn body(&self, owner: &str, friends: &[&str]) -> String {
        let command = match self.dialect {
            Dialect::Documented => DOCUMENTED_COMMAND,
            Dialect::Server => SERVER_COMMAND,
        };
        body(command, owner, friends)
    }

    /// The server's callback after an import.
    pub fn after_import(&self, operation_id: &str, owner: &str, friends: &[&str]) -> Call {
        let base = self.base.trim_end_matches('/');
        as_go(format!("{base}/{AFTER_COMMAND}"), operation_id)
            .body(body(AFTER_COMMAND, owner, friends) + "\n")
    }

    /// Sends the callback before an import, and returns the answer.
    pub async fn import(&self, operation_id: &str, owner: &str, friends: &[&str]) -> Response {
        self.send(self.before_import(operation_id, owner, friends))
            .await
    }

    /// Sends `call` on this caller's connections.
    pub async fn send(&self, call: Call) -> Response {
        self.client.send(call).await
    }

    /// The same, returning an error if there is no answer.
    pub async fn try_send(&self, call: Call) -> anyhow::Result<Response> {
        self.client.try_send(call).await
    }
}

/// What Go's `net/http` sends for open-im-server.
fn as_go(url: String, operation_id: &str) -> Call {
    Call::new(Method::POST, url)
        .header("User-Agent", "Go-http-client/1.1")
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Operationid", operation_id)
        .header("Accept-Encoding", "gzip")
}

fn body(command: &str, owner: &str, friends: &[&str]) -> String {
    format!(
        r#"{{"callbackCommand":"{command}","ownerUserID":{},"friendUserIDs":{}}}"#,
        json!(owner),
        json!(friends)
    )
}
