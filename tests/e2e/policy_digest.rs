//! `importguard policy digest`: whether a decider uses the files at hand.

use std::{
    path::Path,
    process::{Command, Output},
};

use importguard_tests::{Binary, Line, PolicyDir, SOON, Service, Settings, eventually};
use serde_json::Value;

fn digest(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(Binary::AllInOne.path())
        .current_dir(dir)
        .env_remove("IMPORTGUARD_POLICY")
        .args(["policy", "digest", "policy.yaml"])
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim_end()
}

/// The digest of a policy with its lists, as a gateway or decider reports it.
async fn reported(service: &Service, at: &str) -> Vec<String> {
    let metrics = service.admin("/metrics").await.unwrap();
    let begins = format!("importguard_policy_info{{at=\"{at}\",content_digest=\"");
    let series = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(&begins));
    series
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn policy_digest_prints_what_gateway_and_decider_report() {
    let policy = PolicyDir::usual();
    let line = Line::with(Settings::new().policy(&policy)).await;
    line.server().import("op", "user123", &["user456"]).await;
    let printed = digest(policy.dir(), &[]);
    assert!(printed.status.success(), "{printed:?}");
    let printed = stdout(&printed).to_owned();
    assert!(printed.starts_with("sha256:"), "{printed}");
    let expected = std::slice::from_ref(&printed);
    assert_eq!(reported(&line.decider, "decider").await, expected);
    assert_eq!(reported(&line.gateway, "gateway").await, expected);
    let readyz = line.decider.admin("/readyz").await.unwrap();
    let readyz: Value = serde_json::from_str(&readyz).unwrap();
    assert_eq!(readyz["policy"]["contentDigest"], printed);

    policy.write("lists/blocked.txt", "blocked_owner\nblocked_1\nblocked_3\n");
    let changed = stdout(&digest(policy.dir(), &[])).to_owned();
    assert_ne!(changed, printed, "a list is part of it");
    eventually("the decider reports it", SOON, async || {
        match reported(&line.decider, "decider").await {
            found if found == [changed.clone()] => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

#[test]
fn policy_digest_prints_the_parts_as_json() {
    let policy = PolicyDir::usual();
    let parts = digest(policy.dir(), &["--json"]);
    let parts: Value = serde_json::from_slice(&parts.stdout).unwrap();
    assert_eq!(parts["contentDigest"], stdout(&digest(policy.dir(), &[])));
    assert_eq!(parts["policy"]["name"], "e2e");
    assert_eq!(parts["lists"][0]["name"], "blocked");
    assert_eq!(parts["lists"][0]["size"], 3);
    let sha256sum = |file: &str| {
        let output = Command::new("sha256sum")
            .arg(policy.dir().join(file))
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        format!("sha256:{}", text.split(' ').next().unwrap())
    };
    assert_eq!(parts["policy"]["digest"], sha256sum("policy.yaml"));
    // As docs/operations.md says, a shell can compute it.
    policy.write(
        "manifest",
        &format!(
            "policy {}\nlist blocked {}\n",
            sha256sum("policy.yaml"),
            parts["lists"][0]["digest"].as_str().unwrap()
        ),
    );
    assert_eq!(parts["contentDigest"], sha256sum("manifest"));
}

#[test]
fn an_invalid_policy_has_no_digest() {
    let policy = PolicyDir::usual();
    policy.write("policy.yaml", "apiVersion: importguard/v1\nname: e2e\n");
    let refused = digest(policy.dir(), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(stdout(&refused), "");
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("a policy needs \"rules\""), "{error}");
}
