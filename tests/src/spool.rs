use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use crate::Service;

/// Reads a gateway's spool, also while the gateway has it open.
#[derive(Debug)]
pub struct Spool {
    file: PathBuf,
}

impl Spool {
    /// The spool of `gateway`.
    pub fn of(gateway: &Service) -> Self {
        Self {
            file: gateway.spool_dir().join("spool.db"),
        }
    }

    /// The operationIDs of the events that are committed, in the order in which they will be published.
    pub fn operation_ids(&self) -> Vec<String> {
        if !self.file.exists() {
            return Vec::new();
        }
        let spool = Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .expect("the spool can be looked into");
        let mut query = spool
            .prepare("SELECT operation_id FROM event ORDER BY id")
            .expect("the spool has its table");
        query
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .expect("the spool can be read")
    }
}
