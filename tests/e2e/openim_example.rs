//! `examples/openim/compose.yaml` is a composition that Docker accepts, configured as docs/openim.md says.

use std::{fs, process::Command};

use importguard_tests::{tool, workspace};
use serde_json::Value;

const DIRECTORY: &str = "examples/openim";

/// The composition as `docker compose config` reads it, which needs no engine.
fn composition() -> Option<Value> {
    let compose = tool("docker-compose", "DOCKER_COMPOSE", DIRECTORY)?;
    let output = Command::new(compose)
        .current_dir(workspace().join(DIRECTORY))
        .args(["--file", "compose.yaml", "--profile", "tools"])
        .args(["config", "--format", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warn"), "{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn docker_compose_accepts_it_and_openim_is_configured_as_documented() {
    let Some(composition) = composition() else {
        return;
    };
    let services = &composition["services"];
    let openim = &services["openim-server"]["environment"];
    let page = fs::read_to_string(workspace().join("docs/openim.md")).unwrap();
    for name in [
        "IMENV_WEBHOOKS_BEFOREIMPORTFRIENDS_ENABLE",
        "IMENV_WEBHOOKS_AFTERIMPORTFRIENDS_ENABLE",
    ] {
        assert_eq!(openim[name], "true", "{name}");
        assert!(page.contains(&format!("{name}=true")), "{name}");
    }
    let url = openim["IMENV_WEBHOOKS_URL"].as_str().unwrap();
    let file = workspace().join(DIRECTORY).join("webhook-passwords");
    let passwords = fs::read_to_string(file).unwrap();
    assert_eq!(url, format!("http://{}@importguard:8080", passwords.trim()));
    assert_eq!(services["doctor"]["environment"]["IMENV_WEBHOOKS_URL"], url);

    // Nothing but OpenIM and its doctor reaches the callback port, and all ports are on this machine only.
    for (name, service) in services.as_object().unwrap() {
        let reaches = service["networks"].get("callbacks").is_some();
        let may = ["openim-server", "importguard", "doctor"].contains(&name.as_str());
        assert_eq!(reaches, may, "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: {port}");
        }
    }
}
