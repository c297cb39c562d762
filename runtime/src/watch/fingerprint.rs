use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The state of a set of files. A later fingerprint of the same files differs if any of them was written, replaced, created or removed,
/// including behind a symlink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<FileState>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Adds `file` in its current state.
    pub fn add(&mut self, file: &Path) {
        self.0.push((file.to_owned(), FileState::of(file)));
    }

    /// Whether one of these files was emptied or shortened where it is, and not replaced, since `before`: what it was before is gone,
    /// and what it will be may not be there yet.
    pub(super) fn is_truncated_since(&self, before: &Self) -> bool {
        self.0.iter().any(|(file, now)| {
            let before = before.0.iter().find(|(other, _)| other == file);
            match (before.and_then(|(_, state)| *state), now) {
                (Some(before), Some(now)) => now.is_same_file(before) && now.bytes < before.bytes,
                _ => false,
            }
        })
    }

    /// The same files in their current state.
    pub(super) fn refreshed(&self) -> Self {
        self.0.iter().map(|(file, _)| &**file).collect()
    }
}

impl<'a> FromIterator<&'a Path> for Fingerprint {
    fn from_iter<I: IntoIterator<Item = &'a Path>>(files: I) -> Self {
        let mut fingerprint = Self::default();
        for file in files {
            fingerprint.add(file);
        }
        fingerprint
    }
}

impl FileState {
    fn is_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// `None` if there is no such file; the error is reported when the file is read.
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn changed(fingerprint: &Fingerprint) -> bool {
        fingerprint.refreshed() != *fingerprint
    }

    #[test]
    fn it_differs_after_a_write_a_rename_a_removal_and_behind_a_changed_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("one"), "1").unwrap();
        fs::write(at("two"), "1").unwrap();
        symlink(at("one"), at("link")).unwrap();
        let of = |name: &str| Fingerprint::from_iter([&*at(name)]);

        let through_link = of("link");
        assert!(!changed(&through_link));
        symlink(at("two"), at("link.new")).unwrap();
        fs::rename(at("link.new"), at("link")).unwrap();
        assert!(changed(&through_link));

        let renamed_over = of("one");
        fs::rename(at("two"), at("one")).unwrap();
        assert!(changed(&renamed_over));

        let written = of("one");
        fs::write(at("one"), "22").unwrap();
        assert!(changed(&written));

        let removed = of("one");
        fs::remove_file(at("one")).unwrap();
        assert!(changed(&removed));
        assert!(!changed(&removed.refreshed()));
    }
}
