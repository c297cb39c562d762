//! The events on NATS: CloudEvents 1.0 in structured JSON (<https://github.com/cloudevents/spec>, v1.0.2). Fields may be added, but never
//! change. OpenIM's names keep OpenIM's spelling.

use std::borrow::Cow;

use importguard_core::{
    Cause, DecidedBy, Dialect, ListRevision, OperationId, PolicyRevision, Refusal, Removal, UserId,
    Verdict, VerdictKind,
};
use serde::{Deserialize, Serialize};
use strum::{EnumIter, IntoStaticStr};
use time::OffsetDateTime;

use super::Fired;
#[cfg(test)]
use crate::tests::schema;

/// The media type of every message: a CloudEvent in structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A verdict on an import, on [`Subject::Allow`], [`Subject::Refuse`] or [`Subject::Modify`].
pub type DecisionEvent<'a> = CloudEvent<DecisionData<'a>>;

/// OpenIM's report of a completed import, on [`Subject::Imported`].
pub type ImportedEvent<'a> = CloudEvent<ImportedData<'a>>;

/// The subject that an event is published on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumIter)]
pub enum Subject {
    /// The import may proceed.
    #[strum(to_string = "importguard.v1.decision.allow")]
    Allow,
    /// The import must not proceed.
    #[strum(to_string = "importguard.v1.decision.refuse")]
    Refuse,
    /// The import may proceed with fewer friends.
    #[strum(to_string = "importguard.v1.decision.modify")]
    Modify,
    /// The import is complete.
    #[strum(to_string = "importguard.v1.imported")]
    Imported,
}

impl Subject {
    /// The subject's name on NATS.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

impl From<&Verdict> for Subject {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Refuse(_) => Self::Refuse,
            Verdict::Modify(_) => Self::Modify,
        }
    }
}

/// The envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CloudEvent<D> {
    /// The version of the CloudEvents specification.
    pub specversion: SpecVersion,
    /// The event's id, a UUID v7; also the message's `Nats-Msg-Id`.
    #[cfg_attr(test, schemars(regex(pattern = schema::UUID)))]
    pub id: String,
    /// What happened, and the version of `data`.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The gateway: `importguard/gateway/<instance>`.
    #[cfg_attr(test, schemars(extend("format" = "uri-reference")))]
    pub source: String,
    /// When the event happened. For a decision of the policy: the time that its rules saw, by the decider's clock
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub time: OffsetDateTime,
    /// The user whom the event is about, the owner: the ID, or its pseudonym.
    pub subject: UserId,
    /// `true` if the event has pseudonyms; absent if it has user IDs, which may look like pseudonyms (an extension attribute).
    #[serde(skip_serializing_if = "is_false", default)]
    pub pseudonymised: bool,
    /// The media type of `data`.
    pub datacontenttype: Cow<'static, str>,
    /// The W3C trace context of the publishing span (CloudEvents' distributed tracing extension).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
    /// The vendors' part of the trace context, at most 512 bytes (the same extension).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tracestate: Option<String>,
    /// What happened.
    pub data: D,
}

/// The version of the CloudEvents specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SpecVersion {
    /// 1.0
    #[serde(rename = "1.0")]
    V1,
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum EventType {
    /// A decision; `data` is a `Decision`.
    #[serde(rename = "importguard.decision.v1")]
    Decision,
    /// A completed import; `data` is an `Imported`.
    #[serde(rename = "importguard.imported.v1")]
    Imported,
}

