//! TLS on the public listener, with certificates rotated at run time.

use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use importguard_core::Dialect;
use importguard_tests::{
    Binary, MountedSecret, OpenIm, OtlpReceiver, RawConnection, Response, SOON, Service, Settings,
    TestAuthority, TestCertificate, callback, eventually, load,
};
use serde_json::{Value, json};

use crate::asserts;

#[tokio::test]
async fn callbacks_are_answered_over_tls_and_what_is_none_gets_nothing_to_misread() {
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    let stream = certificate.connect(gateway.http_address()).await.unwrap();
    let mut connection = RawConnection::over(stream);
    for _ in 0..2 {
        connection.send(callback("op")).await.unwrap();
        asserts::refuses(Dialect::Server, &connection.answer().await, 200, 5910);
    }
    connection.send("nonsense\r\n\r\n").await.unwrap();
    asserts::is_no_answer(&connection.read_to_end().await);
}

#[tokio::test]
async fn a_request_without_tls_gets_a_callback_answer_that_says_so() {
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    let mut connection = RawConnection::open(gateway.http_address()).await;
    connection.send(callback("op")).await.unwrap();
    let answer = connection.answer().await;
    asserts::refuses(Dialect::Server, &answer, 400, 5900);
    assert!(answer.text().contains("https://"), "{}", answer.text());
    connection.finish().await;
    connection.wait_for_close().await;
}

