//! `importguard doctor` says what each version of OpenIM makes of a gateway's answers, and what is misconfigured.

use std::process::Output;

use importguard_tests::{
    Backend, Binary, Line, MountedSecret, Service, Settings, TestAuthority, free_port,
    wait_for_count,
};
use serde_json::Value;

use crate::asserts::has;

/// What `importguard doctor` prints, and its exit code.
#[derive(Debug)]
struct Report {
    text: String,
    code: i32,
}

async fn doctor(arguments: &[&str]) -> Report {
    doctor_with(arguments, &[]).await
}

async fn doctor_with(arguments: &[&str], variables: &[(&str, &str)]) -> Report {
    let mut command = tokio::process::Command::new(Binary::AllInOne.path());
    command.env_clear().arg("doctor").args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .envs(variables.iter().copied())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    // No test's URL has a password that may be printed.
    assert!(!text.contains("s3cret"), "{text}");
    Report {
        text,
        code: status.code().unwrap(),
    }
}

impl Report {
    #[track_caller]
    fn is_good(&self) {
        assert_eq!(self.code, 0, "{}", self.text);
        assert!(self.text.contains("\nOK: "), "{}", self.text);
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        has(&self.text, parts);
    }

    #[track_caller]
    fn blames(&self, parts: &[&str]) {
        assert_eq!(self.code, 1, "{}", self.text);
        self.says(&["\nProblem: "]);
        self.says(parts);
    }
}

#[tokio::test]
async fn a_gateway_that_decides_is_good_and_3_6_is_noted() {
    let line = Line::start().await;
    let report = doctor(&[&line.gateway.url()]).await;
    report.is_good();
    report.says(&[
        "answers over HTTP/1.1",
        "OpenIM 3.5, 3.6, 3.7+  imports all requested friends",
        "imports only importguard_doctor_friend1",
        "imports nobody; its API returns 5900",
        "Note: OpenIM 3.6 ignores refusals",
        "\nOK: OpenIM 3.5 and 3.7+ do as importguard answers. NOT OK: OpenIM 3.6",
    ]);
    // Only the three imports that were asked for are decided, and each names its origin.
    let events = wait_for_count(&line.nats, 3).await;
    for event in events {
        let data = &event.json["data"];
        assert_eq!(data["ownerUserID"], "importguard_doctor", "{data}");
        let operation = data["operationID"].as_str().unwrap();
        assert!(operation.starts_with("importguard-doctor-"), "{operation}");
        assert_ne!(event.json["type"], "importguard.imported.v1");
    }
    let rejected = "importguard_rejections_total{code=\"5900\"}";
    assert_eq!(line.gateway.metric(rejected).await.unwrap(), 2.0);
}

#[tokio::test]
async fn version_3_6_needs_unreadable_refusals() {
    let line = Line::start().await;
    let readable = doctor(&[&line.gateway.url(), "--openim", "3.6.0"]).await;
    readable.blames(&[
        "OpenIM 3.6 ignores refusals",
        "IMPORTGUARD_REFUSALS=unreadable",
    ]);
    let newer = doctor(&[&line.gateway.url(), "--openim", "3.8.3-patch.16"]).await;
    newer.is_good();
    assert!(!newer.text.contains("3.6"), "{}", newer.text);

    let line = Line::with(Settings::new().set("IMPORTGUARD_REFUSALS", "unreadable")).await;
    let unreadable = doctor(&[&line.gateway.url(), "--openim", "3.6.0"]).await;
    unreadable.is_good();
    unreadable.says(&["cannot read the answer", "failedContinue: false"]);
    let all = doctor(&[&line.gateway.url()]).await;
    all.is_good();
    all.says(&["\nOK: every version of OpenIM does as importguard answers."]);
}

#[tokio::test]
async fn the_report_is_one_json_object_on_request() {
    let line = Line::start().await;
    let report = doctor(&[&line.gateway.url(), "--json"]).await;
    assert_eq!(report.code, 0, "{}", report.text);
    let report: Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(report["ok"], true);
    let names = report["checks"].as_array().unwrap().iter();
    let names: Vec<_> = names
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["import", "shorten", "refusal", "report", "documented"]
    );
    let refusal = &report["checks"][2];
    assert_eq!(refusal["answer"]["errCode"], 5900);
    let agrees = refusal["openim"].as_array().unwrap().iter();
    let agrees: Vec<_> = agrees.map(|one| one["agrees"].as_bool().unwrap()).collect();
    assert_eq!(agrees, [true, false, true]);
}

