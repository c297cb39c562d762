//! The event about a change: a CloudEvent in the stream `IMPORTGUARD`, like the events about decisions.

use importguard_core::UserId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Brief, Key};

/// The subject of events about changes.
pub const CHANGED_SUBJECT: &str = "importguard.v1.list.changed";

/// The type of the event.
const KIND: &str = "importguard.list.changed.v1";

/// The media type of the event. That of its `data` is `application/json`.
pub(crate) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A change of a live list: a CloudEvent 1.0 in structured JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListChangedEvent {
    /// The version of the CloudEvents specification: 1.0.
    pub specversion: String,
    /// The event's ID, a UUID; also the message's `Nats-Msg-Id`, and `event` in the bucket.
    pub id: String,
    /// What happened, and the version of `data`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who says so: `importguard/list`.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "uri-reference")))]
    pub source: String,
    /// When the list was changed.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub time: OffsetDateTime,
    /// Whom it is about: the user's ID, or its pseudonym.
    pub subject: UserId,
    /// `true` if the event has a pseudonym; absent if it has a user ID, which may look like a pseudonym (an extension attribute).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub pseudonymised: bool,
    /// The media type of `data`.
    pub datacontenttype: String,
    /// What changed.
    pub data: ListChangedData,
}

/// What changed in a live list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListChangedData {
    /// The list's name in the bucket.
    pub list: String,
    /// The user who was added or removed, or the pseudonym.
    #[serde(rename = "userID")]
    pub user_id: UserId,
    /// What was done. An ID that was there already is added again, with other details.
    pub change: ChangeMade,
    /// Who did it.
    pub by: String,
    /// Why; absent if users have pseudonyms, because it may name users.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// From when on the entry no longer counts; absent if it never expires.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option",
        default
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub until: Option<OffsetDateTime>,
    /// The revision of the bucket since this change.
    pub revision: u64,
    /// The ID of the event about the entry, or the removal, that this change replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ChangeMade {
    /// The ID was added.
    Added,
    /// The ID was removed.
    Removed,
}

impl ListChangedEvent {
    /// Creates the event about the value that was written at `key` with `revision`. With a pseudonym of the user, it has neither the ID nor
    /// the reason. Returns `None` if the value has no event ID or no time, as one that another program wrote.
    pub fn new(
        key: &Key,
        value: &Brief<'_>,
        revision: u64,
        pseudonym: Option<UserId>,
    ) -> Option<Self> {
        let id = value.event?;
        let pseudonymised = pseudonym.is_some();
        let user = pseudonym.unwrap_or_else(|| key.id.clone());
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(Self {
            specversion: "1.0".to_owned(),
            id: id.to_string(),
            kind: KIND.to_owned(),
            source: "importguard/list".to_owned(),
            time: value.at?,
            subject: user.clone(),
            pseudonymised,
            datacontenttype: "application/json".to_owned(),
            data: ListChangedData {
                list: key.list.to_string(),
                user_id: user,
                change: match value.removed {
                    true => ChangeMade::Removed,
                    false => ChangeMade::Added,
                },
                by: value.by.clone().into_owned(),
                reason: text(&value.reason).filter(|_| !pseudonymised),
                until: value.expires(),
                revision,
                replaces: value.replaces.map(|id| id.to_string()),
            },
        })
    }
}
