//! Loads a policy and its list files from disk, and reports all errors together.

use std::path::Path;

use importguard_runtime::{Fingerprint, Snapshot};
use importguard_yaml::file::FileKind;

use crate::{
    lists::{self, ListContent, ListError, MAX_LIST_BYTES},
    policy::{Diagnostics, Draft, ListFiles, MAX_POLICY_BYTES, Policy},
};

const POLICY: FileKind = FileKind {
    max_bytes: MAX_POLICY_BYTES as u64,
    if_missing: "create the file (`importguard policy init` writes one to begin with), or correct the path",
    if_larger: "move long lists to separate files: { file: lists/name.txt }",
};

const LIST: FileKind = FileKind {
    max_bytes: MAX_LIST_BYTES,
    if_missing: "create the file or correct the path, which is relative to the policy's directory",
    if_larger: "split it, with one rule per part",
};

/// Loads the policy at `path` and its lists, whose paths are relative to its directory, for imports of up to `max_friends`
/// friends. Blocks, for seconds if lists have millions of IDs.
///
/// # Errors
/// Every error in the policy and its lists.
pub fn load(path: &Path, max_friends: usize) -> Result<Policy, Diagnostics> {
    snapshot(path, max_friends).content
}

/// Like [`load`], with the fingerprint of the files that were read.
pub(crate) fn snapshot(path: &Path, max_friends: usize) -> Snapshot<Policy, Diagnostics> {
    let mut files = Fingerprint::default();
    let content = read_policy(path, max_friends, &mut files);
    Snapshot {
        files,
        content,
        retry: false,
    }
}

fn read_policy(
    path: &Path,
    max_friends: usize,
    read_files: &mut Fingerprint,
) -> Result<Policy, Diagnostics> {
    read_files.add(path);
    // The text keeps the byte order mark, which is part of the file's digest.
    let source = POLICY.read_text(path, "the policy")?;
    let draft = Draft::read(&path.display().to_string(), &source);
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut files = ListFiles::new();
    for file in draft.list_files() {
        if !files.contains_key(file) {
            let path = directory.join(file);
            read_files.add(&path);
            files.insert(file.to_owned(), load_list(&path));
        }
    }
    draft.compile_for(max_friends, &files)
}

