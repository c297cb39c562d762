//! Programs that take the place of others for a script, and a copy of the repository for it to change.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use importguard_tests::workspace;
use tempfile::TempDir;

/// A directory with programs, which are shell scripts.
pub(crate) struct FakePrograms(TempDir);

impl FakePrograms {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Adds a program. It appends its name and arguments to [`calls`](Self::calls), then runs `script`.
    pub(crate) fn with(self, name: &str, script: &str) -> Self {
        let log = self.0.path().join("calls").display().to_string();
        write_program(
            &self.0.path().join(name),
            &format!("echo {name} \"$*\" >>'{log}'\n{script}"),
        );
        self
    }

    /// Adds a program that is installed here.
    pub(crate) fn with_installed(self, name: &str) -> Self {
        let paths = env::var_os("PATH").unwrap();
        let mut found = env::split_paths(&paths).map(|dir| dir.join(name));
        let program = found.find(|file| file.is_file()).unwrap();
        std::os::unix::fs::symlink(program, self.0.path().join(name)).unwrap();
        self
    }

    /// The script `file`, which finds these programs before others.
    pub(crate) fn run(&self, file: &Path) -> Command {
        let mut command = Command::new(file);
        command.stdin(Stdio::null());
        let others = env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{others}", self.0.path().display()));
        command
    }

    /// The script `file`, which finds these programs and no others, with an empty environment.
    pub(crate) fn run_alone(&self, file: &Path) -> Command {
        let mut command = Command::new(file);
        command.stdin(Stdio::null());
        command.env_clear().env("PATH", self.0.path());
        command
    }

    /// A line for each time that one of them was run.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.0.path().join("calls")).unwrap_or_default()
    }
}

/// Writes a program that is a shell script.
pub(crate) fn write_program(file: &Path, script: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The repository as of its last commit, with the scripts of this work tree.
pub(crate) struct Copy {
    dir: TempDir,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let copy = Self {
            // Scripts work in any directory.
            dir: TempDir::with_prefix("a b").unwrap(),
        };
        let cloned = Command::new("git")
            .args(["clone", "--quiet", "--shared"])
            .args([workspace().as_os_str(), copy.dir.path().as_os_str()])
            .status();
        assert!(cloned.unwrap().success());
        for script in fs::read_dir(workspace().join("release")).unwrap() {
            let script = script.unwrap();
            let to = copy.file("release").join(script.file_name());
            fs::copy(script.path(), to).unwrap();
        }
        copy
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.file(name).parent().unwrap()).unwrap();
        fs::write(self.file(name), text).unwrap();
    }

    /// The version of the last commit, which is not that of the work tree when a release is prepared.
    pub(crate) fn version(&self) -> String {
        let manifest = self.read("Cargo.toml");
        let (_, version) = manifest.split_once("\nversion = \"").unwrap();
        version.split('"').next().unwrap().to_owned()
    }
}
