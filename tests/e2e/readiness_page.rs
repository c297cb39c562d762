//! `docs/readiness.md` has every field of `/readyz`, and no other.

use std::{collections::BTreeSet, fs};

use importguard_tests::{
    Detector, MountedSecret, PolicyDir, SOON, Service, Settings, TestAuthority, eventually,
    workspace,
};
use serde_json::Value;

/// Fields that only rare states have, each with a file that has it: the test of that state, or the type.
const ELSEWHERE: [(&str, &str, &str); 14] = [
    ("starting[]", "tests/e2e/startup.rs", "starting"),
    ("recorder.parked[].reason", RECORDER, "pub reason"),
    ("recorder.parked[].events", RECORDER, "pub events"),
    ("recorder.parked[].detail", RECORDER, "pub detail"),
    (
        "recorder.streamDeviations[]",
        RECORDER,
        "pub stream_deviations",
    ),
    (
        "recorder.spool.lastError",
        "tests/e2e/spool_faults.rs",
        "lastError",
    ),
    (
        "recorder.spool.lastErrorTime",
        "gateway/src/spool/health.rs",
        "pub last_error_time",
    ),
    (
        "deciders.certificateRejected[].address",
        "tests/load/mtls.rs",
        "certificateRejected",
    ),
    (
        "deciders.certificateRejected[].why",
        "tests/load/mtls.rs",
        "certificateRejected",
    ),
    ("liveLists.confirmed", LIVE_LISTS, "\"confirmed\""),
    (
        "liveLists.ageSeconds",
        "tests/e2e/live_lists.rs",
        "ageSeconds",
    ),
    ("liveLists.reading.read", LIVE_LISTS, "\"read\""),
    ("liveLists.reading.of", LIVE_LISTS, "\"of\""),
    (
        "liveLists.error",
        "tests/e2e/live_lists.rs",
        "[\"liveLists\"][\"error\"]",
    ),
];

const LIVE_LISTS: &str = "decider/src/lists/live/status.rs";

const RECORDER: &str = "gateway/src/recorder/status.rs";

/// The fields in the tables of the page.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(workspace().join("docs/readiness.md")).unwrap();
    let fields = page.lines().filter_map(|line| {
        let (field, _) = line.strip_prefix("| `")?.split_once("` |")?;
        Some(field.to_owned())
    });
    fields.collect()
}

/// The paths of all values that have no others in them.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = match path {
                    "files" => "<SETTING>",
                    _ => name,
                };
                let separator = if path.is_empty() { "" } else { "." };
                self::fields(value, &format!("{path}{separator}{name}"), found);
            }
        }
        Value::Array(items) => {
            for item in items {
                fields(item, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

async fn answer(service: &Service) -> BTreeSet<String> {
    let answer = service.admin("/readyz").await.unwrap();
    let mut found = BTreeSet::new();
    fields(&serde_json::from_str(&answer).unwrap(), "", &mut found);
    found
}

/// Waits until the answer has `field`.
async fn answer_with(service: &Service, field: &str) -> BTreeSet<String> {
    eventually(field, SOON, async || {
        let found = answer(service).await;
        match found.contains(field) {
            true => Ok(found),
            false => Err(format!("only {found:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn the_page_has_every_field_and_no_other() {
    let certificate = TestAuthority::new().certificate();
    let mut secret = MountedSecret::new(&certificate.files());
    let gateway = Settings::new().tls(&secret).set(
        "IMPORTGUARD_DECIDER_URL",
        "http://127.0.0.1:1,http://nowhere.invalid:1",
    );
    let gateway = Service::gateway(gateway).await;
    let mut seen = answer_with(&gateway, "files.<SETTING>.certificates[].subject").await;
    secret.replace(&[("tls.crt", "nonsense"), ("tls.key", "nonsense")]);
    for field in [
        "deciders.unresolved[]",
        "deciders.ejected[].why",
        "recorder.lastError",
        "files.<SETTING>.lastError",
    ] {
        seen.extend(answer_with(&gateway, field).await);
    }

    let policy = PolicyDir::usual();
    let decider = Service::decider(Settings::new().policy(&policy)).await;
    seen.extend(answer(&decider).await);
    policy.replace("policy.yaml", "rules: 7\n");
    seen.extend(answer_with(&decider, "policy.error.text").await);

    let detector = Detector::spawn(
        "[{ id: a, refusals: 1, within: 1m, list: l, for: 1m }]",
        Settings::new().set("NATS_URL", "nats://127.0.0.1:1"),
    );
    let error = eventually("the detector says why it does not read", SOON, async || {
        let error = detector.admin("/readyz").await.unwrap_err().to_string();
        match error.contains("\"error\"") {
            true => Ok(error),
            false => Err(error),
        }
    })
    .await;
    let (_, answer) = error.split_once(": ").unwrap();
    fields(&serde_json::from_str(answer).unwrap(), "", &mut seen);

    let documented = documented();
    let undocumented: Vec<_> = seen.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not on the page: {undocumented:?}");
    for (field, file, text) in ELSEWHERE {
        let file_text = fs::read_to_string(workspace().join(file)).unwrap();
        assert!(file_text.contains(text), "{file} has no {text}");
        seen.insert(field.to_owned());
    }
    let unknown: Vec<_> = documented.difference(&seen).collect();
    assert!(unknown.is_empty(), "not in any answer: {unknown:?}");
}

#[test]
fn the_pages_links_lead_to_sections_of_the_handbook() {
    let page = fs::read_to_string(workspace().join("docs/readiness.md")).unwrap();
    let handbook = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let anchors: BTreeSet<_> = handbook
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let links = page.split("(operations.md#").skip(1);
    let links: BTreeSet<_> = links.filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 8, "{links:?}");
    for link in links {
        assert!(anchors.contains(link), "no section {link}");
    }
}
