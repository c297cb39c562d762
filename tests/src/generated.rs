use std::{env, fs, path::Path};

/// Compares a generated file with what it is generated from, or writes it with `UPDATE=1`, as `tests/regen.sh` does.
#[track_caller]
pub fn assert_is_current(file: &Path, generated: &str) {
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(file, generated).unwrap();
    }
    assert!(
        fs::read_to_string(file).unwrap_or_default() == generated,
        "{} is not up to date; run tests/regen.sh",
        file.display()
    );
}
