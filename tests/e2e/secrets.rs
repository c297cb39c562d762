//! No text that importguard writes repeats a secret, whatever a file or a variable for secrets holds.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use futures_util::{StreamExt, stream};
use importguard_tests::{
    Binary, Help, MountedSecret, SOON, Service, Settings, TestAuthority, TestCertificate,
    eventually,
};
use nkeys::KeyPair;

use crate::nats_access::credentials;

/// How many processes are started at once.
const AT_ONCE: usize = 4;

/// In every text below: a part of a key, a password or a token.
const SECRET: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49";

/// Processes whose settings name files with secrets: the settings, what the files are called here, and other settings that the
/// process needs to read them.
const PROCESSES: [Reading; 3] = [
    Reading {
        binary: Binary::Gateway,
        files: &[
            ("IMPORTGUARD_TLS_CERT_FILE", "certificate"),
            ("IMPORTGUARD_TLS_KEY_FILE", "key"),
            ("IMPORTGUARD_BASIC_AUTH_FILE", "passwords"),
            ("IMPORTGUARD_BEARER_TOKEN_FILE", "tokens"),
            ("IMPORTGUARD_PSEUDONYM_KEY_FILE", "pseudonyms"),
            ("IMPORTGUARD_DECIDER_CA_FILE", "ca"),
            ("IMPORTGUARD_DECIDER_CLIENT_CERT_FILE", "certificate"),
            ("IMPORTGUARD_DECIDER_CLIENT_KEY_FILE", "key"),
            ("NATS_CREDS", "credentials"),
            ("NATS_PASSWORD_FILE", "password"),
            ("NATS_CA", "ca"),
            ("NATS_CERT", "certificate"),
            ("NATS_KEY", "key"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "certificate"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key"),
        ],
        needs: &[
            ("NATS_USER", "guard"),
            ("IMPORTGUARD_DECIDER_URL", "https://127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1"),
        ],
    },
    Reading {
        binary: Binary::Gateway,
        // Without NATS_CA, TLS trusts the system's authorities.
        files: &[("NATS_TOKEN_FILE", "password"), ("SSL_CERT_FILE", "ca")],
        needs: &[("NATS_URL", "tls://127.0.0.1:1")],
    },
    Reading {
        binary: Binary::Decider,
        files: &[
            ("IMPORTGUARD_DECIDER_TLS_CERT_FILE", "certificate"),
            ("IMPORTGUARD_DECIDER_TLS_KEY_FILE", "key"),
            ("IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE", "ca"),
        ],
        needs: &[],
    },
];

/// The variables that hold a secret themselves, with what is around it.
const VARIABLES: [(&str, &str); 9] = [
    ("IMPORTGUARD_PSEUDONYM_KEY", "{}"),
    ("IMPORTGUARD_BASE_PATH", "/{}"),
    ("IMPORTGUARD_UPSTREAM", "http://user:{}@127.0.0.1:1"),
    ("IMPORTGUARD_UPSTREAM", "http://127.0.0.1:1/hook?token={}"),
    ("NATS_URL", "nats://guard:{}@127.0.0.1:1"),
    ("NATS_URL", "nats://{}@127.0.0.1:1"),
    ("NATS_PASSWORD", "{}"),
    ("NATS_TOKEN", "{}"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization={}"),
];

struct Reading {
    binary: Binary,
    files: &'static [(&'static str, &'static str)],
    needs: &'static [(&'static str, &'static str)],
}

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
        // Passwords and tokens as other programs take them.
        format!("user:{SECRET}\nuser:{SECRET} \n:{SECRET}\n"),
        format!("user:$2y$05${SECRET}{SECRET}"),
        format!("{SECRET}@{SECRET}:{SECRET}/{SECRET}?{SECRET}#{SECRET},{SECRET}%"),
        format!("{SECRET}\u{200b}{SECRET}\t{SECRET}"),
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

/// One of the formats of the log.
fn logging(number: usize) -> Settings {
    let format = if number.is_multiple_of(2) {
        "json"
    } else {
        "human"
    };
    Settings::new()
        .set("IMPORTGUARD_LOG_FORMAT", format)
        .set("RUST_LOG", "debug")
}

impl Reading {
    /// The settings, with the files in `directory`; the file of `changed` is `rubbish` instead.
    fn settings(&self, number: usize, directory: &MountedSecret, changed: &str) -> Settings {
        let mut settings = logging(number);
        for (setting, value) in self.needs {
            settings = settings.set(setting, *value);
        }
        for (setting, file) in self.files {
            let file = if *setting == changed { "rubbish" } else { file };
            settings = settings.set(setting, directory.setting(file));
        }
        settings
    }
}

/// Files that can be used.
struct Valid([(&'static str, String); 7]);

impl Valid {
    fn new() -> Self {
        let authority = TestAuthority::new();
        let certificate = TestCertificate::new();
        let credentials = credentials(&KeyPair::new_account());
        Self([
            ("ca", authority.pem()),
            ("certificate", certificate.cert_pem().to_owned()),
            ("key", certificate.key_pem().to_owned()),
            ("passwords", "openim:password\n".to_owned()),
            ("tokens", "token\n".to_owned()),
            (
                "pseudonyms",
                "a key of more than thirty-two bytes\n".to_owned(),
            ),
            ("credentials", credentials),
        ])
    }

    fn with<'a>(&'a self, password: &'a str, rubbish: &'a str) -> Vec<(&'static str, &'a str)> {
        let mut files: Vec<_> = self.0.iter().map(|(name, text)| (*name, &**text)).collect();
        files.extend([("password", password), ("rubbish", rubbish)]);
        files
    }
}

/// Starts a process, and returns all that it says until it has ended, or has read its files and been asked.
async fn all_it_says(binary: Binary, settings: Settings) -> String {
    let mut process = Service::spawn(binary, settings);
    // What one setting cannot use is another one's token.
    let admin = eventually("it has read its settings", SOON, async || {
        if process.ended().is_some() {
            return Ok(String::new());
        }
        let admin = process
            .admin("/readyz")
            .await
            .map_err(|error| error.to_string())?;
        let metrics = process.admin("/metrics").await;
        Ok::<_, String>(admin + &metrics.map_err(|error| error.to_string())?)
    })
    .await;
    process.output() + &admin
}

#[tokio::test]
async fn no_secret_file_is_repeated_at_the_start() {
    let valid = Valid::new();
    let rubbish = rubbish();
    let mut cases = Vec::new();
    for reading in &PROCESSES {
        for (setting, _) in reading.files {
            for content in &rubbish {
                cases.push((reading, *setting, content));
            }
        }
    }
    let valid = &valid;
    let cases = stream::iter(cases.into_iter().enumerate());
    let said = cases.map(|(number, (reading, setting, content))| async move {
        let files = MountedSecret::new(&valid.with("s3cret\n", content));
        let settings = reading.settings(number, &files, setting);
        let said = all_it_says(reading.binary, settings).await;
        assert!(!repeats_the_secret(&said), "{setting}: {content:?}: {said}");
    });
    said.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test]
async fn no_secret_variable_is_repeated() {
    let rubbish = rubbish();
    let mut cases = Vec::new();
    for (variable, around) in VARIABLES {
        for content in &rubbish {
            cases.push((variable, around.replace("{}", content)));
        }
    }
    let cases = stream::iter(cases.into_iter().enumerate());
    let said = cases.map(|(number, (variable, value))| async move {
        let mut settings = logging(number).set(variable, &value);
        if variable == "NATS_PASSWORD" {
            settings = settings.set("NATS_USER", "guard");
        }
        if variable.starts_with("OTEL_") {
            settings = settings.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        }
        let said = all_it_says(Binary::Gateway, settings).await;
        assert!(!repeats_the_secret(&said), "{variable}={value:?}: {said}");
    });
    said.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test]
async fn no_secret_is_repeated_when_files_change() {
    let valid = Valid::new();
    for (number, reading) in PROCESSES.iter().enumerate() {
        let mut files = MountedSecret::new(&valid.with("s3cret\n", ""));
        let process = match reading.binary {
            Binary::Decider => Service::decider(reading.settings(number, &files, "")).await,
            _ => Service::gateway(reading.settings(number, &files, "")).await,
        };
        let watched = process.admin("/metrics").await.unwrap();
        let watched: Vec<_> = watched
            .lines()
            .filter_map(|line| line.strip_prefix("importguard_file_reloads_total{"))
            .filter_map(|line| Some(line.split_once('}')?.0.to_owned()))
            .collect();
        assert!(!watched.is_empty(), "{}", reading.files[0].0);
        let reloads = async || {
            let mut sum = 0.0;
            for labels in &watched {
                let metric = format!("importguard_file_reloads_total{{{labels}}}");
                sum += process.metric(&metric).await?;
            }
            anyhow::Ok(sum)
        };
        for content in rubbish() {
            let before = reloads().await.unwrap();
            let names: BTreeSet<_> = valid
                .with("", "")
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            let all: Vec<_> = names.into_iter().map(|name| (name, &*content)).collect();
            files.replace(&all);
            process.sighup();
            // Each setting counts twice: a failed and an applied reload.
            let expected = before + watched.len() as f64 / 2.0;
            eventually("the files are read", SOON, async || {
                let now = reloads().await?;
                anyhow::ensure!(now >= expected, "{now} of {expected}");
                Ok(())
            })
            .await;
            let readiness = process.admin("/readyz").await.unwrap();
            let metrics = process.admin("/metrics").await.unwrap();
            for said in [process.output(), readiness, metrics] {
                assert!(!repeats_the_secret(&said), "{content:?}: {said}");
            }
        }
    }
}

#[test]
fn every_setting_that_names_a_file_or_hides_its_value_is_tested_here() {
    let mut tested: BTreeSet<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
    tested.extend(
        PROCESSES
            .iter()
            .flat_map(|reading| reading.files)
            .map(|(name, _)| *name),
    );
    for binary in [Binary::Gateway, Binary::Decider] {
        let help = Help::of(binary, &[]);
        for setting in help.settings() {
            let name = setting.env.as_deref().unwrap_or_default();
            let secret = ["_KEY", "_PASSWORD", "_TOKEN", "_CREDS", "NATS_URL"];
            let secret = secret.iter().any(|part| name.ends_with(part));
            let file = setting.flag.contains("<FILE>") && name != "IMPORTGUARD_POLICY";
            assert!(!(secret || file) || tested.contains(name), "{name}");
        }
    }
}
