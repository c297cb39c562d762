//! Reading a spool as the operator's commands do.

use super::*;

fn read(reader: &SpoolReader) -> Vec<String> {
    let mut read = Vec::new();
    reader
        .for_each(|payload| {
            read.push(String::from_utf8(payload.to_vec()).unwrap());
            Ok::<_, SpoolReadError>(())
        })
        .unwrap();
    read
}

#[test]
fn a_spool_of_another_schema_is_refused() {
    for version in [2, 9] {
        let dir = TempDir::new().unwrap();
        let file = Connection::open(dir.path().join("spool.db")).unwrap();
        file.pragma_update(None, "user_version", version).unwrap();
        let error = SpoolReader::open(dir.path()).unwrap_err().to_string();
        let found = format!("has schema {version}, but");
        assert!(error.contains(&found), "{error}");
    }
}

#[test]
fn a_spool_without_tables_has_no_events() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spool.db"), "").unwrap();
    let reader = SpoolReader::open(dir.path()).unwrap();
    assert_eq!(reader.summary().unwrap().events, 0);
    assert_eq!(read(&reader), Vec::<String>::new());
}

#[test]
fn what_is_read_is_not_held_on_to_while_it_is_handled() {
    let dir = TempDir::new().unwrap();
    let (lock, mut store, files) = location(dir.path()).open().unwrap();
    let events: Vec<_> = (0..600).map(|n| event(&n.to_string())).collect();
    store.append_all(events.iter()).unwrap();
    let reader = SpoolReader::open(dir.path()).unwrap();
    let mut count = 0;
    reader
        .for_each(|_| {
            count += 1;
            // Returns an error if a reader holds the log.
            store.empty_log().unwrap();
            Ok::<_, SpoolReadError>(())
        })
        .unwrap();
    assert_eq!(count, 600);
    drop((store, files, lock));
}

#[test]
fn a_look_at_who_has_a_spool_does_not_keep_a_gateway_from_taking_it() {
    let dir = TempDir::new().unwrap();
    let lock = dir.path().join("spool.lock");
    fs::write(&lock, "").unwrap();
    let look = fs::File::open(&lock).unwrap();
    look.lock_shared().unwrap();
    let looks = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        drop(look);
    });
    location(dir.path()).open().unwrap();
    looks.join().unwrap();
}

#[test]
fn what_cannot_be_copied_is_said_without_advice_that_fails() {
    let (dir, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(location(dir.path()).open().unwrap());
    let reader = SpoolReader::open(dir.path()).unwrap();
    reader.copy_to(to.path()).unwrap();
    let again = reader.copy_to(to.path()).unwrap_err().to_string();
    assert!(
        again.ends_with("has a spool already; name another directory"),
        "{again}"
    );
    let path = dir.path().join("spool.corrupt-20261128T101500Z.db");
    fs::write(&path, vec![7; 20_000]).unwrap();
    let lost = SpoolReader::open(&path).unwrap_err().to_string();
    assert!(
        lost.ends_with("file is not a database; no event can be read from it"),
        "{lost}"
    );
    fs::create_dir(to.path().join("below")).unwrap();
    fs::create_dir(to.path().join("below/spool.db")).unwrap();
    let directory = SpoolReader::open(&to.path().join("below")).unwrap_err();
    let directory = directory.to_string();
    assert!(directory.contains("is a directory"), "{directory}");
}
