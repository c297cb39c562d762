use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::*;

fn read_number(file: &Path) -> Result<u8, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    text.trim()
        .parse()
        .map_err(|error| format!("{text}: {error}"))
}

async fn number(file: &Path) -> FileWatcher<u8, String> {
    let file = file.to_owned();
    FileWatcher::open(move || Snapshot::take(std::slice::from_ref(&file), || read_number(&file)))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_broken_file_changes_nothing_until_it_is_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "1").unwrap();
    let mut watcher = number(&file).await;
    let last_good = watcher.last_good();
    assert_eq!(watcher.check(false).await, None);

    fs::write(&file, "twelve").unwrap();
    assert_eq!(watcher.check(false).await, None, "it may not have settled");
    assert!(matches!(
        watcher.check(false).await,
        Some(Reload::Failed(_))
    ));
    assert_eq!(watcher.check(false).await, None, "it is reported once");
    assert_eq!((*last_good.load(), last_good.error().is_some()), (1, true));

    fs::write(&file, "12").unwrap();
    assert_eq!(watcher.check(false).await, None);
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
    assert_eq!((*last_good.load(), last_good.error()), (12, None));

    let active = last_good.load();
    assert_eq!(watcher.check(true).await, Some(Reload::Unchanged), "forced");
    assert!(Arc::ptr_eq(&active, &last_good.load()));
}

#[tokio::test]
async fn doubtful_content_is_held_back_until_the_same_files_are_reloaded_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "12").unwrap();
    let is_less = |active: &u8, new: &u8| (new < active).then(|| format!("only {new}"));
    let mut watcher = number(&file).await.hold_back_if(is_less);
    let last_good = watcher.last_good();

    fs::write(&file, "11").unwrap();
    let held_back = Some(Reload::HeldBack("only 11".to_owned()));
    assert_eq!(watcher.check(true).await, held_back, "nobody saw it");
    assert_eq!(last_good.error().as_deref(), Some("only 11"));
    assert_eq!(watcher.check(false).await, None, "it is reported once");
    fs::write(&file, "10").unwrap();
    let held_back = Some(Reload::HeldBack("only 10".to_owned()));
    assert_eq!(watcher.check(true).await, held_back, "another number");
    assert_eq!(*last_good.load(), 12);
    assert_eq!(watcher.check(true).await, Some(Reload::Applied));
    assert_eq!((*last_good.load(), last_good.error()), (10, None));

    fs::write(&file, "9").unwrap();
    assert!(matches!(
        watcher.check(true).await,
        Some(Reload::HeldBack(_))
    ));
    fs::write(&file, "13").unwrap();
    assert_eq!(watcher.check(true).await, Some(Reload::Applied));
}

#[tokio::test]
async fn content_that_may_be_accepted_later_is_read_again_and_its_doubt_reported_once() {
    static DOUBTED: AtomicBool = AtomicBool::new(true);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "1").unwrap();
    let named = file.clone();
    let read = move || Snapshot {
        retry: true,
        ..Snapshot::take(std::slice::from_ref(&named), || read_number(&named))
    };
    let doubt = |_: &u8, _: &u8| {
        let doubted = DOUBTED.load(Ordering::Relaxed);
        doubted.then(|| "too early".to_owned())
    };
    let watcher = FileWatcher::open(read).await.unwrap();
    let mut watcher = watcher.hold_back_if(doubt);
    fs::write(&file, "2").unwrap();
    let held_back = Some(Reload::HeldBack("too early".to_owned()));
    assert_eq!(watcher.check(false).await, None, "it may not have settled");
    assert_eq!(watcher.check(false).await, held_back);
    assert_eq!(watcher.check(false).await, None, "it is reported once");
    DOUBTED.store(false, Ordering::Relaxed);
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
}

#[tokio::test]
async fn a_doubt_of_another_kind_is_not_confirmed_before_it_was_reported() {
    static IS_EARLY: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "12").unwrap();
    let named = file.clone();
    let read = move || Snapshot {
        retry: IS_EARLY.load(Ordering::Relaxed),
        ..Snapshot::take(std::slice::from_ref(&named), || read_number(&named))
    };
    let doubt = |active: &u8, new: &u8| (new < active).then(|| format!("only {new}"));
    let watcher = FileWatcher::open(read).await.unwrap();
    let mut watcher = watcher.hold_back_if(doubt);
    fs::write(&file, "11").unwrap();
    let held_back = Some(Reload::HeldBack("only 11".to_owned()));
    assert_eq!(watcher.check(true).await, held_back);
    IS_EARLY.store(true, Ordering::Relaxed);
    assert_eq!(watcher.check(true).await, held_back);
    assert_eq!(watcher.check(true).await, Some(Reload::Applied));
}

#[tokio::test]
async fn a_doubt_that_nobody_could_know_is_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "12").unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let (named, failing) = (file.clone(), Arc::clone(&fails));
    let read = move || {
        Snapshot::take(std::slice::from_ref(&named), || {
            match failing.swap(false, Ordering::Relaxed) {
                true => Err("the disk fails".to_owned()),
                false => read_number(&named),
            }
        })
    };
    let doubt = |active: &u8, new: &u8| (new < active).then(|| format!("only {new}"));
    let watcher = FileWatcher::open(read).await.unwrap();
    let mut watcher = watcher.hold_back_if(doubt);
    fs::write(&file, "11").unwrap();
    fails.store(true, Ordering::Relaxed);
    assert!(matches!(watcher.check(true).await, Some(Reload::Failed(_))));
    assert!(matches!(
        watcher.check(true).await,
        Some(Reload::HeldBack(_))
    ));
    assert_eq!(watcher.check(true).await, Some(Reload::Applied));
}

