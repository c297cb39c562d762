//! Callbacks that tell of something done: OpenIM 3.5 would call the deed failed, so nothing but a wrong password is refused.

use http::Method;
use importguard_proto::event::Dialect::Server;
use importguard_tests::{Call, Client, OpenIm, Service, Settings};

use crate::asserts;

#[tokio::test]
async fn a_report_is_answered_as_if_all_were_well_and_what_is_wrong_is_counted() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_BODY_BYTES", "1000")
        .set("IMPORTGUARD_MAX_FRIENDS", "3");
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let report = || server.after_import("op", "a", &["b"]);
    let other = gateway.url() + "/callbackAfterAddFriendCommand";
    for (call, code) in [
        (report().body("{"), 5900),
        (report().body("x".repeat(2_000)), 5903),
        (server.after_import("op", "a", &["b", "c", "d", "e"]), 5903),
        (report().without_header("operationID"), 5904),
        (report().header("Content-Type", "text/plain"), 5900),
        (report().method(Method::PUT), 5900),
        (report().body(server.body("a", &["b"])), 5900),
        (report().url(other), 5901),
    ] {
        let counted = format!("importguard_rejections_total{{code=\"{code}\"}}");
        let before = gateway.metric(&counted).await.unwrap_or(0.0);
        asserts::allows(Server, &server.send(call).await);
        assert_eq!(
            gateway.metric(&counted).await.unwrap(),
            before + 1.0,
            "{code}"
        );
        gateway.tells(&[&format!("code={code}")]).await;
    }
}

#[tokio::test]
async fn but_a_report_with_a_wrong_password_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    std::fs::write(&passwords, "openim:secret\n").unwrap();
    let settings = Settings::new().set(
        "IMPORTGUARD_BASIC_AUTH_FILE",
        passwords.display().to_string(),
    );
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let answer = server.send(server.after_import("op", "a", &["b"])).await;
    asserts::refuses(Server, &answer, 401, 5902);
    let other = Call::new(
        Method::POST,
        gateway.url() + "/callbackAfterAddFriendCommand",
    );
    asserts::refuses(Server, &Client::default().send(other).await, 401, 5902);
}