#[tokio::test]
async fn wrong_credentials_and_paths_are_named() {
    let secret = MountedSecret::new(&[("passwords", "openim:s3cret@x")]);
    let settings = Settings::new()
        .set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("passwords"))
        .set("IMPORTGUARD_BASE_PATH", "/hook");
    let line = Line::with(settings).await;
    let host = line.gateway.http_address();
    let right = doctor(&[&format!("http://openim:s3cret%40x@{host}/hook")]).await;
    right.is_good();
    let variable = format!("http://openim:s3cret%40x@{host}/hook/");
    doctor_with(&[], &[("IMENV_WEBHOOKS_URL", &variable)])
        .await
        .is_good();
    let none = doctor(&[&format!("http://{host}/hook")]).await;
    none.blames(&["the URL has none", "IMPORTGUARD_BASIC_AUTH_FILE"]);
    let wrong = doctor(&[&format!("http://openim:s3cret@{host}/hook")]).await;
    wrong.blames(&["the user or the password in the URL is wrong"]);
    let path = doctor(&[&format!("http://openim:s3cret%40x@{host}/s3cret")]).await;
    path.blames(&["IMPORTGUARD_BASE_PATH"]);
}

#[tokio::test]
async fn what_cannot_be_reached_is_explained() {
    let closed = format!("http://127.0.0.1:{}", free_port());
    let report = doctor(&[&closed]).await;
    report.blames(&[
        "cannot connect",
        "IMPORTGUARD_HTTP_LISTEN",
        "Note: without an answer",
    ]);
    let unknown = doctor(&["http://no-such-host.invalid:8080"]).await;
    unknown.blames(&["no-such-host.invalid is not a known host"]);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let report = doctor(&[&silent, "--timeout", "1"]).await;
    report.blames(&["within 1 s", "IMPORTGUARD_REQUEST_BUDGET"]);
}

#[tokio::test]
async fn another_program_that_answers_json_is_said_to_let_every_import_through() {
    // It answers with the request's own body.
    let other = Backend::start().await;
    let report = doctor(&[&format!("http://{}", other.address())]).await;
    report.blames(&[
        "the answer is not importguard's",
        "every import gets through",
    ]);
}

#[tokio::test]
async fn the_admin_listener_is_recognised() {
    let gateway = Service::gateway(Settings::new()).await;
    let report = doctor(&[&format!("http://{}", gateway.admin_address())]).await;
    report.blames(&[
        "this is importguard's admin listener",
        "IMPORTGUARD_HTTP_LISTEN",
    ]);
    assert!(!report.text.contains("another program"), "{}", report.text);
}

#[tokio::test]
async fn a_gateway_without_deciders_is_a_problem() {
    let gateway = Service::gateway(Settings::new()).await;
    let report = doctor(&[&gateway.url()]).await;
    report.blames(&["could not decide", "5910"]);
}

#[tokio::test]
async fn tls_is_checked_as_openim_does() {
    let authority = TestAuthority::new();
    let certificate = authority.certificate();
    let secret = MountedSecret::new(&certificate.files_trusting(&authority.pem()));
    let line = Line::with(Settings::new().tls(&secret)).await;
    let port = line.gateway.http_address().rsplit_once(':').unwrap().1;
    let ca = secret.setting("ca.crt");
    let trusting = [("SSL_CERT_FILE", ca.as_str())];
    let url = format!("https://127.0.0.1:{port}");
    let trusted = doctor_with(&[&url], &trusting).await;
    trusted.is_good();
    trusted.says(&["answers over HTTP/2"]);
    for (file, cause) in [
        ("/no/such.pem".to_owned(), "No such file"),
        (secret.setting("tls.key"), "none in PEM format"),
    ] {
        let unreadable = doctor_with(&[&url], &[("SSL_CERT_FILE", &file)]).await;
        unreadable.blames(&["SSL_CERT_FILE names ", &file, cause]);
    }
    let untrusted = doctor(&[&url]).await;
    untrusted.blames(&["OpenIM would not trust this certificate", "SSL_CERT_FILE"]);
    // All test authorities have the same name.
    let renewed = MountedSecret::new(&[("ca.crt", &TestAuthority::new().pem())]);
    let outdated = doctor_with(&[&url], &[("SSL_CERT_FILE", &renewed.setting("ca.crt"))]).await;
    outdated.blames(&["OpenIM would not trust this certificate", "SSL_CERT_FILE"]);
    let named = doctor_with(&[&format!("https://localhost:{port}")], &trusting).await;
    named.blames(&["another name"]);
    let plain = doctor(&[&format!("http://127.0.0.1:{port}")]).await;
    plain.blames(&["accepts only TLS", "https://"]);

    let plain = Line::start().await;
    let port = plain.gateway.http_address().rsplit_once(':').unwrap().1;
    let report = doctor_with(&[&format!("https://127.0.0.1:{port}")], &trusting).await;
    report.blames(&["does not speak TLS"]);
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_a_usage_error_that_does_not_repeat_it() {
    for url in ["gateway:8080", "http://u:s3cret@", "ftp://u:s3cret@gateway"] {
        let report = doctor(&[url]).await;
        assert_eq!(report.code, 2, "{}", report.text);
        report.says(&["http://importguard-gateway:8080"]);
    }
    let none = doctor(&[]).await;
    assert_eq!(none.code, 2, "{}", none.text);
    none.says(&[
        "no URL: give ",
        "as the argument, or set IMENV_WEBHOOKS_URL",
    ]);
    let old = doctor(&["http://127.0.0.1:1", "--openim", "3.3.0"]).await;
    assert_eq!(old.code, 2);
    old.says(&["only since 3.4.2"]);
}
