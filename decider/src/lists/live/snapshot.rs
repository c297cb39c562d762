//! The snapshot of live lists on disk, with which a decider starts while NATS is unreachable.
//!
//! A snapshot is written to a temporary file, synced, and renamed over the previous one, so a crash leaves a complete snapshot. It ends
//! with a SHA-256 of its content, so a damaged one is not used.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use importguard_runtime::read_file;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{
    leaf::Entry,
    recent::{Known, Recent},
    state::LiveLists,
};

/// The snapshot's name in its directory.
const FILE: &str = "live-lists.snapshot";

/// The first bytes of a snapshot. The number is the version of the format.
const MAGIC: &[u8] = b"importguard live lists 2\n";

/// The length of the digest at the end, in bytes.
const DIGEST_BYTES: usize = 32;

/// The lists, and the bucket and the position from which they were read.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) lists: LiveLists,
    /// When the bucket was created.
    pub(super) created: OffsetDateTime,
    /// The most recent changes.
    pub(super) recent: Recent,
    /// When the lists were last known to be complete.
    pub(super) confirmed: Option<SystemTime>,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("cannot use the snapshot {}: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error("the snapshot {} is damaged; it is ignored, and replaced once the lists are read from NATS", file.display())]
    Damaged { file: PathBuf },
}

impl Snapshot {
    /// Reads the snapshot in `directory`. Returns `None` if there is none. Blocks.
    ///
    /// # Errors
    /// If the snapshot cannot be read or is damaged.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, SnapshotError> {
        let file = directory.join(FILE);
        let bytes = match read_file(&file, u64::MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SnapshotError::Io { file, source }),
        };
        match Self::decode(&bytes) {
            Some(snapshot) => Ok(Some(snapshot)),
            None => Err(SnapshotError::Damaged { file }),
        }
    }

    /// Writes the snapshot to `directory`, creating the directory if it is missing. Blocks.
    ///
    /// # Errors
    /// If the snapshot cannot be written. A previous snapshot is never left incomplete.
    pub(super) fn write(&self, directory: &Path) -> Result<(), SnapshotError> {
        let file = directory.join(FILE);
        self.write_to(directory, &file)
            .map_err(|source| SnapshotError::Io { file, source })
    }

    fn write_to(&self, directory: &Path, file: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let new = file.with_extension("new");
        // One that was left behind would keep its permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut options = OpenOptions::new();
        // It has user IDs in it.
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut output = options.open(&new)?;
        output.write_all(&self.encode())?;
        output.sync_all()?;
        drop(output);
        fs::rename(&new, file)?;
        File::open(directory)?.sync_all()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(MAGIC);
        let confirmed = self
            .confirmed
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let confirmed = confirmed.map_or(0, |since| since.as_secs());
        out.extend(self.created.unix_timestamp_nanos().to_le_bytes());
        out.extend(confirmed.to_le_bytes());
        out.extend(self.lists.revision().to_le_bytes());
        let (changes, are_all) = self.recent.parts();
        out.push(u8::from(are_all));
        out.extend((changes.len() as u64).to_le_bytes());
        for (revision, known) in changes {
            out.extend(revision.to_le_bytes());
            out.extend(known.stored.to_le_bytes());
            out.extend(known.key.to_le_bytes());
            out.push(u8::from(known.may_be_cleared));
        }
        let others: Vec<&str> = self.lists.others().collect();
        out.extend((others.len() as u64).to_le_bytes());
        for key in others {
            text(&mut out, key);
        }
        for (name, list) in self.lists.iter() {
            text(&mut out, name);
            out.extend(list.revision.to_le_bytes());
            out.extend((list.entries.keys() as u64).to_le_bytes());
            for (id, entry) in list.entries.iter() {
                text(&mut out, id);
                text(&mut out, entry.by);
                text(&mut out, entry.reason);
                out.extend(entry.until.unwrap_or_default().to_le_bytes());
                out.push(u8::from(entry.removed));
            }
        }
        let digest = Sha256::digest(&out);
        out.extend(digest);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
        if Sha256::digest(content).as_slice() != digest {
            return None;
        }
        let mut input = Input(content.strip_prefix(MAGIC)?);
        let created = i128::from_le_bytes(input.array()?);
        let confirmed = input.number()?;
        let revision = input.number()?;
        let are_all = input.array::<1>()? != [0];
        let mut changes = BTreeMap::new();
        for _ in 0..input.number()? {
            let revision = input.number()?;
            let stored = i128::from_le_bytes(input.array()?);
            let (key, may_be_cleared) = (input.number()?, input.array::<1>()? != [0]);
            changes.insert(revision, Known::new(stored, key, may_be_cleared));
        }
        let mut others = HashSet::new();
        for _ in 0..input.number()? {
            others.insert(input.text()?.to_owned());
        }
        let mut lists = LiveLists::default();
        lists.restore(revision, others);
        while !input.0.is_empty() {
            let list = lists.list_mut(input.text()?);
            list.revision = input.number()?;
            for _ in 0..input.number()? {
                let (id, by, reason) = (input.text()?, input.text()?, input.text()?);
                let until = u32::from_le_bytes(input.array()?);
                let entry = Entry {
                    by,
                    reason,
                    until: (until > 0).then_some(until),
                    removed: input.array::<1>()? != [0],
                };
                list.entries.insert(id, entry);
            }
        }
        lists.shrink();
        Some(Self {
            lists,
            created: OffsetDateTime::from_unix_timestamp_nanos(created).ok()?,
            recent: Recent::new(changes, are_all),
            confirmed: (confirmed > 0).then(|| UNIX_EPOCH + Duration::from_secs(confirmed)),
        })
    }
}

