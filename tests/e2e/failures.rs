//! The table of failures in docs/operations.md: each row names the tests that cause the failure.

use std::{collections::HashSet, fs, path::Path};

use importguard_tests::workspace;

/// Where the tests live that cause failures.
const ROOMS: [&str; 3] = ["tests/e2e", "tests/load", "gateway/tests/recorder"];

fn tests_there_are() -> HashSet<String> {
    let rooms = ROOMS.map(|room| workspace().join(room));
    let files = rooms.iter().filter_map(|room| fs::read_dir(room).ok());
    let sources = files.flatten().map(|file| file.unwrap().path());
    sources
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .flat_map(|path| tests_in(&path))
        .collect()
}

fn tests_in(path: &Path) -> Vec<String> {
    let source = fs::read_to_string(path).unwrap();
    let (mut names, mut marked) = (Vec::new(), false);
    for line in source.lines() {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut marked)
        {
            names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// The last column of each row under "Failures".
fn rows() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let (_, below) = page.split_once("\n## Failures\n").unwrap();
    let failures = below.split("\n## ").next().unwrap();
    let rows = failures.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|row| !row.contains("| shown by |"));
    rows.map(|row| {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(columns.len(), 5, "{row}");
        let names = columns[4].split('`').filter(|name| !name.trim().is_empty());
        (columns[0].to_owned(), names.map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn every_failure_in_the_handbook_is_caused_by_a_test() {
    let (tests, rows) = (tests_there_are(), rows());
    assert!(rows.len() > 30, "only {} rows were found", rows.len());
    for (failure, names) in rows {
        assert!(!names.is_empty(), "nothing shows: {failure}");
        for name in names {
            assert!(tests.contains(&name), "{failure}: there is no test {name}");
        }
    }
}
