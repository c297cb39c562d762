//! The line at each process's start that shows what protects it.

use importguard_tests::{
    Binary, MountedSecret, NatsServer, SOON, Service, Settings, TestAuthority, eventually,
};
use serde_json::Value;

/// The line, in the format for machines.
async fn line(service: &Service) -> Value {
    let log = service.wait_for_log(&["\"security of "]).await;
    let line = log.lines().find(|line| line.contains("\"security of "));
    serde_json::from_str(line.unwrap()).unwrap()
}

fn json() -> Settings {
    Settings::new().set("IMPORTGUARD_LOG_FORMAT", "json")
}

#[tokio::test]
async fn without_settings_a_gateway_says_that_nothing_protects_it_and_that_it_refuses() {
    let gateway = Service::gateway(Settings::new()).await;
    let expected = "security of this gateway: TLS for callbacks: off; authentication of callers: none; connection to deciders: without TLS; \
        connection to NATS: TLS only if the server requires it, no login; pseudonyms in events: off; fallbacks that allow: none";
    gateway.wait_for_log(&[expected]).await;
    let decider = Service::decider(Settings::new()).await;
    let expected = "security of this decider: TLS for gateways: off; client certificates of gateways: not required";
    decider.wait_for_log(&[expected]).await;
}

#[tokio::test]
async fn what_is_set_is_in_the_line_and_in_its_fields() {
    let authority = TestAuthority::new();
    let (certificate, pem) = (authority.certificate(), authority.pem());
    let secret = MountedSecret::new(&[
        ("tls.crt", certificate.cert_pem()),
        ("tls.key", certificate.key_pem()),
        ("ca.crt", &pem),
        ("passwords", "openim:a-password\n"),
        ("tokens", "a-token-that-is-long-enough\n"),
        ("pseudonyms", "a key of more than thirty-two bytes\n"),
    ]);
    let decider = Service::decider(json().requiring_clients(&secret)).await;
    let told = line(&decider).await;
    assert_eq!(told["decider_tls"], "on");
    assert_eq!(told["client_certificates"], "required (mutual TLS)");

    let gateway = json()
        .tls(&secret)
        .to_deciders(&secret, decider.grpc_tls_url())
        .set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("passwords"))
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"))
        .set(
            "IMPORTGUARD_PSEUDONYM_KEY_FILE",
            secret.setting("pseudonyms"),
        )
        .set("NATS_URL", "tls://127.0.0.1:1")
        .set("NATS_CA", secret.setting("ca.crt"))
        .set("NATS_TOKEN", "s3cret")
        .set("IMPORTGUARD_ON_DECIDER_UNAVAILABLE", "allow")
        .set("IMPORTGUARD_ON_UNRECORDABLE", "allow");
    let told = line(&Service::gateway(gateway).await).await;
    for (field, expected) in [
        ("callback_tls", "on"),
        ("authentication", "passwords and bearer tokens"),
        ("decider_link", "mutual TLS"),
        ("nats", "TLS, token"),
        ("pseudonyms", "on"),
        (
            "allowing_fallbacks",
            "IMPORTGUARD_ON_DECIDER_UNAVAILABLE, IMPORTGUARD_ON_UNRECORDABLE",
        ),
    ] {
        assert_eq!(told[field], expected, "{told}");
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn one_process_says_it_too_and_names_settings_without_effect() {
    let settings = Settings::new()
        .set("IMPORTGUARD_ON_OVERLOAD", "allow")
        .set("IMPORTGUARD_DECIDER_URL", "http://decider:50051");
    let service = Service::all_in_one(settings).await;
    service
        .wait_for_log(&[
            "security of this process: TLS for callbacks: off;",
            "fallbacks that allow: IMPORTGUARD_ON_OVERLOAD",
            "IMPORTGUARD_DECIDER_URL has no effect",
        ])
        .await;
}

/// The seconds since midnight of a line's time.
fn time(log: &str, part: &str) -> f64 {
    let line = log.lines().find(|line| line.contains(part));
    let clock = &line.unwrap_or_else(|| panic!("no {part} in {log}"))[11..26];
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().unwrap());
    let mut next = || parts.next().unwrap();
    (next() * 60.0 + next()) * 60.0 + next()
}

#[tokio::test]
async fn nats_that_starts_a_moment_later_is_no_warning() {
    let mut nats = NatsServer::not_started();
    let settings = Settings::new().set("NATS_URL", nats.url());
    let service = Service::spawn(Binary::Gateway, settings);
    service.wait_for_log(&["connecting to NATS at"]).await;
    nats.restart().await;
    eventually("events go to NATS", SOON, async || {
        let ready = service.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("\"state\":\"streaming\""), "{ready}");
        Ok(())
    })
    .await;
    let log = service
        .wait_for_log(&["INFO streaming events to NATS"])
        .await;
    let took = time(&log, "streaming events to NATS") - time(&log, "connecting to NATS at");
    let warnings = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("NATS"));
    // On a machine that is so busy that the server takes three seconds, there is one.
    assert!(
        warnings.count() == 0 || !(0.0..2.5).contains(&took),
        "{log}"
    );
}

#[tokio::test]
async fn nats_that_stays_away_is_one_warning_with_the_cause_after_some_seconds() {
    let service = Service::gateway(Settings::new()).await;
    let cause = "is unreachable (connection refused): buffering events in the spool until NATS accepts them";
    let log = service.wait_for_log(&[cause]).await;
    let waited = time(&log, cause) - time(&log, "connecting to NATS at");
    // Over midnight it is negative.
    assert!(!(0.0..=2.5).contains(&waited), "{log}");
    let warnings = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("NATS"));
    assert_eq!(warnings.count(), 1, "{log}");
}
