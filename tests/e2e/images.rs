//! `Dockerfile` and `docker-compose.yml`, as far as they can be checked without building them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use importguard_tests::{Binary, NatsServer, tool, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

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
fn composition(file: &Path) -> Option<Value> {
    let compose = tool(
        "docker-compose",
        "DOCKER_COMPOSE",
        &file.display().to_string(),
    )?;
    let output = Command::new(compose)
        .arg("--file")
        .arg(file)
        .args(["--profile", "tools", "config", "--format", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

const NATS_CONF: &str = "deploy/nats/nats-server.conf";

/// `nats-server -t` on `deploy/nats/nats-server.conf`, with these variables and no others.
fn nats_conf_with(variables: &Value) -> Output {
    let text = read(NATS_CONF);
    let (program, text) = match NatsServer::current() {
        Some(program) => (program, text),
        None => (
            NatsServer::program().to_owned(),
            text.replace("sync_interval: always", ""),
        ),
    };
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("nats.conf");
    fs::write(&file, text).unwrap();
    let variables = variables.as_object().unwrap().iter();
    Command::new(program)
        .arg("-t")
        .arg("--config")
        .arg(&file)
        .env_clear()
        .envs(variables.map(|(name, value)| (name, value.as_str().unwrap())))
        .output()
        .unwrap()
}

/// Each composition of the repository that mounts `deploy/nats/nats-server.conf`.
fn compositions_with_nats() -> Vec<PathBuf> {
    let examples = fs::read_dir(workspace().join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path());
    let files = examples
        .chain([workspace().to_owned()])
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.contains("compose") && fs::read_to_string(file).unwrap().contains(NATS_CONF)
        })
        .collect()
}

#[test]
fn nats_starts_with_the_passwords_that_each_composition_gives_it() {
    let files = compositions_with_nats();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let Some(composition) = composition(&file) else {
            return;
        };
        let mut servers = 0;
        for (name, service) in composition["services"].as_object().unwrap() {
            let volumes = service["volumes"].as_array().into_iter().flatten();
            let mut sources = volumes.filter_map(|volume| volume["source"].as_str());
            if sources.any(|source| source.ends_with(NATS_CONF)) {
                let checked = nats_conf_with(&service["environment"]);
                let said = String::from_utf8_lossy(&checked.stderr);
                let file = file.display();
                assert!(checked.status.success(), "{file}: {name}: {said}");
                servers += 1;
            }
        }
        assert_eq!(servers, 1, "{}", file.display());
    }
}

/// The variables that `deploy/nats/nats-server.conf` refers to.
fn nats_variables() -> BTreeSet<String> {
    let text = read(NATS_CONF);
    let references = text.split("password: $").skip(1);
    references
        .map(|rest| rest.split(',').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_head_of_nats_conf_says_which_passwords_nats_takes() {
    let text = read(NATS_CONF);
    let (head, _) = text.split_once("\njetstream {").unwrap();
    let variables = nats_variables();
    assert_eq!(variables.len(), 7, "{variables:?}");
    assert!(head.contains("all seven variables"), "{head}");
    for variable in &variables {
        assert!(head.contains(variable), "the head lacks {variable}");
    }
    let with = |password: &str| {
        let mut all: Value = variables
            .iter()
            .map(|name| (name.clone(), json!("p")))
            .collect();
        all["GATEWAY_PASSWORD"] = json!(password);
        nats_conf_with(&all).status.success()
    };
    // Older ones take separators.
    let separated: &[_] = match NatsServer::current() {
        Some(_) => &["a;b", "a,b"],
        None => &[],
    };
    for refused in ["123456", "true", "10k", "two words"]
        .iter()
        .chain(separated)
    {
        assert!(!with(refused), "{refused}");
        assert!(with(&format!("\"{refused}\"")), "{refused} in quotes");
    }
    for taken in [
        "p0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "p1234567890123456789012345678901234567890123456789012345678901234",
    ] {
        assert!(with(taken), "{taken}");
    }
    for variable in &variables {
        let others = variables.iter().filter(|name| *name != variable);
        let others: Value = others.map(|name| (name.clone(), json!("p"))).collect();
        let output = nats_conf_with(&others);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(variable),
            "{said}"
        );
    }
}

#[test]
fn docker_compose_accepts_it_and_the_detector_works_on_what_deciders_use() {
    let Some(composition) = composition(&workspace().join("docker-compose.yml")) else {
        return;
    };
    let services = &composition["services"];
    let passwords = &services["nats"]["environment"];
    // Each logs in as a user that deploy/nats/nats-server.conf has, in an inbox of its own.
    for (service, user) in [
        ("gateway", "gateway"),
        ("decider", "decider"),
        ("detector", "detector"),
        ("list", "moderator"),
        ("importguard", "support"),
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
