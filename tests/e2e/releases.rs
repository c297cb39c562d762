//! The scripts in `release/`, as far as they run without a registry and without building a release.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use importguard_tests::workspace;
use tempfile::TempDir;

fn script(name: &str) -> Command {
    let mut command = Command::new(workspace().join("release").join(name));
    command.stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The output of `release/bases.sh` with a `docker` that prints `digest` for every image.
fn bases(digest: &str) -> Output {
    let tools = TempDir::new().unwrap();
    let docker = tools.path().join("docker");
    fs::write(&docker, format!("#!/bin/sh\necho '{digest}'\n")).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        tools.path().display(),
        std::env::var("PATH").unwrap()
    );
    script("bases.sh").env("PATH", path).output().unwrap()
}

#[test]
fn every_file_has_the_version_of_the_workspace() {
    let output = script("set_version.sh").arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Any file: one that has the current version in other lines, and one that has only this.
#[test]
fn one_stale_version_in_a_file_is_found() {
    let copy = TempDir::new().unwrap();
    let copied = Command::new("git")
        .args(["clone", "--quiet", "--shared"])
        .args([workspace().as_os_str(), copy.path().as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let script = copy.path().join("release/set_version.sh");
    fs::copy(workspace().join("release/set_version.sh"), &script).unwrap();
    let checked = || Command::new(&script).arg("--check").output().unwrap();
    assert!(checked().status.success(), "{}", stderr(&checked()));
    let file = copy.path().join("docker-compose.yml");
    let compositions = fs::read_to_string(&file).unwrap();
    let current = format!("importguard-gateway:{}", env!("CARGO_PKG_VERSION"));
    fs::write(
        &file,
        compositions.replace(&current, "importguard-gateway:0.0.9"),
    )
    .unwrap();
    let page = copy.path().join("docs/helm.md");
    fs::write(page, "docker build -t importguard:0.0.9 .\n").unwrap();
    let output = checked();
    assert_eq!(output.status.code(), Some(1));
    for expected in ["docker-compose.yml:26:", "docs/helm.md:1:"] {
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn a_tag_that_is_not_the_version_is_refused() {
    let output = script("version.sh").arg("v99.0.0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("Cargo.toml has version {}", env!("CARGO_PKG_VERSION"));
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn every_base_image_is_replaced_by_its_digest() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let output = bases(&digest);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let contexts: Vec<_> = printed
        .strip_prefix("contexts=")
        .unwrap()
        .split_whitespace()
        .collect();
    let dockerfile = fs::read_to_string(workspace().join("Dockerfile")).unwrap();
    // The others are stages of this file.
    let mut images: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next())
        .filter(|image| image.contains(':'))
        .collect();
    images.sort_unstable();
    images.dedup();
    let expected: Vec<_> = images
        .iter()
        .map(|image| {
            let (name, _) = image.rsplit_once(':').unwrap();
            format!("{image}=docker-image://{name}@{digest}")
        })
        .collect();
    assert_eq!(contexts, expected);
}

#[test]
fn a_base_image_without_a_digest_stops_the_release() {
    let output = bases("<no value>");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no digest of"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn pages_of_an_archive_link_to_the_tag() {
    let mut child = script("links.sh")
        .arg("1.2.3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let page = "[a](docs/openim.md#openim-360) [b](https://openim.io/) [c](#install) ![d](docs/pictures/trace.png)\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let tag = "https://github.com/importguard/importguard/blob/v1.2.3";
    let expected = format!(
        "[a]({tag}/docs/openim.md#openim-360) [b](https://openim.io/) [c](#install) ![d]({tag}/docs/pictures/trace.png)\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
