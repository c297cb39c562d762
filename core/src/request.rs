use serde::{Deserialize, Serialize};

use crate::{OperationId, UserId};

/// Who wants to import whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRequest {
    /// OpenIM's ID of the whole operation.
    pub operation_id: OperationId,
    /// Who imports: OpenIM's `ownerUserID`.
    pub owner: UserId,
    /// Whom, as sent: OpenIM's `friendUserIDs`. May hold the owner and repetitions.
    pub friends: Vec<UserId>,
}

/// The two ways in which OpenIM's callback is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Dialect {
    /// As OpenIM's documentation has it.
    Documented,
    /// As every open-im-server since 3.5.0 has it.
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
