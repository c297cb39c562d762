//! `importguard list import`.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use importguard_tests::{Binary, NatsServer, Process, SOON, Settings, eventually};
use serde_json::Value;
use tempfile::TempDir;

use super::{list, listed, nats};

/// A file to import.
struct File(TempDir);

impl File {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("ids.txt"), content).unwrap();
        Self(directory)
    }

    fn path(&self) -> String {
        self.0.path().join("ids.txt").display().to_string()
    }
}

/// The IDs on the list `bad`, sorted.
async fn ids(nats: &NatsServer) -> Vec<String> {
    let shown = listed(nats, &["show", "bad", "--json"]).await;
    let entries = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut ids: Vec<_> = entries
        .map(|entry| entry["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_file_is_read_as_the_file_of_a_policys_list_is() {
    let nats = nats().await;
    let file = File::new(
        "\u{feff}trail1 \r\n  # comment\n\tu9\n\n{0f8fad5b-d9cb-469f}\n  {\"id\":\" u 1\"}\nteam#7",
    );
    let imported = listed(&nats, &["import", "bad", &file.path()]).await;
    assert_eq!(imported, "bad: added 5, 0 unchanged\n");
    let expected = [" u 1", "team#7", "trail1", "u9", "{0f8fad5b-d9cb-469f}"];
    assert_eq!(ids(&nats).await, expected);

    for (content, expected) in [
        ("ok\nu1 # left in May\n", ":2: a comment after an ID"),
        ("\"u1\"\n", ":1: the quotes would become"),
        ("u1,spam\n", ":1: a comma and what follows it"),
        ("[\"u1\"]\n", ":1: this is JSON, not an ID"),
        ("u1\ru2\r", ":1: column 3: a carriage return"),
        (
            "ok\nu\u{200b}1\n",
            ":2: this line contains an invisible character",
        ),
    ] {
        let refused = list(&nats, &["import", "bad", &File::new(content).path()]).await;
        assert_eq!(refused.code, Some(1), "{content:?}: {}", refused.stdout);
        for part in ["nothing was imported", expected] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    let two = File::new(b"u\xff\nok\n\"u1\"\n");
    let refused = list(&nats, &["import", "bad", &two.path()]).await;
    for part in [
        "2 invalid lines",
        ":1: column 2: this line is not UTF-8: save the file as UTF-8",
        ":3: the quotes would become",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    // What is no line of such a file is left out of one.
    let odd = File::new("{\"id\":\"a # b\"}\n{\"id\":\"\\\"a\\\"\"}\n");
    listed(&nats, &["import", "bad", &odd.path()]).await;
    let exported = list(&nats, &["export", "bad", "--ids"]).await;
    assert_eq!(exported.stdout.lines().count(), 4, "{}", exported.stdout);
    assert!(
        exported.stderr.contains("left out 3 IDs"),
        "{}",
        exported.stderr
    );
}

#[tokio::test]
async fn what_has_expired_is_told_and_not_written() {
    let nats = nats().await;
    listed(&nats, &["add", "bad", "past2"]).await;
    let file = File::new(
        "{\"id\":\"past1\",\"until\":\"2020-01-01T00:00:00Z\"}\nu1\n\
         {\"id\":\"past2\",\"until\":\"2020-01-01T00:00:00Z\"}\n",
    );
    let import = ["import", "bad", &file.path()];
    let imported = listed(&nats, &import).await;
    assert_eq!(imported, "bad: added 1, 0 unchanged, 2 expired\n");
    assert_eq!(ids(&nats).await, ["past2", "u1"]);
    let history = listed(&nats, &["history", "bad", "past1"]).await;
    assert_eq!(history, "");
    let json = listed(&nats, &[&import[..], &["--json"]].concat()).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({ "added": 0, "unchanged": 1, "expired": 2, "superseded": 0 });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn an_interrupted_import_with_a_duration_says_how_to_repeat_it() {
    let nats = nats().await;
    listed(&nats, &["create"]).await;
    let ids: String = (0..10_000)
        .map(|number| format!("user{number}\n"))
        .collect();
    let file = File::new(ids);
    let mut command = Settings::new().nats(&nats).command(Binary::AllInOne.path());
    command.env("IMPORTGUARD_LIST_BY", "alice");
    command.args(["list", "import", "bad", &file.path(), "--for", "7d"]);
    let logs = TempDir::new().unwrap();
    let mut process = Process::spawn("importguard", command, logs.path());
    eventually("the import has begun", SOON, async || {
        let shown = list(&nats, &["show"]).await;
        match shown.stdout.is_empty() {
            true => Err(shown.stderr),
            false => Ok(()),
        }
    })
    .await;
    process.sigint();
    assert_eq!(process.exit(SOON).await.code(), Some(1));
    let told = process.stderr();
    let (_, repeat) = told.split_once("with --until ").unwrap();
    let until = repeat.split_whitespace().next().unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let added = told.split_once("interrupted after ").unwrap().1;
    let added: usize = added.split_once(' ').unwrap().0.parse().unwrap();
    let import = ["import", "bad", &file.path(), "--until", until];
    let again = listed(&nats, &import).await;
    let expected = format!("bad: added {}, {added} unchanged\n", 10_000 - added);
    assert_eq!(again, expected);
}

#[tokio::test]
async fn ctrl_c_ends_an_import_that_still_reads_its_file() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut command = Settings::new().command(Binary::AllInOne.path());
    command.env("IMPORTGUARD_LIST_BY", "alice");
    command.args(["list", "import", "bad"]).arg(&pipe);
    let mut process = Process::spawn("importguard", command, directory.path());
    // Waits for the reader.
    let mut options = tokio::fs::OpenOptions::new();
    let _writer = options.write(true).open(&pipe).await.unwrap();
    process.sigint();
    let status = process.exit(SOON).await;
    assert_eq!(status.signal(), Some(2), "{status}: {}", process.output());
}
