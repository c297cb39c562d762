//! The manifests in `deploy/kubernetes`, rendered by `kubectl kustomize`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Foreign, tool, workspace};

/// The oldest supported version of Kubernetes, and the newest with available schemas.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// The first version of kustomize that supports the manifests.
const KUSTOMIZE: u64 = 5;

/// A copy of `deploy/kubernetes`, to which a test adds directories of its own, as an operator does.
#[derive(Debug)]
pub struct Kustomize {
    tree: TempDir,
    kubectl: PathBuf,
    python: Foreign,
}

impl Kustomize {
    /// A copy, or `None` if kubectl or the schemas of Kubernetes are unavailable; then it prints that.
    pub fn new() -> Option<Self> {
        let source = "deploy/kubernetes";
        let kubectl = tool("kubectl", "KUBECTL", source)?;
        if !is_new_enough(&kubectl) {
            eprintln!(
                "SKIPPED: {source} is not tested, as kubectl is older than kustomize {KUSTOMIZE}"
            );
            return None;
        }
        let python = Foreign::python("tests/kubernetes")?;
        let tree = TempDir::new().expect("a temporary directory");
        for part in [source, "policy"] {
            copy(&workspace().join(part), &tree.path().join(part));
        }
        Some(Self {
            tree,
            kubectl,
            python,
        })
    }

    /// Writes a file below `deploy/kubernetes`.
    pub fn write(&self, path: &str, content: &str) {
        let file = self.directory(path);
        let parent = file.parent().expect("it is in a directory");
        fs::create_dir_all(parent).expect("the copy can be written");
        fs::write(file, content).expect("the copy can be written");
    }

    /// Reads a file below `deploy/kubernetes`.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.directory(path)).expect("it is there")
    }

    /// The names of the components.
    pub fn components(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory("components")).expect("there are components");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    /// Renders a directory below `deploy/kubernetes`, and validates each resource against Kubernetes' schemas.
    ///
    /// # Errors
    /// What kubectl printed, if it failed or warned.
    pub fn render(&self, directory: &str) -> Result<Manifests, String> {
        self.rendered(directory, &VERSIONS)
    }

    fn rendered(&self, directory: &str, versions: &[&str]) -> Result<Manifests, String> {
        let mut command = Command::new(&self.kubectl);
        let rendered = command
            .arg("kustomize")
            .arg(self.directory(directory))
            .output()
            .expect("kubectl can be run");
        // It warns of what will not be read any more one day.
        if !rendered.status.success() || !rendered.stderr.is_empty() {
            return Err(String::from_utf8_lossy(&rendered.stderr).into_owned());
        }
        Ok(Manifests::read(
            &self.python,
            directory,
            &rendered.stdout,
            versions,
        ))
    }

    /// Renders the base with components, as `mine`, which sets the namespace and adds `lines` to its kustomization. This does not
    /// validate, which takes seconds.
    ///
    /// # Errors
    /// What kubectl printed, if it failed or warned.
    pub fn base_with<T: AsRef<str>>(
        &self,
        components: &[T],
        lines: &str,
    ) -> Result<Manifests, String> {
        let listed: String = components
            .iter()
            .map(|name| format!("  - ../components/{}\n", name.as_ref()))
            .collect();
        let kustomization = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: importguard\nresources: [../base]\n\
             components:\n{listed}{lines}"
        );
        self.write("mine/kustomization.yaml", &kustomization);
        self.rendered("mine", &[])
    }

    fn directory(&self, path: &str) -> PathBuf {
        self.tree.path().join("deploy/kubernetes").join(path)
    }
}

/// The resources of a directory below `deploy/kubernetes`.
#[derive(Debug)]
pub struct Manifests {
    directory: String,
    resources: Vec<Value>,
}

impl Manifests {
    /// The resources in `yaml`, which `directory` renders to. Panics if one is not valid in these versions of Kubernetes, whose schemas
    /// `python` has.
    pub(crate) fn read(python: &Foreign, directory: &str, yaml: &[u8], versions: &[&str]) -> Self {
        let mut check = python
            .command("check.py")
            .args(versions)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python can be run");
        let mut input = check.stdin.take().expect("it is a pipe");
        input.write_all(yaml).expect("it is read");
        drop(input);
        let checked = check.wait_with_output().expect("Python ends");
        let output = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{directory}: {output}");
        let resources = serde_json::from_slice(&checked.stdout);
        let resources = resources.unwrap_or_else(|error| {
            let output = String::from_utf8_lossy(&checked.stdout);
            panic!("{directory}: check.py printed no JSON: {error}: {output:?}")
        });
        Self {
            directory: directory.to_owned(),
            resources,
        }
    }

    /// Their directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// All of them.
    pub fn resources(&self) -> &[Value] {
        &self.resources
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

/// Copies a directory with all that is in it.
pub(crate) fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target).expect("a temporary directory");
    for entry in fs::read_dir(source).expect("it can be read") {
        let entry = entry.expect("it can be read");
        let target = target.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
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
