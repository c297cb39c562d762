use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The policy of most tests.
const USUAL: &str = r#"apiVersion: importguard/v1
name: e2e
lists:
  blocked: { file: lists/blocked.txt }
rules:
  - id: blocked-owner
    refuseOwner: { in: blocked }
    refusal:
      code: 5001
      message: "User not allowed to import friends"
      detail: "The user does not meet the criteria for importing friends"
  - id: blocked-friends
    dropFriends: { in: blocked, prefixes: ["bot_"] }
nobodyLeft: { code: 5002, message: "No importable friends", detail: "Every friend was removed by a rule" }
"#;

/// The users that [`USUAL`] blocks.
const BLOCKED: &str = "# blocked users\nblocked_owner\nblocked_1\nblocked_2\n";

/// A policy file and its lists in a directory of their own.
#[derive(Debug)]
pub struct PolicyDir {
    dir: TempDir,
}

impl PolicyDir {
    /// The usual policy: `blocked_owner` may not import (5001), `blocked_1`, `blocked_2` and `bot_…` may not be
    /// imported, and a list with only them is refused (5002).
    pub fn usual() -> Self {
        Self::new(USUAL, &[("lists/blocked.txt", BLOCKED)])
    }

    /// The policy `yaml`, with files in the same directory.
    pub fn new(yaml: &str, files: &[(&str, &str)]) -> Self {
        let policy = Self {
            dir: TempDir::new().expect("a temporary directory"),
        };
        policy.write("policy.yaml", yaml);
        for (name, content) in files {
            policy.write(name, content);
        }
        policy
    }

    /// For `IMPORTGUARD_POLICY`.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("policy.yaml")
    }

    /// The directory of the policy.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the file `name`, in place if it exists.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Atomically replaces the file `name`, as `mv` does.
    pub fn replace(&self, name: &str, content: &str) {
        let aside = format!("{name}.new");
        self.write(&aside, content);
        fs::rename(self.dir.path().join(aside), self.dir.path().join(name)).unwrap();
    }
}
