//! Deciders report on their credentials for NATS as every process does on its files.

use importguard_tests::{SOON, Service, Settings, TestAuthority, eventually};

use super::{POLICY, policy, readyz};
use crate::nats_access::Files;

const VALID: &str = "importguard_file_valid{setting=\"NATS_PASSWORD_FILE\"}";

/// Waits until metrics and readiness have this state of the password's file.
async fn is_reported(decider: &Service, valid: f64, state: &str) {
    eventually("the file is reported", SOON, async || {
        let found = decider.metric(VALID).await?;
        anyhow::ensure!(found == valid, "{VALID} {found}");
        let ready = readyz(decider).await;
        anyhow::ensure!(
            ready["files"]["NATS_PASSWORD_FILE"]["state"] == state,
            "{ready}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_password_file_is_reported_and_sighup_reads_it_at_once() {
    let (files, policy) = (Files::new(), policy());
    let config = "authorization { user: guard, password: s3cret }";
    let (_nats, address) = files.serve(config).await;
    let settings = Settings::new()
        .policy(&policy)
        .set("NATS_URL", format!("nats://{address}"))
        .set("NATS_USER", "guard")
        .set("NATS_PASSWORD_FILE", files.write("secret", "s3cret\n"))
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s");
    let decider = Service::decider(settings).await;
    is_reported(&decider, 1.0, "good").await;
    files.write("secret", "two\nlines\n");
    is_reported(&decider, 0.0, "lastGood").await;
    decider
        .wait_for_log(&["cannot reload NATS_PASSWORD_FILE"])
        .await;
    files.write("secret", "s3cret\n");
    is_reported(&decider, 1.0, "good").await;
    decider.sighup();
    decider
        .wait_for_log(&["SIGHUP received", "NATS_PASSWORD_FILE is unchanged"])
        .await;
}

#[tokio::test]
async fn those_for_the_first_live_list_of_a_reload_are_reported_as_well() {
    let (files, policy) = (Files::new(), policy());
    let without = POLICY.replace("live: bad", "values: [bad]");
    policy.write("policy.yaml", &without);
    let settings = Settings::new()
        .policy(&policy)
        .set("NATS_USER", "guard")
        .set("NATS_PASSWORD_FILE", files.write("secret", "s3cret\n"));
    let decider = Service::decider(settings).await;
    assert!(decider.metric(VALID).await.is_err());
    policy.write("policy.yaml", POLICY);
    is_reported(&decider, 1.0, "good").await;
}

#[tokio::test]
async fn a_file_is_reported_although_another_one_was_invalid_at_first() {
    let (files, policy) = (Files::new(), policy());
    let settings = Settings::new()
        .policy(&policy)
        .set("NATS_USER", "guard")
        .set("NATS_PASSWORD_FILE", files.write("secret", "s3cret\n"))
        .set("NATS_CA", files.write("ca.pem", "none yet"))
        .set("IMPORTGUARD_LISTS_MAX_AGE", "100ms");
    let decider = Service::decider(settings).await;
    decider.wait_for_log(&["ca.pem"]).await;
    files.write("ca.pem", &TestAuthority::new().pem());
    let valid = "importguard_file_valid{setting=\"NATS_CA\"}";
    decider.wait_for_metric(valid, |valid| valid == 1.0).await;
    is_reported(&decider, 1.0, "good").await;
    files.write("secret", "two\nlines\n");
    is_reported(&decider, 0.0, "lastGood").await;
}
