//! Programs in other languages. Their packages are installed below `target/`, and again when their lock file changes.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::NamedTempFile;

/// A directory with a program and the packages it needs.
#[derive(Debug)]
pub struct Foreign {
    dir: PathBuf,
    interpreter: PathBuf,
}

impl Foreign {
    /// The program in the workspace's directory `source`, with the packages of its `package-lock.json`. If Node or the registry is
    /// unavailable, prints that and returns `None`.
    pub fn node(source: &str) -> Option<Self> {
        let there = ["node", "npm"].iter().all(|tool| runs(tool, "--version"));
        if !there {
            return skip(source, "node and npm are not installed");
        }
        let dir = installed(source, &["package-lock.json"], |dir| {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            run(npm.current_dir(dir))
        });
        match dir {
            Ok(dir) => Some(Self {
                dir,
                interpreter: "node".into(),
            }),
            Err(reason) => skip(source, &reason),
        }
    }

    /// The program in the workspace's directory `source`, in a virtual environment with the packages of its `requirements.txt`. If
    /// Python or the registry is unavailable, prints that and returns `None`.
    pub fn python(source: &str) -> Option<Self> {
        if !runs("python3", "--version") {
            return skip(source, "python3 is not installed");
        }
        let dir = installed(source, &["requirements.txt"], |dir| {
            run(Command::new("python3")
                .args(["-m", "venv", "venv"])
                .current_dir(dir))?;
            let mut pip = Command::new(dir.join("venv/bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check"]);
            run(pip.args(["-r", "requirements.txt"]).current_dir(dir))
        });
        match dir {
            Ok(dir) => Some(Self {
                interpreter: dir.join("venv/bin/python"),
                dir,
            }),
            Err(reason) => skip(source, &reason),
        }
    }

    /// The Go program in the workspace's directory `source`, built. If Go or a module is unavailable, prints that and returns `None`.
    pub fn go(source: &str) -> Option<Self> {
        if !runs("go", "version") {
            return skip(source, "go is not installed");
        }
        let dir = installed(source, &["go.sum", "main.go"], |dir| {
            // No other module or workspace around it counts.
            let build = ["build", "-mod=readonly", "-o", "program", "."];
            run(Command::new("go")
                .args(build)
                .env("GOWORK", "off")
                .env_remove("GOFLAGS")
                .current_dir(dir))
        });
        match dir {
            Ok(dir) => Some(Self {
                interpreter: dir.join("program"),
                dir,
            }),
            Err(reason) => skip(source, &reason),
        }
    }

    /// Runs the program that was built.
    pub fn program(&self) -> Command {
        Command::new(&self.interpreter)
    }

    /// Runs the program `file`.
    pub fn command(&self, file: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(self.dir.join(file));
        command
    }
}

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

/// A copy of the files in `source`, in which its packages are installed; or why they cannot be.
fn installed(
    source: &str,
    lock_files: &[&str],
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let source_dir = workspace().join(source);
    let mut hash = DefaultHasher::new();
    for file in lock_files {
        let content = fs::read(source_dir.join(file));
        let content = content.unwrap_or_else(|error| panic!("{source}/{file}: {error}"));
        content.hash(&mut hash);
    }
    let name = format!("{}-{:016x}", source.replace('/', "-"), hash.finish());
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    let dir = target.join("foreign").join(name);
    fs::create_dir_all(&dir).expect("target/ can be written");
    // Whoever comes second waits here, in this process and in others.
    let guard = File::create(dir.join(".lock")).expect("target/ can be written");
    guard.lock().expect("target/ can be locked");
    for entry in fs::read_dir(&source_dir).expect("the program's directory can be read") {
        let file = entry.expect("the program's directory can be read").path();
        if let (true, Some(name)) = (file.is_file(), file.file_name()) {
            replace(&file, &dir.join(name)).expect("target/ can be written");
        }
    }
    let done = dir.join(".installed");
    if !done.exists() {
        install(&dir)?;
        fs::write(done, "").expect("target/ can be written");
    }
    Ok(dir)
}

/// Copies a file so that another test, which may run the program at this moment, finds the old one or the new one, and never a part.
fn replace(file: &Path, target: &Path) -> io::Result<()> {
    let directory = target.parent().unwrap_or(Path::new("."));
    let copy = NamedTempFile::new_in(directory)?;
    fs::copy(file, copy.path())?;
    copy.persist(target)?;
    Ok(())
}

fn runs(tool: &str, argument: &str) -> bool {
    Command::new(tool)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} can't be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    ))
}

fn skip(source: &str, reason: &str) -> Option<Foreign> {
    eprintln!("SKIPPED: {source} is not tested, as {reason}");
    None
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_program_that_is_installed_once_more_is_never_read_in_part() {
        let directory = tempdir().unwrap();
        let (source, target) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&source, vec![b'x'; 1 << 20]).unwrap();
        replace(&source, &target).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    replace(&source, &target).unwrap();
                }
            });
            for _ in 0..200 {
                assert_eq!(fs::read(&target).unwrap().len(), 1 << 20);
            }
        });
    }
}
