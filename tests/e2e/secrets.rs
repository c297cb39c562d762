//! No text that importguard writes repeats a secret, whatever a file for secrets holds.

use std::time::Duration;

use data_encoding::BASE64;
use importguard_tests::{Binary, MountedSecret, Service, Settings, TestCertificate, eventually};

const SOON: Duration = Duration::from_secs(20);

/// In every file below: a part of a key, a password or a token.
const SECRET: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49";

/// The settings that name a file with a secret, and what the file is called here.
const FILES: [(&str, &str); 6] = [
    ("IMPORTGUARD_TLS_CERT_FILE", "certificate"),
    ("IMPORTGUARD_TLS_KEY_FILE", "key"),
    ("IMPORTGUARD_BASIC_AUTH_FILE", "passwords"),
    ("IMPORTGUARD_BEARER_TOKEN_FILE", "tokens"),
    ("IMPORTGUARD_PSEUDONYM_KEY_FILE", "pseudonyms"),
    ("NATS_CREDS", "credentials"),
];

/// What may be in such a file by mistake.
fn rubbish() -> Vec<String> {
    let pem = |label: &str| format!("-----BEGIN {label}-----\n{SECRET}\n-----END {label}-----\n");
    let key = pem("PRIVATE KEY");
    vec![
        SECRET.to_owned(),
        format!("{SECRET} {SECRET}"),
        key.clone(),
        // Copied from where line ends were lost.
        key.replace('\n', " "),
        key.replace('\n', ""),
        key.replace('\n', "\\n"),
        key.replace('\n', "\r"),
        format!("\u{feff}{key}"),
        format!("\"{}\"", key.replace('\n', "\\n")),
        key.replace("-----END", "-----FIN"),
        key.replace("-----END PRIVATE KEY-----\n", ""),
        key.replace("KEY-----\n", "KEY----\n"),
        key.replace(SECRET, &format!("{SECRET}*")),
        format!("-----BEGIN {SECRET}\n"),
        pem(SECRET),
        pem("CERTIFICATE"),
        pem("NATS USER JWT"),
        format!("{{\"key\": \"{SECRET}\"}}"),
        format!("password = {SECRET}"),
        format!("<html><body>{SECRET}</body></html>"),
    ]
}

/// Whether `text` has the secret: as it is, in base64, or as the numbers of its bytes.
fn repeats_the_secret(text: &str) -> bool {
    let part = &SECRET[..12];
    let numbers: Vec<_> = part.bytes().map(|byte| byte.to_string()).collect();
    let forms = [
        part.to_owned(),
        BASE64.encode(part.as_bytes()),
        numbers.join(", "),
    ];
    forms.iter().any(|form| text.contains(form))
}

fn with_files(files: &MountedSecret) -> Settings {
    let settings = Settings::new()
        .set("IMPORTGUARD_LOG_FORMAT", "json")
        .set("RUST_LOG", "debug");
    FILES.iter().fold(settings, |settings, (setting, file)| {
        settings.set(setting, files.setting(file))
    })
}

/// What the files hold, but for the one at `index`.
fn files(certificate: &TestCertificate, index: usize, content: &str) -> MountedSecret {
    let mut files = valid(certificate);
    files[index].1 = content;
    MountedSecret::new(&files)
}

fn valid(certificate: &TestCertificate) -> [(&'static str, &str); 6] {
    [
        ("certificate", certificate.cert_pem()),
        ("key", certificate.key_pem()),
        ("passwords", "openim:password\n"),
        ("tokens", "token\n"),
        ("pseudonyms", "a key of more than thirty-two bytes\n"),
        (
            "credentials",
            "-----BEGIN NATS USER JWT-----\njwt\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\nSUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n\
             ------END USER NKEY SEED------\n",
        ),
    ]
}

#[tokio::test]
async fn no_secret_is_repeated_at_the_start() {
    let certificate = TestCertificate::new();
    for (index, (setting, _)) in FILES.iter().enumerate() {
        for content in rubbish() {
            let files = files(&certificate, index, &content);
            let mut gateway = Service::spawn(Binary::Gateway, with_files(&files));
            // What one setting cannot use is another one's token.
            eventually("it has read the file", SOON, async || {
                let said = gateway.output();
                if gateway.ended().is_some() || said.contains("is listening") {
                    Ok(())
                } else {
                    Err(said)
                }
            })
            .await;
            let said = gateway.output();
            assert!(!repeats_the_secret(&said), "{setting}: {content:?}: {said}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_repeated_when_files_change() {
    let certificate = TestCertificate::new();
    let mut files = MountedSecret::new(&valid(&certificate));
    let gateway = Service::gateway(with_files(&files)).await;
    let failed =
        "importguard_file_reloads_total{outcome=\"failed\",setting=\"IMPORTGUARD_TLS_CERT_FILE\"}";
    for content in rubbish() {
        let before = gateway.metric(failed).await.unwrap();
        files.replace(&FILES.map(|(_, file)| (file, &*content)));
        gateway.sighup();
        eventually("the files are read", SOON, async || {
            let now = gateway.metric(failed).await?;
            anyhow::ensure!(now > before, "{now}");
            Ok(())
        })
        .await;
        let readiness = gateway.admin("/readyz").await.unwrap();
        for said in [gateway.output(), readiness] {
            assert!(!repeats_the_secret(&said), "{content:?}: {said}");
        }
    }
}
