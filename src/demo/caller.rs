//! A caller that behaves like open-im-server.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::imports::Import;

const COMMAND: &str = "callbackBeforeImportFriendsCommand";

/// open-im-server's default timeout of a webhook.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends callbacks, as open-im-server 3.7 and later does.
pub(super) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// The fields of a response that determine the verdict.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    action_code: i64,
    next_code: i64,
    #[serde(rename = "friendUserIDs")]
    friend_user_ids: Option<Vec<String>>,
}

impl Caller {
    /// A caller of the gateway at `address`.
    pub(super) fn new(address: std::net::SocketAddr) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: format!("http://{address}/{COMMAND}"),
        }
    }

    /// Sends the callback for `import`, and returns the verdict by its name in events.
    ///
    /// # Errors
    /// If there is no response in time, or OpenIM could not read it.
    pub(super) async fn ask(&self, import: &Import) -> anyhow::Result<&'static str> {
        let body = json!({
            "callbackCommand": COMMAND, "ownerUserID": import.owner, "friendUserIDs": import.friends,
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Operationid", &import.operation_id)
            .body(Full::from(body.to_string()))
            .context("a callback cannot be made")?;
        let answered = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                bail!("HTTP status {status}");
            }
            Ok(serde_json::from_slice::<Answer>(&body)?)
        };
        let answer = timeout(TIMEOUT, answered).await.context("no answer")??;
        // open-im-server treats any actionCode other than 0 as an error of the webhook.
        match (answer.action_code, answer.next_code) {
            (0, 1) => Ok("refuse"),
            (0, _) if answer.friend_user_ids.is_some() => Ok("modify"),
            (0, _) => Ok("allow"),
            (code, _) => bail!("actionCode {code}"),
        }
    }
}
