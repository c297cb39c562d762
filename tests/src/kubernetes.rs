//! The manifests in `deploy/kubernetes`, rendered by `kubectl kustomize`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Foreign, tool, workspace};

/// The oldest supported version of Kubernetes, and the newest with available schemas.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// The first version of kustomize that supports the manifests.
const KUSTOMIZE: u64 = 5;

/// The resources of a directory below `deploy/kubernetes`.
#[derive(Debug)]
pub struct Manifests {
    directory: String,
    resources: Vec<Value>,
}

impl Manifests {
    /// Renders `directory` and validates each resource against Kubernetes' schemas. If kubectl or the schemas are unavailable, prints
    /// that and returns `None`.
    pub fn render(directory: &str) -> Option<Self> {
        let source = format!("deploy/kubernetes/{directory}");
        let kubectl = tool("kubectl", "KUBECTL", &source)?;
        if !is_new_enough(&kubectl) {
            eprintln!(
                "SKIPPED: {source} is not tested, as kubectl is older than kustomize {KUSTOMIZE}"
            );
            return None;
        }
        let python = Foreign::python("tests/kubernetes")?;
        let mut command = Command::new(kubectl);
        let rendered = command
            .args(["kustomize", &source])
            .current_dir(workspace())
            .output()
            .expect("kubectl can be run");
        let said = String::from_utf8_lossy(&rendered.stderr);
        // It warns of what it will not read any more one day.
        assert!(said.is_empty(), "{source}: {said}");
        let mut check = python
            .command("check.py")
            .args(VERSIONS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python can be run");
        let mut input = check.stdin.take().expect("it is a pipe");
        input.write_all(&rendered.stdout).expect("it is read");
        drop(input);
        let checked = check.wait_with_output().expect("Python ends");
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{source}: {said}");
        let resources = serde_json::from_slice(&checked.stdout).expect("JSON");
        Some(Self {
            directory: directory.to_owned(),
            resources,
        })
    }

    /// Their directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// All of `kind`.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let resources = self.resources.iter();
        resources.filter(move |resource| resource["kind"] == kind)
    }

    /// The one of `kind` that has this name.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let mut resources = self.resources.iter();
        resources
            .find(|resource| resource["kind"] == kind && resource["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }
}

fn is_new_enough(kubectl: &Path) -> bool {
    let output = Command::new(kubectl)
        .args(["version", "--client", "--output=json"])
        .output()
        .expect("kubectl can be run");
    let version: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let major = version["kustomizeVersion"].as_str().and_then(|version| {
        let (major, _) = version.trim_start_matches('v').split_once('.')?;
        major.parse::<u64>().ok()
    });
    major.is_some_and(|major| major >= KUSTOMIZE)
}
