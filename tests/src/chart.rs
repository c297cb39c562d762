//! The Helm chart in `deploy/helm/importguard`, rendered by `helm template`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{Foreign, Manifests, tool, workspace};

/// The chart's directory in the workspace.
const CHART: &str = "deploy/helm/importguard";

/// For which Kubernetes it is rendered. A helm that is not built by its project's Makefile would take 1.20.
const KUBE_VERSION: &str = "1.37.0";

/// The chart, and what renders and checks it.
#[derive(Debug)]
pub struct Chart {
    helm: PathBuf,
    python: Foreign,
}

impl Chart {
    /// If helm or the schemas of Kubernetes are unavailable, prints that and returns `None`.
    pub fn new() -> Option<Self> {
        Some(Self {
            helm: tool("helm", "HELM", CHART)?,
            python: Foreign::python("tests/kubernetes")?,
        })
    }

    /// A file of the chart.
    pub fn file(name: &str) -> PathBuf {
        workspace().join(CHART).join(name)
    }

    /// What a release `importguard` in the namespace `importguard` consists of. This does not validate; [`Self::conform`] does.
    ///
    /// # Errors
    /// What helm printed, if it failed or warned.
    pub fn render(&self, values: &Value) -> Result<Manifests, String> {
        self.release("importguard", values)
    }

    /// The same for a release of another name.
    ///
    /// # Errors
    /// What helm printed, if it failed or warned.
    pub fn release(&self, name: &str, values: &Value) -> Result<Manifests, String> {
        self.rendered(&["template", name, CHART, "--skip-tests"], values)
    }

    /// What `helm test` adds to the release `importguard`.
    ///
    /// # Errors
    /// What helm printed, if it failed or warned.
    pub fn test_objects(&self, values: &Value) -> Result<Manifests, String> {
        let file = "templates/tests/import.yaml";
        self.rendered(
            &["template", "importguard", CHART, "--show-only", file],
            values,
        )
    }

    fn rendered(&self, arguments: &[&str], values: &Value) -> Result<Manifests, String> {
        let rendered = self.run(arguments, values);
        if !rendered.status.success() || !rendered.stderr.is_empty() {
            return Err(String::from_utf8_lossy(&rendered.stderr).into_owned());
        }
        Ok(Manifests::read(&self.python, CHART, &rendered.stdout, &[]))
    }

    /// Runs `helm lint`, for which a warning is an error, too.
    pub fn lint(&self, values: &Value) -> Output {
        self.run(&["lint", "--strict", CHART], values)
    }

    /// Checks a release by kubeconform, with the schemas of a version of Kubernetes that refuse unknown fields. `None` if it is not
    /// installed; then that is printed.
    pub fn conform(&self, values: &Value, version: &str) -> Option<Output> {
        let kubeconform = tool("kubeconform", "KUBECONFORM", CHART)?;
        let rendered = self.run(&["template", "importguard", CHART], values);
        assert!(rendered.status.success(), "{rendered:?}");
        let mut schemas = self.python.command("schemas.py");
        let schemas = schemas.arg(version).output().expect("Python can be run");
        assert!(schemas.status.success(), "{schemas:?}");
        let schemas = String::from_utf8(schemas.stdout).expect("a path");
        let location = Path::new(schemas.trim()).join("{{.ResourceKind}}{{.KindSuffix}}.json");
        let mut command = Command::new(kubeconform);
        command
            .args([
                "-strict",
                "-summary",
                "-skip",
                "ServiceMonitor,PrometheusRule",
            ])
            .arg("-schema-location")
            .arg(location);
        Some(piped(&mut command, &rendered.stdout))
    }

    fn run(&self, arguments: &[&str], values: &Value) -> Output {
        let mut command = Command::new(&self.helm);
        command
            .args(arguments)
            .args([
                "--namespace",
                "importguard",
                "--kube-version",
                KUBE_VERSION,
                "--values",
                "-",
            ])
            .current_dir(workspace());
        piped(&mut command, values.to_string().as_bytes())
    }
}

/// Runs a command with this on its standard input.
fn piped(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut pipe = child.stdin.take().expect("it is a pipe");
    pipe.write_all(input).expect("it is read");
    drop(pipe);
    child.wait_with_output().expect("it ends")
}