/// Appends a string of less than 64 KiB, preceded by its length.
fn text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(&text.as_bytes()[..usize::from(length)]);
}

struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::lists::IdHasher;

    fn snapshot() -> Snapshot {
        let mut lists = LiveLists::default();
        lists.restore(42, HashSet::from(["_events".to_owned()]));
        let list = lists.list_mut("blocked");
        list.revision = 41;
        for number in 0..100 {
            let entry = Entry {
                by: "alice",
                reason: "#4711",
                until: (number % 2 == 0).then_some(100),
                removed: number % 3 == 0,
            };
            list.entries.insert(&format!("user {number}"), entry);
        }
        Snapshot {
            lists,
            created: OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap(),
            recent: Recent::new(
                BTreeMap::from([
                    (41, Known::new(1_700_000_000_987_654_321, 7, true)),
                    (42, Known::new(1_700_000_000_987_654_322, u64::MAX, false)),
                ]),
                false,
            ),
            confirmed: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_001)),
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("made");
        assert!(Snapshot::read(&directory).unwrap().is_none());
        let written = snapshot();
        // What an interrupted write of an older version left.
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(FILE).with_extension("new"), "").unwrap();
        written.write(&directory).unwrap();
        let mode = fs::metadata(directory.join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let read = Snapshot::read(&directory).unwrap().unwrap();
        assert_eq!(
            (read.created, &read.recent),
            (written.created, &written.recent)
        );
        assert_eq!(read.confirmed, written.confirmed);
        assert_eq!((read.lists.revision(), read.lists.keys()), (42, 101));
        let list = read.lists.get("blocked").unwrap();
        assert_eq!((list.revision, list.entries.entries()), (41, 66));
        for number in 0..100 {
            let id = format!("user {number}");
            let entries = |of: &Snapshot| {
                let entry = of
                    .lists
                    .get("blocked")
                    .unwrap()
                    .entries
                    .get(&id, IdHasher::get().hash(&id));
                format!("{:?}", entry.unwrap())
            };
            assert_eq!(entries(&read), entries(&written));
        }
    }

    #[test]
    fn a_pipe_in_its_place_is_an_error_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join(FILE);
        let made = std::process::Command::new("mkfifo").arg(pipe).status();
        assert!(made.unwrap().success());
        let error = Snapshot::read(directory.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("is not a regular file"),
            "{error}"
        );
    }

    #[test]
    fn one_that_is_cut_or_damaged_anywhere_is_not_used() {
        let bytes = snapshot().encode();
        assert!(Snapshot::decode(&bytes).is_some());
        for at in (0..bytes.len()).step_by(7) {
            assert!(Snapshot::decode(&bytes[..at]).is_none(), "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Snapshot::decode(&damaged).is_none(), "damaged at {at}");
        }
    }
}
