//! SIGHUP, sent by a closing terminal or by an operator to reload files, terminates no process.

use importguard_core::Dialect::Server;
use importguard_tests::{
    Binary, MountedSecret, OpenIm, PolicyDir, Process, SOON, Service, Settings, eventually,
};

use crate::asserts;

/// How many times each is started: what is looked for is a moment of its start.
const STARTS: usize = 3;

#[tokio::test]
async fn sighup_terminates_no_process_and_each_logs_it() {
    for mut service in [
        Service::gateway(Settings::new()).await,
        Service::decider(Settings::new()).await,
        Service::all_in_one(Settings::new()).await,
    ] {
        service.sighup();
        service.wait_for_log(&["SIGHUP"]).await;
        assert_eq!(service.ended(), None);
        service.admin("/livez").await.unwrap();
    }
}

#[tokio::test]
async fn a_gateway_reads_its_keys_again() {
    let mut secret = MountedSecret::new(&[("tokens", "t0ken-old")]);
    let settings = Settings::new().set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let mut gateway = Service::gateway(settings).await;
    secret.replace(&[("tokens", "t0ken-new")]);
    gateway.sighup();
    let server = OpenIm::server(gateway.url());
    eventually("the new token opens", SOON, async || {
        let call = server.before_import("op", "a", &["b"]);
        let call = call.header("Authorization", "Bearer t0ken-new");
        let answer = server.try_send(call).await?;
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        anyhow::Ok(())
    })
    .await;
    assert_eq!(gateway.ended(), None);
}

#[tokio::test]
async fn everything_in_one_process_reads_its_policy_and_its_keys_again() {
    let policy = PolicyDir::usual();
    let mut secret = MountedSecret::new(&[("tokens", "t0ken-old")]);
    let settings = Settings::new()
        .policy(&policy)
        .set("IMPORTGUARD_RELOAD_INTERVAL", "1h")
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let service = Service::all_in_one(settings).await;
    secret.replace(&[("tokens", "t0ken-new")]);
    policy.write("lists/blocked.txt", "mallory\n");
    service.sighup();
    service.wait_for_log(&["SIGHUP"]).await;
    let server = OpenIm::server(service.url());
    eventually("both are in force", SOON, async || {
        let call = server.before_import("op", "mallory", &["b"]);
        let call = call.header("Authorization", "Bearer t0ken-new");
        let answer = server.try_send(call).await?;
        anyhow::ensure!(answer.text().contains("5001"), "{}", answer.text());
        anyhow::Ok(())
    })
    .await;
    let call = server.before_import("op", "blocked_owner", &["b"]);
    let call = call.header("Authorization", "Bearer t0ken-new");
    asserts::allows(Server, &server.send(call).await);
}

/// Before the process has told the kernel what it wants to hear, the kernel ends it, and nothing in it can help that. That is over long
/// before it listens.
#[tokio::test]
async fn it_ends_none_that_is_still_starting() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        for _ in 0..STARTS {
            let mut service = Service::spawn(binary, Settings::new());
            eventually("its first line is there", SOON, async || {
                let begun = !service.output().is_empty() || hears(&service);
                if begun { Ok(()) } else { Err("it is silent") }
            })
            .await;
            eventually("it lives", SOON, async || {
                assert_eq!(service.ended(), None, "{binary:?}: {}", service.output());
                service.sighup();
                service.admin("/livez").await
            })
            .await;
            assert_eq!(service.ended(), None, "{binary:?}: {}", service.output());
        }
    }
}

/// Whether the kernel has been told to leave SIGHUP to the process.
fn hears(process: &Process) -> bool {
    const HUP: u64 = 1;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.unwrap_or_default();
    ["SigCgt:", "SigIgn:"].iter().any(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & HUP != 0)
    })
}
