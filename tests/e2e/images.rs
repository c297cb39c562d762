//! `Dockerfile` and `docker-compose.yml`, as far as they can be checked without building them.

use std::{collections::BTreeSet, fs, process::Command};

use importguard_tests::{Binary, tool, workspace};
use serde_json::Value;

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap()
}

#[test]
fn settings_are_ones_that_a_binary_has() {
    let helps: Vec<_> = [
        (Binary::Gateway, "--help"),
        (Binary::Decider, "--help"),
        (Binary::AllInOne, "serve"),
        (Binary::AllInOne, "tail"),
        (Binary::AllInOne, "detect"),
        (Binary::AllInOne, "list add"),
    ]
    .into_iter()
    .map(|(binary, arguments)| {
        let output = Command::new(binary.path())
            .args(arguments.split(' '))
            .arg("--help")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
    .collect();
    for file in [
        "Dockerfile",
        "docker-compose.yml",
        "examples/openim/compose.yaml",
    ] {
        let text = read(file);
        let names: BTreeSet<_> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("IMPORTGUARD_") || word.starts_with("NATS_"))
            .collect();
        assert!(!names.is_empty(), "{file}");
        for name in names {
            let known = |help: &String| {
                help.contains(&format!("[env: {name}=")) || help.contains(&format!("[env: {name}]"))
            };
            assert!(helps.iter().any(known), "{file}: nobody has {name}");
        }
    }
}

#[test]
fn every_image_has_a_version() {
    let version = |image: &str| {
        let (_, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        assert!(tag != "latest" && tag != "nonroot", "{image}");
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image}");
    };
    let compose = read("docker-compose.yml");
    let images = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "));
    assert!(images.clone().count() >= 7, "{compose}");
    images.for_each(version);
    let dockerfile = read("Dockerfile");
    let from: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(from.len() > 3, "{dockerfile}");
    for image in from.into_iter().filter(|image| image.contains(':')) {
        // Distroless has no versions but Debian's, which its name has.
        match image.strip_prefix("gcr.io/distroless/") {
            Some(image) => assert_eq!(image, "cc-debian12:nonroot"),
            None => version(image),
        }
    }
}

#[test]
fn every_port_is_open_on_this_machine_only() {
    let compose = read("docker-compose.yml");
    let ports: Vec<_> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ports: ["))
        .flat_map(|line| line.trim_end_matches(']').split(", "))
        .collect();
    assert!(ports.len() >= 6, "{ports:?}");
    for port in ports {
        assert!(port.starts_with("\"127.0.0.1:"), "{port}");
    }
    assert_eq!(
        compose.matches("ports:").count(),
        compose.matches("ports: [").count()
    );
}

/// The composition as `docker compose config` reads it, which needs no engine.
#[test]
fn docker_compose_accepts_it_and_the_detector_works_on_what_deciders_use() {
    let Some(compose) = tool("docker-compose", "DOCKER_COMPOSE", "docker-compose.yml") else {
        return;
    };
    let output = Command::new(compose)
        .current_dir(workspace())
        .args(["--profile", "tools", "config", "--format", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let composition: Value = serde_json::from_slice(&output.stdout).unwrap();
    let services = &composition["services"];
    let passwords = &services["nats"]["environment"];
    // Each logs in as a user that deploy/nats/nats-server.conf has, in an inbox of its own.
    for (service, user) in [
        ("gateway", "gateway"),
        ("decider", "decider"),
        ("detector", "detector"),
        ("list", "moderator"),
        ("tail", "support"),
    ] {
        let environment = &services[service]["environment"];
        assert_eq!(environment["NATS_USER"], user, "{service}");
        assert_eq!(
            environment["NATS_INBOX_PREFIX"],
            format!("_INBOX_{user}"),
            "{service}"
        );
        let password = format!("{}_PASSWORD", user.to_uppercase());
        assert_eq!(
            environment["NATS_PASSWORD"], passwords[&password],
            "{service}"
        );
    }
    // The files that are mounted have the policy and the rules, and both name the same list.
    let mounted = |service: &str, name: &str| {
        let path = services[service]["environment"][name].as_str().unwrap();
        let file = path.strip_prefix("/etc/importguard/policy/").unwrap();
        let volume = &services[service]["volumes"][0];
        assert_eq!(volume["target"], "/etc/importguard/policy", "{service}");
        read(&format!("policy/{file}"))
    };
    assert!(mounted("decider", "IMPORTGUARD_POLICY").contains("suspects: { live: suspects"));
    assert!(mounted("detector", "IMPORTGUARD_DETECT_RULES").contains("list: suspects"));
    // Prometheus finds its metrics.
    let admin = services["detector"]["environment"]["IMPORTGUARD_ADMIN_LISTEN"]
        .as_str()
        .unwrap();
    let (_, port) = admin.rsplit_once(':').unwrap();
    let scraped = format!("names: [detector], type: A, port: {port}");
    assert!(
        read("deploy/prometheus/prometheus.yml").contains(&scraped),
        "{scraped}"
    );
}

#[test]
fn grafana_needs_no_login_to_look_and_the_one_to_change_is_documented() {
    let (compose, readme) = (read("docker-compose.yml"), read("README.md"));
    assert!(compose.contains("GF_AUTH_ANONYMOUS_ENABLED: \"true\""));
    let (_, password) = compose
        .split_once("GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_PASSWORD:-")
        .unwrap();
    let password = password.split('}').next().unwrap();
    let documented = format!("sign in as `admin` with the password `{password}`");
    assert!(readme.contains(&documented), "{documented}");
}