#[tokio::test]
async fn a_file_that_was_shortened_where_it_is_has_more_time_to_settle() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "123").unwrap();
    let mut watcher = number(&file).await;
    tokio::time::pause();
    fs::write(&file, "12").unwrap();
    for _ in 0..5 {
        assert_eq!(watcher.check(false).await, None);
        tokio::time::advance(TRUNCATED / 6).await;
    }
    fs::write(&file, "4").unwrap();
    assert_eq!(watcher.check(false).await, None);
    tokio::time::advance(TRUNCATED / 6).await;
    assert_eq!(watcher.check(false).await, None, "it was still written");
    tokio::time::advance(TRUNCATED).await;
    // Otherwise the time would run on during the read.
    tokio::time::resume();
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
    assert_eq!(*watcher.last_good().load(), 4);

    // What is moved into its place is there at once, and what was cut off is there again.
    fs::write(&file, "56").unwrap();
    assert_eq!(watcher.check(false).await, None);
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
    fs::write(dir.path().join("new"), "7").unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    assert_eq!(watcher.check(false).await, None);
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
}

#[tokio::test]
async fn the_same_content_keeps_the_time_since_when_it_is_active() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "1").unwrap();
    let mut watcher = number(&file).await.keep_if(u8::eq);
    let since = watcher.last_good().with_status().1.since;

    fs::write(&file, "one").unwrap();
    assert!(matches!(watcher.check(true).await, Some(Reload::Failed(_))));
    fs::write(&file, "1\n").unwrap();
    assert_eq!(watcher.check(true).await, Some(Reload::Unchanged));
    let (_, status) = watcher.last_good().with_status();
    assert_eq!((status.since, status.failure.is_none()), (since, true));
}

#[tokio::test]
async fn a_file_that_another_one_names_is_watched_too() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("index"), "one").unwrap();
    fs::write(at("one"), "1").unwrap();
    fs::write(at("two"), "2").unwrap();
    let (index, dir) = (at("index"), dir.path().to_owned());
    let read = move || {
        let mut files = Fingerprint::from_iter([&*index]);
        let named = dir.join(fs::read_to_string(&index).unwrap());
        files.add(&named);
        Snapshot {
            files,
            content: read_number(&named),
            retry: false,
        }
    };
    let mut watcher = FileWatcher::open(read).await.unwrap();
    fs::write(at("index"), "two").unwrap();
    assert_eq!(watcher.check(true).await, Some(Reload::Applied));

    fs::write(at("two"), "22").unwrap();
    assert_eq!(watcher.check(false).await, None);
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
    assert_eq!(*watcher.last_good().load(), 22);
    fs::write(at("one"), "11").unwrap();
    assert_eq!(watcher.check(false).await, None);
    assert_eq!(watcher.check(false).await, None, "nothing names it now");
}

#[tokio::test]
async fn a_file_that_is_broken_from_the_start_is_an_error() {
    let read = || Snapshot::<(), _>::take(&[], || Err("broken"));
    assert!(FileWatcher::open(read).await.is_err());
}

#[tokio::test]
async fn a_read_that_blocks_is_reported_once_and_its_result_taken_when_it_ends() {
    static BLOCKED: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "1").unwrap();
    let reports = Arc::new(AtomicUsize::new(0));
    let (named, counted) = (file.clone(), Arc::clone(&reports));
    let read = move || {
        while BLOCKED.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        Snapshot::take(std::slice::from_ref(&named), || read_number(&named))
    };
    let watcher = FileWatcher::open(read).await.unwrap();
    let mut watcher = watcher.on_overdue(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let last_good = watcher.last_good();

    BLOCKED.store(true, Ordering::Relaxed);
    fs::write(&file, "2").unwrap();
    assert_eq!(watcher.check(false).await, None, "it may not have settled");
    tokio::time::pause();
    for _ in 0..3 {
        assert_eq!(watcher.check(false).await, None);
        let error = last_good.error().unwrap();
        assert!(error.contains("regular files"), "{error}");
        assert_eq!(reports.load(Ordering::Relaxed), 1);
    }
    tokio::time::resume();

    BLOCKED.store(false, Ordering::Relaxed);
    let reload = async {
        loop {
            if let Some(reload) = watcher.check(false).await {
                return reload;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reload = timeout(OVERDUE, reload).await.unwrap();
    assert_eq!(reload, Reload::Applied);
    assert_eq!((*last_good.load(), last_good.error()), (2, None));
}

/// Opening the pipe blocks until it has a writer.
fn replace_with_pipe(file: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let pipe = file.with_extension("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::rename(pipe, file).unwrap();
}

#[tokio::test]
async fn a_file_that_replaces_one_whose_read_blocks_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("number");
    fs::write(&file, "1").unwrap();
    let mut watcher = number(&file).await;
    let last_good = watcher.last_good();
    replace_with_pipe(&file);
    tokio::time::pause();
    assert_eq!(watcher.check(true).await, None);
    tokio::time::resume();
    assert!(last_good.error().is_some());

    fs::remove_file(&file).unwrap();
    fs::write(&file, "3").unwrap();
    assert_eq!(watcher.check(false).await, None, "it may not have settled");
    assert_eq!(watcher.check(false).await, Some(Reload::Applied));
    assert_eq!((*last_good.load(), last_good.error()), (3, None));
}
