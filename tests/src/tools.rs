use std::{
    env,
    path::{Path, PathBuf},
};

/// The program `name`: from the environment variable `variable`, or from the PATH. If it is not installed, prints that `what` is not
/// tested, and returns `None`; if the environment variable `TESTS_REQUIRE` lists it, panics.
pub fn tool(name: &str, variable: &str, what: &str) -> Option<PathBuf> {
    let found = match env::var_os(variable) {
        Some(path) => Some(path.into()),
        None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(name))
            .find(|file: &PathBuf| Path::is_file(file)),
    };
    if found.is_none() {
        assert!(
            !is_required(name),
            "{what}: {name} is not installed ({variable} can name it)"
        );
        skip(
            what,
            &format!("{name} is not installed ({variable} can name it)"),
        );
    }
    found
}

/// Whether `TESTS_REQUIRE` lists the program: without it, its tests fail instead of being left out.
pub(crate) fn is_required(name: &str) -> bool {
    let required = env::var("TESTS_REQUIRE").unwrap_or_default();
    required.split_whitespace().any(|tool| tool == name)
}

/// Prints that `what` is not tested here.
pub fn skip(what: &str, why: &str) {
    eprintln!("SKIPPED: {what} is not tested, as {why}");
}
