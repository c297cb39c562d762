//! TLS that fails: both sides name TLS, the reason, and the setting to look at.

use importguard_tests::{
    MountedSecret, OpenIm, SOON, Service, Settings, TestAuthority, TestCertificate, eventually,
};

/// The files of a decider and of its gateway.
struct Link {
    decider: MountedSecret,
    gateway: MountedSecret,
}

impl Link {
    /// A decider's certificate, the CA of its clients, and the gateway's certificate and CA.
    fn new(
        decider: &TestCertificate,
        client_ca: &TestAuthority,
        gateway: &TestCertificate,
        ca: &TestAuthority,
    ) -> Self {
        Self {
            decider: MountedSecret::new(&decider.files_trusting(&client_ca.pem())),
            gateway: MountedSecret::new(&gateway.files_trusting(&ca.pem())),
        }
    }

    /// A decider that requires client certificates.
    async fn decider(&self) -> Service {
        Service::decider(Settings::new().requiring_clients(&self.decider)).await
    }

    /// The settings of a gateway without a client certificate.
    fn without_certificate(&self, decider: &Service) -> Settings {
        Settings::new()
            .set("IMPORTGUARD_DECIDER_URL", decider.grpc_tls_url())
            .set(
                "IMPORTGUARD_DECIDER_CA_FILE",
                self.gateway.setting("ca.crt"),
            )
    }

    fn with_certificate(&self, decider: &Service) -> Settings {
        Settings::new().to_deciders(&self.gateway, decider.grpc_tls_url())
    }
}

/// Starts a gateway that cannot reach `decider`, and returns when both have said why.
async fn both_say(
    settings: Settings,
    gateway_says: &[&str],
    decider: &Service,
    decider_says: &str,
) {
    let gateway = Service::gateway(settings).await;
    let mut parts = vec!["unavailable: ", "TLS handshake failed: "];
    parts.extend(gateway_says);
    gateway.wait_for_log(&parts).await;
    decider
        .wait_for_log(&["TLS handshake with 127.0.0.1", decider_says])
        .await;
    eventually("the readiness page says it, too", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("TLS handshake failed"), "{ready}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_without_a_certificate_is_told_to_set_one() {
    let authority = TestAuthority::new();
    let certificate = authority.certificate();
    let link = Link::new(&certificate, &authority, &certificate, &authority);
    let decider = link.decider().await;
    both_say(
        link.without_certificate(&decider),
        &["it requires a client certificate (certificate required); set IMPORTGUARD_DECIDER_CLIENT_CERT_FILE"],
        &decider,
        "the client has no certificate, which IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE requires",
    )
    .await;
}

#[tokio::test]
async fn a_client_certificate_of_another_ca_is_rejected_with_the_settings_of_both_sides() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let link = Link::new(
        &authority.certificate(),
        &authority,
        &other.certificate(),
        &authority,
    );
    let decider = link.decider().await;
    both_say(
        link.with_certificate(&decider),
        &[
            "it rejects our client certificate (",
            "check IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
            "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
        ],
        &decider,
        "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
    )
    .await;
}

#[tokio::test]
async fn an_expired_client_certificate_is_named_as_such_on_both_sides() {
    let authority = TestAuthority::new();
    let link = Link::new(
        &authority.certificate(),
        &authority,
        &authority.expired_certificate(),
        &authority,
    );
    let decider = link.decider().await;
    both_say(
        link.with_certificate(&decider),
        &["it rejects our client certificate (certificate expired)"],
        &decider,
        "the client's certificate has expired (on 2021-03-04T00:00:00Z)",
    )
    .await;
}

#[tokio::test]
async fn a_deciders_certificate_of_another_ca_is_named_with_the_setting_of_the_ca() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let certificate = authority.certificate();
    // CAs of other names, as rcgen's have the same.
    let link = Link::new(&TestCertificate::new(), &authority, &certificate, &other);
    let decider = link.decider().await;
    both_say(
        link.with_certificate(&decider),
        &["its certificate ", "IMPORTGUARD_DECIDER_"],
        &decider,
        "the client rejects our certificate (",
    )
    .await;
}

