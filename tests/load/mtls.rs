//! Mutual TLS between gateway and deciders, with certificates rotated at run time.

use std::{collections::HashSet, fs};

use anyhow::ensure;
use importguard_core::Dialect;
use importguard_tests::{
    Binary, MountedSecret, OpenIm, SOON, Service, Settings, TestAuthority, Traffic, eventually,
};
use serde_json::Value;

use crate::{
    asserts,
    chaos::{alone, of_every_verdict, quiet},
    deciders::all_decided,
};

const DECIDERS: &str = "IMPORTGUARD_DECIDER_TLS_CERT_FILE";
const GATEWAYS: &str = "IMPORTGUARD_DECIDER_CA_FILE";

/// A gateway and a decider that believe one authority, with what each of them reads.
struct Pair {
    gateway: Service,
    gateways: MountedSecret,
    decider: Service,
    deciders: MountedSecret,
}

impl Pair {
    async fn start(authority: &TestAuthority, settings: Settings) -> Self {
        let ca = authority.pem();
        let secret = || MountedSecret::new(&authority.certificate().files_trusting(&ca));
        let (at_gateway, at_decider) = (secret(), secret());
        let decider = Service::decider(settings.clone().requiring_clients(&at_decider)).await;
        let settings = settings.to_deciders(&at_gateway, decider.grpc_tls_url());
        let gateway = Service::gateway(settings).await;
        let pair = Self {
            gateway,
            gateways: at_gateway,
            decider,
            deciders: at_decider,
        };
        until_allowed(&pair.gateway).await;
        pair
    }
}

async fn until_allowed(gateway: &Service) {
    let server = OpenIm::server(gateway.url());
    eventually("an import is allowed", SOON, async || {
        match asserts::code(&server.import("op", "a", &["b"]).await) {
            0 => Ok(()),
            code => Err(code),
        }
    })
    .await;
}

/// How often `service` has read the files of `setting` again with this outcome.
async fn reloads(service: &Service, setting: &str, outcome: &str) -> f64 {
    let labels = format!("{{outcome=\"{outcome}\",setting=\"{setting}\"}}");
    let name = format!("importguard_file_reloads_total{labels}");
    service.metric(&name).await.unwrap()
}

