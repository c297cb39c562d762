//! `importguard list …`.

use serde_json::Value;
use tempfile::TempDir;

use super::{list, listed, nats};

#[tokio::test]
async fn the_commands_show_import_export_and_tell_what_happened() {
    let nats = nats().await;
    let none = list(&nats, &["show", "bad"]).await;
    assert_eq!(none.code, Some(1));
    assert!(
        none.stderr.contains("there is no bucket"),
        "{}",
        none.stderr
    );
    listed(&nats, &["create"]).await;
    let file = TempDir::new().unwrap();
    let path = file.path().join("ids.txt");
    std::fs::write(
        &path,
        "# known\nu1\nu 2\n{\"id\":\"u3\",\"reason\":\"spam\"}\n",
    )
    .unwrap();
    let path = path.display().to_string();
    let import = ["import", "bad", &path, "--because", "known"];
    assert_eq!(listed(&nats, &import).await, "bad: added 3, 0 unchanged\n");
    assert_eq!(listed(&nats, &import).await, "bad: added 0, 3 unchanged\n");
    let shown = listed(&nats, &["show", "bad"]).await;
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("u 2") && line.ends_with("known")),
        "{shown}"
    );
    assert_eq!(listed(&nats, &["show"]).await, "bad  3\n");
    let exported = listed(&nats, &["export", "bad"]).await;
    std::fs::write(&path, &exported).unwrap();
    assert_eq!(
        listed(&nats, &["import", "worse", &path]).await,
        "worse: added 3, 0 unchanged\n"
    );
    let one = listed(&nats, &["show", "worse", "u3", "--json"]).await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(
        (one["by"].as_str(), one["reason"].as_str()),
        (Some("alice"), Some("spam"))
    );
    listed(
        &nats,
        &["remove", "bad", "u1", "--by", "bob", "--because", "appeal"],
    )
    .await;
    let history = listed(&nats, &["history", "bad", "u1"]).await;
    let lines: Vec<_> = history.lines().collect();
    assert_eq!(lines.len(), 2, "{history}");
    assert!(
        lines[0].contains("added") && lines[0].ends_with("by alice: known"),
        "{history}"
    );
    assert!(
        lines[1].contains("removed") && lines[1].ends_with("by bob: appeal"),
        "{history}"
    );

    std::fs::write(&path, "ok\n{\"id\":7}\n").unwrap();
    let refused = list(&nats, &["import", "bad", &path]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("nothing was imported") && refused.stderr.contains(":2:"),
        "{}",
        refused.stderr
    );
    for usage in [
        &["add", "bad"][..],
        &["add", "no.name", "u1"],
        &["add", "bad", "u1", "--until", "2001-01-01"],
        &["add", "bad", "u1", "--for", "1d", "--until", "2099-01-01"],
    ] {
        assert_eq!(list(&nats, usage).await.code, Some(2), "{usage:?}");
    }
}
