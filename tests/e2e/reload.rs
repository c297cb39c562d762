//! Last good wins: policies that change under a running decider.

use std::{fs, os::unix::fs::symlink, path::Path};

use importguard_core::Dialect;
use importguard_tests::{
    Line, OpenIm, PolicyDir, SOON, Service, Settings, eventually, load, wait_for_count,
};
use tempfile::TempDir;

use crate::asserts;

/// A policy that refuses the owner `mallory` with `code`.
fn refusing(code: u16) -> String {
    format!(
        "apiVersion: importguard/v1
name: reload
lists: {{ blocked: {{ file: blocked.txt }} }}
rules:
  - id: blocked-owner
    refuseOwner: {{ in: blocked }}
    refusal: {{ code: {code}, message: \"no\" }}
"
    )
}

fn policy() -> PolicyDir {
    PolicyDir::new(&refusing(5001), &[("blocked.txt", "mallory\n")])
}

async fn code_for(caller: &OpenIm, owner: &str) -> i32 {
    asserts::code(&caller.import("op", owner, &["friend"]).await)
}

async fn wait_for_code(caller: &OpenIm, owner: &str, code: i32) {
    eventually("the new policy decides", SOON, async || {
        match code_for(caller, owner).await {
            found if found == code => Ok(()),
            found => Err(format!("{found} instead of {code}")),
        }
    })
    .await;
}

/// What reads a policy puts it in force, and tells of it in one place after the other.
async fn wait_for_metrics(service: &Service, lines: &[&str]) {
    eventually("the metrics tell of it", SOON, async || {
        let metrics = service.admin("/metrics").await?;
        for line in lines {
            anyhow::ensure!(metrics.contains(line), "no {line} in {metrics}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_list_that_is_written_to_is_used_without_a_restart() {
    let policy = policy();
    let service = Service::all_in_one(Settings::new().policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code_for(&caller, "trudy").await, 0);
    policy.write("blocked.txt", "mallory\ntrudy\n");
    wait_for_code(&caller, "trudy", 5001).await;
}

#[tokio::test]
async fn a_reload_says_what_changed_with_both_digests() {
    let policy = policy();
    let service = Service::decider(Settings::new().policy(&policy)).await;
    policy.write("blocked.txt", "mallory\ntrudy\n");
    let log = service
        .wait_for_log(&["reloaded policy reload: list blocked 1 → 2 IDs"])
        .await;
    let line = log
        .lines()
        .find(|line| line.contains("reloaded policy"))
        .unwrap();
    let digest = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\"sha256:")).unwrap();
        rest[..64].to_owned()
    };
    let (before, after) = (digest("previous_content_digest"), digest("content_digest"));
    assert_ne!(before, after);
    // What was active at the start is what was replaced.
    let started = log
        .lines()
        .find(|line| line.contains(" is active "))
        .unwrap();
    assert!(started.contains(&before), "{log}");

    policy.replace("policy.yaml", &refusing(5017));
    service
        .wait_for_log(&["reloaded policy reload: rule changed: blocked-owner"])
        .await;
}

#[tokio::test]
async fn a_policy_that_is_moved_into_place_is_used() {
    let policy = policy();
    let service = Service::all_in_one(Settings::new().policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code_for(&caller, "mallory").await, 5001);
    policy.replace("policy.yaml", &refusing(5017));
    wait_for_code(&caller, "mallory", 5017).await;
}

/// Kubernetes mounts a ConfigMap as links through `..data`, which it points at another directory when the map changes.
#[tokio::test]
async fn a_config_map_that_changes_is_used() {
    let mount = TempDir::new().unwrap();
    let revision = |name: &str, code| {
        let dir = mount.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("policy.yaml"), refusing(code)).unwrap();
        fs::write(dir.join("blocked.txt"), "mallory\n").unwrap();
    };
    let point_at = |name: &str| {
        symlink(name, mount.path().join("..data_tmp")).unwrap();
        fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    };
    revision("..one", 5001);
    point_at("..one");
    for file in ["policy.yaml", "blocked.txt"] {
        symlink(Path::new("..data").join(file), mount.path().join(file)).unwrap();
    }
    let path = mount.path().join("policy.yaml").display().to_string();
    let service = Service::all_in_one(Settings::new().set("IMPORTGUARD_POLICY", path)).await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code_for(&caller, "mallory").await, 5001);

    revision("..two", 5017);
    point_at("..two");
    fs::remove_dir_all(mount.path().join("..one")).unwrap();
    wait_for_code(&caller, "mallory", 5017).await;
}

#[tokio::test]
async fn an_invalid_policy_is_reported_and_changes_nothing_else() {
    let policy = policy();
    let service = Service::all_in_one(Settings::new().policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    policy.replace("policy.yaml", &refusing(5900));
    let told = eventually("readiness tells of the mistake", SOON, async || {
        let told = service.admin("/readyz").await?;
        anyhow::ensure!(told.contains("\"error\""), "{told}");
        anyhow::Ok(told)
    })
    .await;
    assert!(told.contains("policy.yaml:7:22"), "{told}");
    wait_for_metrics(
        &service,
        &[
            "importguard_policy_in_error 1\n",
            "importguard_policy_reloads_total{result=\"failed\"} 1\n",
        ],
    )
    .await;
    service
        .wait_for_log(&["the last valid policy stays active"])
        .await;
    assert_eq!(code_for(&caller, "mallory").await, 5001);

    policy.replace("policy.yaml", &refusing(5017));
    wait_for_code(&caller, "mallory", 5017).await;
    eventually("readiness tells of no mistake", SOON, async || {
        let told = service.admin("/readyz").await?;
        anyhow::ensure!(!told.contains("\"error\""), "{told}");
        anyhow::Ok(())
    })
    .await;
    wait_for_metrics(&service, &["importguard_policy_in_error 0\n"]).await;
}

#[tokio::test]
async fn a_list_that_goes_away_leaves_the_last_good_one() {
    let policy = policy();
    let service = Service::all_in_one(Settings::new().policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    fs::remove_file(policy.dir().join("blocked.txt")).unwrap();
    eventually("readiness tells of the missing list", SOON, async || {
        let told = service.admin("/readyz").await?;
        anyhow::ensure!(told.contains("blocked.txt"), "{told}");
        anyhow::Ok(())
    })
    .await;
    assert_eq!(code_for(&caller, "mallory").await, 5001);
    policy.write("blocked.txt", "trudy\n");
    wait_for_code(&caller, "trudy", 5001).await;
    assert_eq!(code_for(&caller, "mallory").await, 0);
}

#[tokio::test]
async fn sighup_has_the_policy_read_at_once() {
    let policy = policy();
    let seldom = Settings::new().set("IMPORTGUARD_RELOAD_INTERVAL", "1h");
    let service = Service::all_in_one(seldom.policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code_for(&caller, "mallory").await, 5001);
    policy.replace("policy.yaml", &refusing(5017));
    service.sighup();
    wait_for_code(&caller, "mallory", 5017).await;
}

#[tokio::test]
async fn no_request_fails_while_policies_change() {
    let policy = policy();
    let often = Settings::new().set("IMPORTGUARD_RELOAD_INTERVAL", "20ms");
    let line = Line::with(often.policy(&policy)).await;
    let caller = line.server();
    let (codes, reloads) = tokio::join!(
        load(1_500, 8, async |number| {
            let operation = format!("op{number}");
            let answer = caller.import(&operation, "mallory", &["friend"]).await;
            asserts::code(&answer)
        }),
        async {
            for round in 0..20 {
                let code = 5100 + round;
                policy.replace("policy.yaml", &refusing(code));
                wait_for_code(&caller, "mallory", i32::from(code)).await;
            }
            20
        }
    );
    assert_eq!(reloads, 20);
    for code in codes {
        assert!(code == 5001 || (5100..5120).contains(&code), "{code}");
    }
    asserts::allows(
        Dialect::Server,
        &caller.import("last", "alice", &["friend"]).await,
    );
    wait_for_count(&line.nats, 1_500).await;
}
