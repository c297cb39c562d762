//! A reader that stops reading, like `head`, ends a command quietly and well.

use std::process::{Command, Output, Stdio};

use importguard_tests::{Binary, Line, Settings};

/// Runs `importguard ARGUMENTS` with a standard output that nobody reads any more.
fn unread(settings: &Settings, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = settings.command(Binary::AllInOne.path());
    let command: &mut Command = command.args(arguments).stdout(writer);
    command.stderr(Stdio::piped()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_any_command_end_it_with_0_and_without_an_error() {
    let line = Line::start().await;
    line.gateway.wait_for_recorder("streaming").await;
    let settings = Settings::new()
        .nats(&line.nats)
        .set("IMPORTGUARD_PSEUDONYM_KEY", "a key that nobody guesses");
    let url = line.gateway.url();
    let add = ["list", "add", "blocked", "u1", "--by", "me"];
    tokio::task::block_in_place(|| unread(&settings, &add));
    for arguments in [
        &["list", "show"][..],
        &["list", "show", "blocked"],
        &["list", "show", "blocked", "u1"],
        &["list", "export", "blocked"],
        &["list", "history", "blocked"],
        &["pseudonym", "u1", "u2"],
        &["doctor", &url],
        &["stats"],
        &["tail", "--no-follow"],
    ] {
        let output = tokio::task::block_in_place(|| unread(&settings, arguments));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("pipe"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn but_a_full_disk_is_an_error_that_names_standard_output() {
    let settings = Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY", "a key that nobody guesses");
    for arguments in [&["pseudonym", "u1"][..], &["policy", "digest"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = settings.command(Binary::AllInOne.path());
        let policy = importguard_tests::workspace().join("policy/policy.yaml");
        command.args(arguments).env("IMPORTGUARD_POLICY", policy);
        let output = command.stdout(full.unwrap()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("standard output"),
            "{arguments:?}: {stderr}"
        );
    }
}
