use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Files as they were when they were looked at: what is compared to find out whether one of them is another one now, also through
/// a symlink that points elsewhere and after a `mv`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Adds a file as it is now.
    pub fn look_at(&mut self, file: &Path) {
        self.0.push((file.to_owned(), Stamp::of(file)));
    }

    /// The same files as they are now.
    pub fn look_again(&self) -> Self {
        let mut now = Self::default();
        for (file, _) in &self.0 {
            now.look_at(file);
        }
        now
    }
}

impl Stamp {
    /// `None` where there is nothing to look at; that it cannot be read is the load's to tell.
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

    fn changed(files: &Files) -> bool {
        files.look_again() != *files
    }

    #[test]
    fn notices_a_write_a_move_and_a_symlink_that_points_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("one"), "1").unwrap();
        fs::write(at("two"), "1").unwrap();
        symlink(at("one"), at("link")).unwrap();
        let look = |name: &str| {
            let mut files = Files::default();
            files.look_at(&at(name));
            files
        };

        let through_link = look("link");
        assert!(!changed(&through_link));
        symlink(at("two"), at("link.new")).unwrap();
        fs::rename(at("link.new"), at("link")).unwrap();
        assert!(changed(&through_link));

        let moved_over = look("one");
        fs::rename(at("two"), at("one")).unwrap();
        assert!(changed(&moved_over));

        let written = look("one");
        fs::write(at("one"), "22").unwrap();
        assert!(changed(&written));

        let gone = look("one");
        fs::remove_file(at("one")).unwrap();
        assert!(changed(&gone));
        assert!(!changed(&gone.look_again()));
    }
}