/// A verdict and everything it depended on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Decision", extend("allOf" = schema::presence_in_decision())))]
#[serde(rename_all = "camelCase")]
pub struct DecisionData<'a> {
    /// The callback's operationID.
    #[serde(rename = "operationID")]
    pub operation_id: Cow<'a, OperationId>,
    /// What the caller sent as operationID, where the gateway generated one because that was unusable: at most 256 characters, or
    /// `redacted` where events have pseudonyms.
    #[serde(
        rename = "replacedOperationID",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub replaced_operation_id: Option<Cow<'a, str>>,
    /// Who imports.
    #[serde(rename = "ownerUserID")]
    pub owner_user_id: Cow<'a, UserId>,
    /// The friends in the request. Left out where the message would exceed the server's `max_payload`; see `omitted`.
    #[serde(
        rename = "friendUserIDs",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub friend_user_ids: Option<Cow<'a, [UserId]>>,
    /// The number of friends in the request; present only if `friendUserIDs` was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub friend_count: Option<usize>,
    /// The answer that OpenIM got.
    pub verdict: VerdictKind,
    /// What gave the verdict: the policy, or a fallback.
    pub decided_by: DecidedBy,
    /// Why the fallback decided; absent if the policy did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cause>,
    /// The refusal sent to OpenIM; present exactly if the verdict is `refuse`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<Cow<'a, Refusal>>,
    /// The friends that each rule removed.
    pub removed: Vec<Removed<'a>>,
    /// The rules that fired, in order.
    pub rules: Vec<Fired<'a>>,
    /// The policy that was evaluated; absent if no decider answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Cow<'a, PolicyRevision>>,
    /// The lists that the policy held. With pseudonyms, `digest` is `hmac-sha256:` and the HMAC of the digest under their key.
    #[serde(skip_serializing_if = "is_empty", default)]
    pub lists: Cow<'a, [ListRevision]>,
    /// The dialect of the callback: as open-im-server sends it, or as documented.
    pub dialect: Dialect,
    /// The gateway that answered.
    pub gateway: Cow<'a, str>,
    /// The decider that decided; absent if none answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decider: Option<Cow<'a, str>>,
    /// How long the decision took.
    pub micros: Micros,
    /// The fields that were left out or cut because the message would have exceeded the server's `max_payload`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub omitted: Vec<Cow<'static, str>>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_empty<T: Clone>(list: &[T]) -> bool {
    list.is_empty()
}

/// OpenIM's report after an import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Imported", extend("allOf" = schema::presence_in_imported())))]
#[serde(rename_all = "camelCase")]
pub struct ImportedData<'a> {
    /// The callback's operationID.
    #[serde(rename = "operationID")]
    pub operation_id: Cow<'a, OperationId>,
    /// What the caller sent as operationID, where the gateway generated one because that was unusable: at most 256 characters, or
    /// `redacted` where events have pseudonyms.
    #[serde(
        rename = "replacedOperationID",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub replaced_operation_id: Option<Cow<'a, str>>,
    /// Who imported.
    #[serde(rename = "ownerUserID")]
    pub owner_user_id: Cow<'a, UserId>,
    /// The friends that were imported. Left out where the message would exceed the server's `max_payload`; see `omitted`.
    #[serde(
        rename = "friendUserIDs",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub friend_user_ids: Option<Cow<'a, [UserId]>>,
    /// The number of friends that were imported; present only if `friendUserIDs` was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub friend_count: Option<usize>,
    /// The gateway that received the report.
    pub gateway: Cow<'a, str>,
    /// The fields that were left out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub omitted: Vec<Cow<'static, str>>,
}

/// The friends that a rule removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Removal"))]
pub struct Removed<'a> {
    /// The rule's id.
    pub rule: Cow<'a, str>,
    /// Ascending indexes into `friendUserIDs`, from 0. Left out with them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub friends: Option<Cow<'a, [u32]>>,
    /// Their number; present only if `friends` was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<usize>,
}

impl<'a> From<&'a Removal> for Removed<'a> {
    fn from(removal: &'a Removal) -> Self {
        Self {
            rule: Cow::Borrowed(&removal.rule),
            friends: Some(Cow::Borrowed(&removal.friends)),
            count: None,
        }
    }
}

/// Durations in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Micros {
    /// From the request to the decider until its response, or until it was given up.
    pub decide: u64,
    /// From the callback's arrival until the event was built, before it was recorded and the callback answered.
    pub total: u64,
}