/// Swaps files, and waits until `service` has read them with this outcome.
async fn swap(
    service: &Service,
    setting: &str,
    secret: &mut MountedSecret,
    files: &[(&str, &str)],
    outcome: &str,
) {
    let before = reloads(service, setting, outcome).await;
    secret.replace(files);
    eventually("the files are read again", SOON, async || {
        let now = reloads(service, setting, outcome).await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_without_a_certificate_that_the_decider_believes_gets_no_verdict() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let (ca, others) = (authority.pem(), other.pem());
    let secret = MountedSecret::new(&authority.certificate().files_trusting(&ca));
    let decider = Service::decider(Settings::new().requiring_clients(&secret)).await;

    let foreign = MountedSecret::new(&other.certificate().files_trusting(&ca));
    let distrustful = MountedSecret::new(&authority.certificate().files_trusting(&others));
    let none = Settings::new()
        .set("IMPORTGUARD_DECIDER_URL", decider.grpc_tls_url())
        .set(GATEWAYS, secret.setting("ca.crt"));
    for (settings, why) in [
        (
            none,
            "it requires a client certificate (certificate required)",
        ),
        (
            Settings::new().to_deciders(&foreign, decider.grpc_tls_url()),
            "it rejects our client certificate",
        ),
        (
            Settings::new().to_deciders(&distrustful, decider.grpc_tls_url()),
            "its certificate was not issued by a CA in IMPORTGUARD_DECIDER_CA_FILE",
        ),
        (Settings::new().decider(&decider), "127.0.0.1"),
    ] {
        let gateway = Service::gateway(settings).await;
        let server = OpenIm::server(gateway.url());
        for _ in 0..3 {
            let answer = server.import("op", "a", &["b"]).await;
            asserts::refuses(Dialect::Server, &answer, 200, 5910);
        }
        gateway.wait_for_log(&[why]).await;
    }
    let trusted = Settings::new().to_deciders(&secret, decider.grpc_tls_url());
    until_allowed(&Service::gateway(trusted).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_are_exchanged_under_load_and_no_verdict_fails() {
    let _turn = alone().await;
    let (old, new) = (TestAuthority::new(), TestAuthority::new());
    let Pair {
        gateway,
        gateways: mut at_gateway,
        decider,
        deciders: mut at_decider,
    } = Pair::start(&old, quiet()).await;
    let traffic = Traffic::start(&OpenIm::server(gateway.url()), "op", of_every_verdict);
    traffic.answers(100).await;
    let connections = near_ends(&decider);

    let (gateway_shows, decider_shows) = (old.certificate(), old.certificate());
    let both = old.pem() + &new.pem();
    let shown = decider_shows.files_trusting(&both);
    swap(&decider, DECIDERS, &mut at_decider, &shown, "applied").await;
    let shown = gateway_shows.files_trusting(&both);
    swap(&gateway, GATEWAYS, &mut at_gateway, &shown, "applied").await;
    traffic.answers(100).await;
    let (gateway_shows, decider_shows, only) = (new.certificate(), new.certificate(), new.pem());
    let shown = gateway_shows.files_trusting(&both);
    swap(&gateway, GATEWAYS, &mut at_gateway, &shown, "applied").await;
    let shown = decider_shows.files_trusting(&only);
    swap(&decider, DECIDERS, &mut at_decider, &shown, "applied").await;
    let shown = gateway_shows.files_trusting(&only);
    swap(&gateway, GATEWAYS, &mut at_gateway, &shown, "applied").await;

    eventually("the connections are other ones", SOON, async || {
        let now = near_ends(&decider);
        ensure!(!now.is_empty() && now.is_disjoint(&connections), "{now:?}");
        Ok(())
    })
    .await;
    traffic.answers(100).await;
    all_decided(&traffic.stop().await);

    let late = MountedSecret::new(&old.certificate().files_trusting(&both));
    let late = Service::gateway(Settings::new().to_deciders(&late, decider.grpc_tls_url())).await;
    let answer = OpenIm::server(late.url()).import("op", "a", &["b"]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5910);
}

/// The gateways' ports of the connections to `decider`.
fn near_ends(decider: &Service) -> HashSet<String> {
    let port = decider.grpc_url();
    let port: u16 = port.rsplit(':').next().unwrap().parse().unwrap();
    let listener = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let established = table.lines().filter_map(|line| {
        // Local address, remote address, state: 01 is established.
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, near, far, "01", ..] if far == listener => Some(near.to_owned()),
            _ => None,
        }
    });
    established.collect()
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_but_what_is_told() {
    let authority = TestAuthority::new();
    let mut pair = Pair::start(&authority, Settings::new()).await;
    let (other, ca) = (authority.certificate(), authority.pem());
    let no_pair = [
        ("tls.crt", other.cert_pem()),
        ("tls.key", "nonsense"),
        ("ca.crt", ca.as_str()),
    ];
    let no_authority = [
        ("tls.crt", other.cert_pem()),
        ("tls.key", other.key_pem()),
        ("ca.crt", ""),
    ];
    for broken in [&no_pair, &no_authority] {
        swap(
            &pair.gateway,
            GATEWAYS,
            &mut pair.gateways,
            broken,
            "failed",
        )
        .await;
        swap(
            &pair.decider,
            DECIDERS,
            &mut pair.deciders,
            broken,
            "failed",
        )
        .await;
        for (service, setting) in [(&pair.gateway, GATEWAYS), (&pair.decider, DECIDERS)] {
            let good = format!("importguard_file_valid{{setting=\"{setting}\"}}");
            service.wait_for_metric(&good, |good| good == 0.0).await;
            let ready = service.admin("/readyz").await.unwrap();
            assert!(ready.contains("lastGood"), "{ready}");
            service.wait_for_log(&["keeping the last good files"]).await;
        }
        until_allowed(&pair.gateway).await;
    }
    // Also for who connects only now.
    let secret = MountedSecret::new(&other.files_trusting(&ca));
    let another = Settings::new().to_deciders(&secret, pair.decider.grpc_tls_url());
    until_allowed(&Service::gateway(another).await).await;

    let good = other.files_trusting(&ca);
    swap(
        &pair.gateway,
        GATEWAYS,
        &mut pair.gateways,
        &good,
        "applied",
    )
    .await;
    swap(
        &pair.decider,
        DECIDERS,
        &mut pair.deciders,
        &good,
        "applied",
    )
    .await;
    until_allowed(&pair.gateway).await;
    for service in [&pair.gateway, &pair.decider] {
        let ready = service.admin("/readyz").await.unwrap();
        assert!(!ready.contains("lastGood"), "{ready}");
    }
}

#[tokio::test]
async fn half_a_configuration_is_an_error_at_the_start() {
    let authority = TestAuthority::new();
    let secret = MountedSecret::new(&authority.certificate().files_trusting(&authority.pem()));
    let (cert, ca) = (secret.setting("tls.crt"), secret.setting("ca.crt"));
    let (http, https) = ("http://127.0.0.1:1", "https://127.0.0.1:1");
    let mixed = "http://127.0.0.1:1,https://127.0.0.1:2";
    let url = "IMPORTGUARD_DECIDER_URL";
    for (binary, settings, named) in [
        (Binary::Gateway, vec![(url, https)], GATEWAYS),
        (
            Binary::Gateway,
            vec![(url, http), (GATEWAYS, &ca)],
            "https://",
        ),
        (Binary::Gateway, vec![(url, mixed)], "all https://"),
        (
            Binary::Gateway,
            vec![
                (url, https),
                (GATEWAYS, &ca),
                ("IMPORTGUARD_DECIDER_CLIENT_CERT_FILE", &cert),
            ],
            "--decider-client-key-file",
        ),
        (
            Binary::Decider,
            vec![(DECIDERS, &cert)],
            "--decider-tls-key-file",
        ),
        (
            Binary::Decider,
            vec![("IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE", &ca)],
            "--decider-tls-cert-file",
        ),
    ] {
        let settings = settings.into_iter();
        let settings = settings.fold(Settings::new(), |all, (name, value)| all.set(name, value));
        let mut service = Service::spawn(binary, settings);
        assert!(!service.exit(SOON).await.success());
        let said = service.stderr();
        assert!(said.contains(named), "no {named} in {said}");
    }
}

#[tokio::test]
async fn in_one_process_the_decider_does_not_pretend_to_speak_tls() {
    let authority = TestAuthority::new();
    let secret = MountedSecret::new(&authority.certificate().files_trusting(&authority.pem()));
    let mut service = Service::spawn(Binary::AllInOne, Settings::new().requiring_clients(&secret));
    assert!(!service.exit(SOON).await.success());
    let said = service.stderr();
    assert!(said.contains(DECIDERS), "{said}");
}

#[tokio::test]
async fn a_client_certificate_that_deciders_reject_is_an_error_at_once() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let ca = authority.pem();
    let mut pair = Pair::start(&authority, Settings::new()).await;
    let rejected = "importguard_decider_certificate_rejected";
    assert_eq!(pair.gateway.metric(rejected).await.unwrap(), 0.0);

    let foreign = other.certificate();
    swap(
        &pair.gateway,
        GATEWAYS,
        &mut pair.gateways,
        &foreign.files_trusting(&ca),
        "applied",
    )
    .await;
    until_rejected(&pair.gateway, 1).await;
    let told = [
        "new client certificate rejected by decider",
        "it rejects our client certificate",
    ];
    pair.gateway.wait_for_log(&told).await;
    until_allowed(&pair.gateway).await;

    let good = authority.certificate();
    swap(
        &pair.gateway,
        GATEWAYS,
        &mut pair.gateways,
        &good.files_trusting(&ca),
        "applied",
    )
    .await;
    until_rejected(&pair.gateway, 0).await;
    until_allowed(&pair.gateway).await;
}

/// What the metric and `/readyz` say.
async fn until_rejected(gateway: &Service, count: usize) {
    eventually("rejected certificates are reported", SOON, async || {
        let metric = gateway.metric("importguard_decider_certificate_rejected");
        let metric = metric.await.unwrap();
        let state = gateway.admin("/readyz").await.unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        let listed = state["deciders"]["certificateRejected"]
            .as_array()
            .map(Vec::len);
        if metric == count as f64 && listed == Some(count) {
            Ok(())
        } else {
            Err(format!("{metric}, {state}"))
        }
    })
    .await;
}

#[tokio::test]
async fn whom_an_earlier_authority_let_in_is_not_let_stay_but_all_others_are() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let mut pair = Pair::start(&authority, Settings::new()).await;
    let both = authority.pem() + &other.pem();
    for trusted in [authority.pem(), both, other.pem()] {
        let renewed = authority.certificate();
        let shown = renewed.files_trusting(&trusted);
        swap(
            &pair.decider,
            DECIDERS,
            &mut pair.deciders,
            &shown,
            "applied",
        )
        .await;
    }
    let server = OpenIm::server(pair.gateway.url());
    eventually(
        "the earlier connection has ended",
        SOON,
        async || match asserts::code(&server.import("op", "a", &["b"]).await) {
            5910 => Ok(()),
            code => Err(code),
        },
    )
    .await;
    let log = pair.decider.wait_for_log(&[": closed "]).await;
    assert_eq!(log.matches(": closed ").count(), 1, "{log}");
}

#[tokio::test]
async fn only_clients_with_an_allowed_name_get_verdicts() {
    let authority = TestAuthority::new();
    let secret = MountedSecret::new(&authority.certificate().files_trusting(&authority.pem()));
    let names = "IMPORTGUARD_DECIDER_TLS_CLIENT_NAMES";
    for (allowed, code) in [
        ("gateway.internal,127.0.0.1", 0),
        ("gateway.internal", 5910),
    ] {
        let settings = Settings::new().set(names, allowed);
        let decider = Service::decider(settings.requiring_clients(&secret)).await;
        let trusted = Settings::new().to_deciders(&secret, decider.grpc_tls_url());
        let gateway = Service::gateway(trusted).await;
        let server = OpenIm::server(gateway.url());
        let answer = server.import("op", "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), code, "{allowed}");
    }
}
