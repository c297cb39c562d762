//! The contents of the directory at a start, and who may read them.

use std::os::unix::fs::PermissionsExt;

use super::{super::store::SCHEMA_VERSION, *};

#[tokio::test]
async fn of_two_processes_the_second_is_told_whose_spool_it_is() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let error =
        Spool::open(dir.path(), MIB, SpoolSync::Full, CancellationToken::new()).unwrap_err();
    assert!(matches!(error, SpoolOpenError::Held { .. }));
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    let _free_again = reopen(spool, &dir).await;
}

#[tokio::test]
async fn nobody_else_may_read_who_imports_whom() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.append(event("x"), soon()).await.unwrap();
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside_and_kept() {
    for garbage in [Garbage::NoDatabase, Garbage::BrokenPages] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool.db");
        garbage.write(&dir).await;
        let written = fs::read(&path).unwrap();
        let spool = open(&dir);
        assert_eq!(spool.depth().events(), 0);
        spool.append(event("new"), soon()).await.unwrap();
        let kept: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("corrupt-"))
            .collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(fs::read(&kept[0]).unwrap(), written);
    }
}

enum Garbage {
    NoDatabase,
    BrokenPages,
}

impl Garbage {
    async fn write(&self, dir: &TempDir) {
        let path = dir.path().join("spool.db");
        match self {
            Self::NoDatabase => fs::write(path, vec![7; 20_000]).unwrap(),
            Self::BrokenPages => {
                let spool = open(dir);
                for _ in 0..100 {
                    spool
                        .append(event(&"x".repeat(1000)), soon())
                        .await
                        .unwrap();
                }
                spool.close(soon()).await;
                let mut bytes = fs::read(&path).unwrap();
                bytes[4096..].fill(7);
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_was_open_to_others_is_closed_to_them() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = TempDir::new().unwrap();
    let spool = dir.path().join("new/spool");
    let opened = Spool::open(&spool, MIB, SpoolSync::Full, CancellationToken::new()).unwrap();
    opened.append(event("op"), soon()).await.unwrap();
    opened.close(soon()).await;
    assert_eq!(mode(&spool), 0o700);
    let files = ["spool.db", "spool.lock"].map(|name| spool.join(name));
    for (path, open) in [(&spool, 0o755), (&files[0], 0o644), (&files[1], 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
    }
    Spool::open(&spool, MIB, SpoolSync::Full, CancellationToken::new()).unwrap();
    assert_eq!(mode(&spool), 0o700);
    assert_eq!(files.map(|file| mode(&file)), [0o600, 0o600]);
}

#[tokio::test]
async fn a_directory_that_holds_something_else_keeps_its_permissions() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("policy.yaml"), "").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _spool = open(&dir);
    let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn an_error_at_the_start_names_the_file_and_the_cause_once() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("spool.db")).unwrap();
    let opened = Spool::open(dir.path(), MIB, SpoolSync::Full, CancellationToken::new());
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("spool.db: Is a directory"), "{text}");
    for (code, expected) in [
        (
            rusqlite::ffi::SQLITE_FULL,
            "can't open the spool s: the disk is full (or a quota is reached): database or disk is full; correct this, or use another directory (IMPORTGUARD_SPOOL)",
        ),
        (
            rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
            "can't open the spool s: the disk is full (or a quota is reached): disk I/O error (SQLite's code 4874); correct this, or use another directory (IMPORTGUARD_SPOOL)",
        ),
    ] {
        let why = rusqlite::ffi::code_to_str(code).to_owned();
        let error = rusqlite::ffi::Error::new(code);
        let error = SpoolOpenError::Sqlite {
            path: "s".into(),
            error: rusqlite::Error::SqliteFailure(error, Some(why)),
        };
        assert_eq!(importguard_runtime::whole_text(&error), expected);
    }
}

#[tokio::test]
async fn another_schema_is_left_alone() {
    for version in [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool.db");
        let other = Connection::open(&path).unwrap();
        other.pragma_update(None, "user_version", version).unwrap();
        drop(other);
        let before = fs::read(&path).unwrap();
        let error =
            Spool::open(dir.path(), MIB, SpoolSync::Full, CancellationToken::new()).unwrap_err();
        assert!(
            matches!(error, SpoolOpenError::OtherSchema { found, .. } if found == version),
            "{error}"
        );
        let text = error.to_string();
        let schemas = format!(
            "has schema {version}, but this version of importguard needs schema {SCHEMA_VERSION}"
        );
        for part in [path.to_str().unwrap(), &schemas, "importguard spool drain"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn a_spool_that_is_made_anew_has_its_usual_bound_and_says_so() {
    let dir = TempDir::new().unwrap();
    let large = Spool::open(
        dir.path(),
        8 * MIB,
        SpoolSync::Full,
        CancellationToken::new(),
    );
    let large = large.unwrap();
    for _ in 0..40 {
        large
            .append(event(&"x".repeat(100_000)), soon())
            .await
            .unwrap();
    }
    let spool = reopen(large, &dir).await;
    assert!(spool.depth().max_bytes() > 3 * MIB);
    let all = spool.next(100, usize::MAX, 7).await.unwrap();
    let ids = all.iter().map(|event| event.id).collect();
    spool.delete(ids).await.unwrap();
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    spool.append(event("a"), soon()).await.unwrap();
    assert_eq!(spool.depth().max_bytes(), MIB);
}