#[tokio::test]
async fn http2_is_spoken_too_and_its_headers_have_the_same_bound() {
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    let receiver = OtlpReceiver::start().await;
    let gateway = Service::gateway(Settings::new().tls(&secret).traces_to(&receiver)).await;
    let stream = certificate.connect(gateway.http_address()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (filler, status, code) in [(100, 200, 5910), (20_000, 431, 5903), (100, 200, 5910)] {
        let request = Request::post("https://127.0.0.1/callbackBeforeImportFriendsCommand")
            .header("operationID", "op")
            .header("x-filler", "x".repeat(filler))
            .body(Full::new(Bytes::from(
                OpenIm::server("").body("user123", &["user456"]),
            )))
            .unwrap();
        let (head, body) = client.send_request(request).await.unwrap().into_parts();
        let answer = Response {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        };
        asserts::refuses(Dialect::Server, &answer, status, code);
    }
    let span = receiver.callback("op").await;
    assert_eq!(span.attributes["url.scheme"], "https");
}

#[tokio::test]
async fn a_certificate_is_rotated_at_run_time_and_an_invalid_one_is_not_used() {
    let [first, second, third] = [(); 3].map(|()| TestCertificate::new());
    let mut secret = MountedSecret::new(&first.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    let address = gateway.http_address();
    let mut old = RawConnection::over(first.connect(address).await.unwrap());

    secret.replace(&second.files());
    eventually("the new certificate is shown", SOON, async || {
        second.connect(address).await.map(drop)
    })
    .await;
    // Who was connected stays so.
    old.send(callback("op")).await.unwrap();
    asserts::refuses(Dialect::Server, &old.answer().await, 200, 5910);

    let no_pair = [("tls.crt", third.cert_pem()), ("tls.key", second.key_pem())];
    for broken in [no_pair, [("tls.crt", "nonsense"), ("tls.key", "nonsense")]] {
        let failed = "importguard_file_reloads_total{outcome=\"failed\",setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
        let failures = async || {
            let metrics = gateway.admin("/metrics").await.unwrap();
            let line = metrics.lines().find(|line| line.starts_with(failed));
            line.unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        let before = failures().await;
        secret.replace(&broken);
        eventually("the trouble is told", SOON, async || {
            if failures().await > before {
                Ok(())
            } else {
                Err("it isn't")
            }
        })
        .await;
        eventually("readiness tells of it too", SOON, async || {
            let ready = gateway.admin("/readyz").await?;
            anyhow::ensure!(ready.contains("lastGood"), "{ready}");
            Ok(())
        })
        .await;
        second.connect(address).await.unwrap();
    }

    secret.replace(&third.files());
    eventually("the mended certificate is shown", SOON, async || {
        third.connect(address).await.map(drop)
    })
    .await;
    eventually("readiness tells of no trouble", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(!ready.contains("lastGood"), "{ready}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn subject_and_expiry_of_a_certificate_are_reported_at_load_and_reload() {
    let authority = TestAuthority::new();
    let mut secret = MountedSecret::new(&authority.certificate().files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    let name =
        "importguard_certificate_expiry_timestamp_seconds{setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
    let log = gateway
        .wait_for_log(&["loaded IMPORTGUARD_TLS_CERT_FILE (CN=rcgen self signed cert, expires 4096-01-01T00:00:00Z)"])
        .await;
    assert!(log.contains("expires=\"4096-01-01T00:00:00Z\""), "{log}");
    let expires = gateway.metric(name).await.unwrap();
    assert_eq!(expires, 67_090_118_400_f64);

    secret.replace(&authority.expired_certificate().files());
    gateway
        .wait_for_log(&["IMPORTGUARD_TLS_CERT_FILE has a new certificate that is not valid now (CN=rcgen self signed cert, expired 2021-03-04T00:00:00Z)"])
        .await;
    gateway.sighup();
    let log = gateway
        .wait_for_log(&["reloaded IMPORTGUARD_TLS_CERT_FILE (CN=rcgen self signed cert, expired 2021-03-04T00:00:00Z)"])
        .await;
    let line = log
        .lines()
        .find(|line| line.contains("reloaded IMPORTGUARD"));
    assert!(line.unwrap().contains("WARN"), "{log}");
    let expires = gateway.metric(name).await.unwrap();
    assert_eq!(expires, 1_614_816_000_f64);
    let ready: Value = serde_json::from_str(&gateway.admin("/readyz").await.unwrap()).unwrap();
    assert_eq!(
        ready["files"]["IMPORTGUARD_TLS_CERT_FILE"]["certificates"],
        json!([{
            "setting": "IMPORTGUARD_TLS_CERT_FILE",
            "subject": "CN=rcgen self signed cert",
            "expires": "2021-03-04T00:00:00Z",
        }])
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_now_does_not_replace_one_that_is() {
    let (authority, valid) = (TestAuthority::new(), TestCertificate::new());
    let mut secret = MountedSecret::new(&valid.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    for (invalid, reason) in [
        (
            authority.expired_certificate(),
            "expired 2021-03-04T00:00:00Z",
        ),
        (
            authority.early_certificate(),
            "not valid before 2090-01-01T00:00:00Z",
        ),
    ] {
        secret.replace(&invalid.files());
        gateway
            .wait_for_log(&["cannot reload IMPORTGUARD_TLS_CERT_FILE", reason, "SIGHUP"])
            .await;
        valid.connect(gateway.http_address()).await.unwrap();
        let name = "importguard_file_valid{setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
        assert_eq!(gateway.metric(name).await.unwrap(), 0.0);
        let ready = gateway.admin("/readyz").await.unwrap();
        assert!(ready.contains("lastGood"), "{ready}");
        assert!(ready.contains(reason), "{ready}");
    }

    gateway.sighup();
    let log = gateway
        .wait_for_log(&["reloaded IMPORTGUARD_TLS_CERT_FILE (CN=rcgen self signed cert, not valid before 2090-01-01T00:00:00Z)"])
        .await;
    let line = log
        .lines()
        .find(|line| line.contains("reloaded IMPORTGUARD"));
    assert!(line.unwrap().contains("WARN"), "{log}");

    let applied =
        "importguard_file_reloads_total{outcome=\"applied\",setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
    assert_eq!(gateway.metric(applied).await.unwrap(), 1.0);
    gateway.sighup();
    gateway
        .wait_for_log(&["IMPORTGUARD_TLS_CERT_FILE is unchanged"])
        .await;
    assert_eq!(gateway.metric(applied).await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_at_the_start_is_used_with_a_warning() {
    let authority = TestAuthority::new();
    for certificate in [
        authority.expired_certificate(),
        authority.early_certificate(),
    ] {
        let secret = MountedSecret::new(&certificate.files());
        let gateway = Service::gateway(Settings::new().tls(&secret)).await;
        let log = gateway
            .wait_for_log(&["loaded IMPORTGUARD_TLS_CERT_FILE"])
            .await;
        let line = log.lines().find(|line| line.contains("loaded IMPORTGUARD"));
        assert!(line.unwrap().contains("WARN"), "{log}");
    }
}

#[tokio::test]
async fn a_flood_of_failed_handshakes_is_summarised_in_the_log() {
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    let began = Instant::now();
    load(300, 32, async |_| {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        // A handshake record of TLS 1.0 without a handshake.
        connection.send("\x16\x03\x01\0\x05hello").await.unwrap();
        connection.wait_for_close().await;
    })
    .await;
    let log = gateway
        .wait_for_log(&["more TLS handshakes failed in the last second"])
        .await;
    let lines = log.matches("TLS handshake with").count();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(lines <= 20 * seconds, "{lines} lines in {seconds} s");
}

#[tokio::test]
async fn a_certificate_that_is_broken_from_the_start_or_has_no_key_is_an_error() {
    let certificate = TestCertificate::new();
    let other = TestCertificate::new();
    let secret = MountedSecret::new(&[
        ("tls.crt", certificate.cert_pem()),
        ("tls.key", other.key_pem()),
    ]);
    let both = Settings::new().tls(&secret);
    let one = Settings::new().set("IMPORTGUARD_TLS_CERT_FILE", secret.setting("tls.crt"));
    for settings in [both, one] {
        let mut gateway = Service::spawn(Binary::Gateway, settings);
        assert!(!gateway.exit(SOON).await.success());
        let said = gateway.stderr();
        assert!(
            said.contains("IMPORTGUARD_TLS_KEY_FILE") || said.contains("tls-key-file"),
            "{said}"
        );
    }
}
