use std::path::Path;

use anyhow::{Context, ensure};
use rusqlite::{Connection, OpenFlags};

/// Calls `handle` with each event in the spool in `dir`, oldest first. The file is only read, so a gateway may use it meanwhile.
///
/// # Errors
/// If there is no spool or it cannot be read, or as `handle` does.
pub(super) fn read(
    dir: &Path,
    mut handle: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = dir.join("spool.db");
    ensure!(
        path.is_file(),
        "no spool in {}: it has no spool.db",
        dir.display()
    );
    let failed = || format!("cannot read the spool {}", path.display());
    let spool = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(failed)?;
    let mut events = spool
        .prepare("SELECT payload FROM event ORDER BY id")
        .with_context(failed)?;
    let mut rows = events.query([]).with_context(failed)?;
    while let Some(row) = rows.next().with_context(failed)? {
        let payload = row.get_ref(0).with_context(failed)?;
        handle(payload.as_blob().with_context(failed)?)?;
    }
    Ok(())
}
