//! open-im-server's own webhook client (the Go module, 3.8.3) concludes from importguard's answers what importguard means.

use importguard_tests::{Foreign, Line, free_port};
use serde_json::{Value, json};

/// What OpenIM concludes when it asks `url` for permission to import `friends` for `owner`.
fn concludes(client: &Foreign, url: &str, owner: &str, friends: &[&str]) -> Value {
    let mut command = client.program();
    command
        .args([url, "5", "1646445464564", owner])
        .args(friends);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Its logger may print before.
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn openims_own_client_imports_what_is_allowed_and_nothing_that_is_refused() {
    let Some(client) = Foreign::go("tests/go") else {
        return;
    };
    let line = Line::start().await;
    let url = line.gateway.url();
    assert_eq!(
        concludes(&client, &url, "user123", &["user456", "user789"]),
        json!({"imports": ["user456", "user789"]})
    );
    assert_eq!(
        concludes(&client, &url, "user123", &["user456", "bot_1"]),
        json!({"imports": ["user456"]})
    );
    let refused = concludes(&client, &url, "blocked_owner", &["user456"]);
    assert_eq!(refused["code"], 5001, "{refused}");
    assert_eq!(refused["imports"], Value::Null);
    let elsewhere = concludes(
        &client,
        &format!("{url}/elsewhere"),
        "user123",
        &["user456"],
    );
    assert_eq!(elsewhere["code"], 5901, "{elsewhere}");
    let closed = format!("http://127.0.0.1:{}", free_port());
    let unreachable = concludes(&client, &closed, "user123", &["user456"]);
    assert_eq!(unreachable["code"], 90004, "{unreachable}");
    assert_eq!(unreachable["imports"], Value::Null);
}