#[tokio::test]
async fn an_expired_decider_certificate_is_named_with_its_date() {
    let authority = TestAuthority::new();
    let certificate = authority.certificate();
    let expired = authority.expired_certificate();
    let link = Link::new(&expired, &authority, &certificate, &authority);
    let decider = link.decider().await;
    both_say(
        link.with_certificate(&decider),
        &["its certificate has expired (on 2021-03-04T00:00:00Z); check its IMPORTGUARD_DECIDER_TLS_CERT_FILE"],
        &decider,
        "the client rejects our certificate (certificate expired); check IMPORTGUARD_DECIDER_TLS_CERT_FILE",
    )
    .await;
}

#[tokio::test]
async fn a_decider_without_tls_is_told_apart() {
    let authority = TestAuthority::new();
    let certificate = authority.certificate();
    let link = Link::new(&certificate, &authority, &certificate, &authority);
    let decider = Service::decider(Settings::new()).await;
    let gateway = Service::gateway(link.with_certificate(&decider)).await;
    gateway
        .wait_for_log(&["TLS handshake failed: it does not use TLS; set its IMPORTGUARD_DECIDER_TLS_CERT_FILE, or use http:// in IMPORTGUARD_DECIDER_URL"])
        .await;
}

#[tokio::test]
async fn a_decider_with_tls_that_is_called_without_it_is_suspected() {
    let authority = TestAuthority::new();
    let certificate = authority.certificate();
    let link = Link::new(&certificate, &authority, &certificate, &authority);
    let decider = link.decider().await;
    let plain = Settings::new().set("IMPORTGUARD_DECIDER_URL", decider.grpc_url());
    let gateway = Service::gateway(plain).await;
    gateway
        .wait_for_log(&[
            "unavailable: ",
            "it may require TLS: then use https:// in IMPORTGUARD_DECIDER_URL",
        ])
        .await;
    decider
        .wait_for_log(&[
            "the client does not use TLS, which IMPORTGUARD_DECIDER_TLS_CERT_FILE requires",
        ])
        .await;
}

#[tokio::test]
async fn a_caller_that_does_not_trust_the_gateways_certificate_shows_in_its_log() {
    let (certificate, other) = (TestCertificate::new(), TestCertificate::new());
    let secret = MountedSecret::new(&certificate.files());
    let gateway = Service::gateway(Settings::new().tls(&secret)).await;
    assert!(other.connect(gateway.http_address()).await.is_err());
    gateway
        .wait_for_log(&[
            "TLS handshake with 127.0.0.1",
            "the client rejects our certificate (",
            "check IMPORTGUARD_TLS_CERT_FILE",
        ])
        .await;
}

#[tokio::test]
async fn traces_that_are_lost_for_a_certificate_name_it_and_the_setting() {
    let other = TestAuthority::new().pem();
    let secret = MountedSecret::new(&TestCertificate::new().files_trusting(&other));
    // Any listener with TLS does: the export ends before it matters that this is no collector.
    let endpoint = Service::gateway(Settings::new().tls(&secret)).await;
    let traced = Settings::new()
        .set(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("https://{}", endpoint.http_address()),
        )
        .set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .set("OTEL_EXPORTER_OTLP_CERTIFICATE", secret.setting("ca.crt"))
        .set("OTEL_BSP_SCHEDULE_DELAY", "100");
    let gateway = Service::gateway(traced).await;
    OpenIm::server(gateway.url())
        .import("op", "user123", &["user456"])
        .await;
    gateway
        .wait_for_log(&[
            "spans are lost: ",
            "invalid peer certificate",
            "OTEL_EXPORTER_OTLP_ENDPOINT with TLS, and OTEL_EXPORTER_OTLP_CERTIFICATE",
        ])
        .await;
}