fn load_list(path: &Path) -> Result<ListContent, ListError> {
    let bytes = LIST.read(path).map_err(ListError::Unreadable)?;
    lists::parse(&bytes).map_err(|lines| ListError::Invalid {
        path: path.display().to_string(),
        lines,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use importguard_core::Verdict;

    use crate::policy::{DEFAULT_MAX_FRIENDS, Request};

    const HEAD: &str = "apiVersion: importguard/v1\nname: test\n";

    fn shipped() -> Policy {
        let path = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../policy/policy.yaml"
        ));
        load(&path, DEFAULT_MAX_FRIENDS).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    fn error(directory: &tempfile::TempDir) -> String {
        load(&directory.path().join("policy.yaml"), DEFAULT_MAX_FRIENDS)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_shipped_policy_answers_as_the_documentation_shows() {
        let policy = shipped();
        let decide = |owner, friends: &[&str]| {
            let decision = policy.evaluate(&Request {
                operation_id: "op-1",
                now: std::time::SystemTime::UNIX_EPOCH,
                owner,
                friends,
            });
            match decision.verdict {
                Verdict::Allow => "allow".to_owned(),
                Verdict::Modify(kept) => format!("modify {:?}", kept.indexes()),
                Verdict::Refuse(refusal) => format!(
                    "refuse {} {} / {}",
                    refusal.code, refusal.message, refusal.detail
                ),
            }
        };
        assert_eq!(decide("user123", &["user456", "user789"]), "allow");
        assert_eq!(
            decide("blocked_user", &["user456"]),
            "refuse 5001 User not allowed to import friends / The user does not meet the criteria for importing friends"
        );
        assert_eq!(
            decide("user123", &["user456", "blocked_user", "bot_7", "svc_crm"]),
            "modify [0]"
        );
        assert_eq!(
            decide("user123", &["blocked_user", "spammer_1001"]),
            "refuse 5002 No importable friends / None of the friends can be imported"
        );
        let many: Vec<String> = (0..1001).map(|n| format!("user{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(decide("me", &many).starts_with("refuse 5003"));
        assert_eq!(decide("me", &many[1..]), "allow");
    }

    #[test]
    fn finds_lists_beside_the_policy_wherever_the_process_runs() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lists")).unwrap();
        fs::write(directory.path().join("lists/a.txt"), "x\ny\n").unwrap();
        let source = format!("{HEAD}lists: {{ a: {{ file: lists/a.txt }} }}\nrules: []\n");
        let path = directory.path().join("policy.yaml");
        fs::write(&path, &source).unwrap();
        let policy = load(&path, DEFAULT_MAX_FRIENDS).unwrap();
        assert_eq!(policy.lists().next().unwrap().size, 2);
        assert_eq!(policy.digest(), importguard_core::digest(source.as_bytes()));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_policy_but_of_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        let source = format!("\u{feff}{HEAD}rules: []\n");
        fs::write(&path, &source).unwrap();
        let policy = load(&path, DEFAULT_MAX_FRIENDS).unwrap();
        assert_eq!(policy.digest(), importguard_core::digest(source.as_bytes()));

        let wide: Vec<u8> = source.encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(&path, wide).unwrap();
        let error = error(&directory);
        let message = "policy.yaml:1:1: the file is encoded as UTF-16 or UTF-32, not as UTF-8";
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn refuses_a_policy_that_costs_too_much_for_the_imports_there_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        let texts = vec!["'a'"; 100].join(",");
        let rule = format!("dropFriendIf: \"[{texts}].exists(x, x == friend)\", onError: skip");
        fs::write(&path, format!("{HEAD}rules: [{{ id: costly, {rule} }}]\n")).unwrap();
        let error = error(&directory);
        assert!(
            error.contains("with 10000 friends the enforced rules cost"),
            "{error}"
        );
        assert!(load(&path, 1000).is_ok());
    }

    #[test]
    fn reports_the_policy_and_all_its_lists_together() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("dir")).unwrap();
        fs::write(directory.path().join("bad.txt"), b"fine\nb\xff\n").unwrap();
        let source = format!(
            "{HEAD}lists:\n  gone: {{ file: gone.txt }}\n  dir: {{ file: dir }}\n  bad: {{ file: bad.txt }}\nrulez: []\n"
        );
        fs::write(directory.path().join("policy.yaml"), source).unwrap();
        let error = error(&directory);
        for part in [
            "policy.yaml:4:17: the list \"gone.txt\" cannot be read from",
            "create the file or correct the path",
            "policy.yaml:5:16: the list \"dir\" cannot be read:",
            "/dir is a directory",
            "name a file in it",
            "bad.txt:2:2: this line is not UTF-8",
            "policy.yaml:7:1: unknown key \"rulez\"",
            "did you mean \"rules\"?",
            "a policy needs \"rules\"",
        ] {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
    }

    #[test]
    fn refuses_pipes_and_devices_without_reading_them() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = load(path, DEFAULT_MAX_FRIENDS).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_file_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let missing = error(&directory);
        assert!(missing.contains("policy.yaml: the policy cannot be read from"));
        assert!(missing.contains("importguard policy init"), "{missing}");
        let path = directory.path().join("policy.yaml");
        fs::write(&path, b"a: b\nc: \xff\n").unwrap();
        assert!(error(&directory).contains("policy.yaml:2:4: this line is not UTF-8"));
        fs::write(&path, vec![b'#'; MAX_POLICY_BYTES + 10]).unwrap();
        assert!(error(&directory).contains("has more than 1048576 bytes"));
    }
}
