//! The scripts in `tests/`, with other programs in the place of those that they install and run.

use std::path::Path;

use importguard_tests::workspace;
use tempfile::TempDir;

use crate::fake_programs::{FakePrograms, write_program};

/// What `tests/run.sh` prints, and what it reports on standard error, where these programs are all that is installed. Its user may install
/// nothing.
fn run(programs: FakePrograms, target: &Path) -> (String, String) {
    let system = ["bash", "chmod", "dirname", "grep", "mkdir", "realpath"];
    let output = system
        .into_iter()
        .fold(programs, FakePrograms::with_installed)
        .with("id", "echo 1000")
        .with("nats-server", "echo 'nats-server: v2.9.10'")
        .run_alone(&workspace().join("tests/run.sh"))
        .env("CARGO_TARGET_DIR", target)
        .env("DOCKER_COMPOSE", "/own/docker-compose")
        .env("HELM", "/own/helm")
        .output()
        .unwrap();
    let (said, complaints) = (output.stdout, output.stderr);
    let complaints = String::from_utf8(complaints).unwrap();
    assert!(output.status.success(), "{complaints}");
    (String::from_utf8(said).unwrap(), complaints)
}

#[test]
fn a_run_of_the_tests_lists_what_it_skips() {
    let target = TempDir::new().unwrap();
    let programs = FakePrograms::new().with("cargo", "").with("faketime", "");
    let (_, complaints) = run(programs, target.path());
    for expected in [
        "strace is not installed (STRACE can name it); skipped: power cuts",
        "promtool is not installed (PROMTOOL can name it); skipped: alert rules",
        "go is not installed; skipped: ",
    ] {
        assert!(complaints.contains(expected), "{complaints}");
    }
    for installed in ["faketime is", "helm is", "docker-compose is"] {
        assert!(!complaints.contains(installed), "{complaints}");
    }
}

/// Although one of an older version was built before. What the environment names is used.
#[test]
fn a_run_of_the_tests_has_the_versions_of_tools_that_are_pinned() {
    let target = TempDir::new().unwrap();
    let tools = target.path().join("tools");
    write_program(&tools.join("kubeconform"), "");
    write_program(&tools.join("nats-server"), "");
    // `go install`
    let go = "name=${2%@*}; name=${name%/v2}; name=${name##*/}
        mkdir -p \"$GOBIN\"; echo '#!/bin/sh' >\"$GOBIN/$name\"; chmod +x \"$GOBIN/$name\"";
    let cargo = "echo \"$HELM $DOCKER_COMPOSE $KUBECONFORM $NATS_SERVER_CURRENT\"";
    let programs = FakePrograms::new().with("cargo", cargo).with("go", go);
    let (said, complaints) = run(programs, target.path());
    let tools = tools.display();
    let mut used = said.lines().last().unwrap().split(' ');
    assert_eq!(used.next(), Some("/own/helm"), "{complaints}");
    assert_eq!(used.next(), Some("/own/docker-compose"));
    for name in ["kubeconform", "nats-server"] {
        let (built, used) = (format!("{tools}/{name}-"), used.next().unwrap());
        assert!(used.starts_with(&built), "{used}: {complaints}");
    }
}
