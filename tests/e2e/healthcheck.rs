//! `healthcheck`, as a container's health check runs it: with the environment of the process that it checks.

use std::process::Output;

use importguard_tests::{Binary, HeldCall, OpenIm, SOON, Service, Settings, eventually, free_port};

const ADMIN: &str = "IMPORTGUARD_ADMIN_LISTEN";

/// An admin listener as an image has it.
fn everywhere() -> Settings {
    Settings::new().set(ADMIN, format!("0.0.0.0:{}", free_port()))
}

/// Runs `binary healthcheck …` with `settings`, and with time for a busy machine.
fn ask(binary: Binary, settings: &Settings, arguments: &[&str]) -> Output {
    ask_within("30s", binary, settings, arguments)
}

fn ask_within(timeout: &str, binary: Binary, settings: &Settings, arguments: &[&str]) -> Output {
    let mut command = settings.command(binary.path());
    command.args(["healthcheck", "--timeout", timeout]);
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn says_yes(output: &Output, path: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("{path} returned 200 OK ")), "{said}");
}

#[track_caller]
fn says_no(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(why), "{said}");
}

#[tokio::test]
async fn each_binary_reports_ready_and_alive() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        let settings = everywhere();
        let _service = match binary {
            Binary::Gateway => Service::gateway(settings.clone()).await,
            Binary::Decider => Service::decider(settings.clone()).await,
            _ => Service::all_in_one(settings.clone()).await,
        };
        says_yes(&ask(binary, &settings, &[]), "/readyz");
        says_yes(&ask(binary, &settings, &["--live"]), "/livez");
        // As an argument it means the same.
        let admin = settings.get(ADMIN).unwrap();
        let told = ask(binary, &Settings::new(), &["--admin-listen", admin]);
        says_yes(&told, "/readyz");
    }
}

#[tokio::test]
async fn a_process_that_does_not_run_is_unhealthy() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        let settings = everywhere();
        let told = ask(binary, &settings, &[]);
        says_no(&told, "cannot connect: Connection refused");
        says_no(&told, ADMIN);
    }
}

#[tokio::test]
async fn a_process_that_shuts_down_is_alive_and_not_ready() {
    let settings = everywhere()
        .set("IMPORTGUARD_SHUTDOWN_GRACE", "0s")
        .set("IMPORTGUARD_SHUTDOWN_TIMEOUT", "30s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "20s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "20s");
    let gateway = Service::gateway(settings.clone()).await;
    let body = OpenIm::server(gateway.url()).body("user123", &["user456"]);
    let held = HeldCall::begin(gateway.http_address(), "op-held", &body).await;
    gateway.sigterm();
    eventually("it is not ready", SOON, async || {
        let told = ask(Binary::Gateway, &settings, &[]);
        let said = String::from_utf8_lossy(&told.stderr);
        match said.contains("/readyz returned 503 ") {
            true => {
                says_no(&told, "/readyz returned 503 ");
                Ok(())
            }
            false => Err(format!("{told:?}")),
        }
    })
    .await;
    says_yes(&ask(Binary::Gateway, &settings, &["--live"]), "/livez");
    held.finish().await;
}

#[tokio::test]
async fn a_process_that_does_not_respond_in_time_is_unhealthy() {
    let settings = everywhere();
    let decider = Service::decider(settings.clone()).await;
    decider.freeze().await;
    let told = ask_within("200ms", Binary::Decider, &settings, &[]);
    says_no(&told, "did not respond within 200ms");
    decider.thaw();
}
