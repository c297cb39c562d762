use serde::{Deserialize, Serialize};

use crate::{OperationId, UserId};

/// A request to import friends for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRequest {
    /// OpenIM's ID of the whole operation.
    pub operation_id: OperationId,
    /// The user who imports: OpenIM's `ownerUserID`.
    pub owner: UserId,
    /// The friends to import, as sent: OpenIM's `friendUserIDs`. May contain the owner and duplicates.
    pub friends: Vec<UserId>,
}

/// The two formats of OpenIM's callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Dialect {
    /// The format in OpenIM's documentation.
    Documented,
    /// The format of every open-im-server since 3.5.0.
    Server,
}

impl Dialect {
    /// Its name in events and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Server => "server",
        }
    }
}
