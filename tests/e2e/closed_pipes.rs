//! A reader that stops reading, like `head`, ends a command quietly and well, but not the changes that it makes.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

use importguard_tests::{Binary, Line, NatsServer, Settings, create_stream};

use crate::asserts::printed;

/// Runs `importguard ARGUMENTS` with a standard output that nobody reads any more.
fn unread(settings: &Settings, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    printing_to(writer, settings, arguments)
}

/// Runs `importguard ARGUMENTS` with a standard output on a full disk.
fn to_a_full_disk(settings: &Settings, arguments: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    printing_to(full, settings, arguments)
}

fn printing_to(stdout: impl Into<Stdio>, settings: &Settings, arguments: &[&str]) -> Output {
    let mut command = settings.command(Binary::AllInOne.path());
    let command: &mut Command = command.args(arguments).stdout(stdout);
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
    let policy = importguard_tests::workspace().join("policy/policy.yaml");
    let settings = Settings::new()
        .set("IMPORTGUARD_PSEUDONYM_KEY", "a key that nobody guesses")
        .set("IMPORTGUARD_POLICY", policy.display().to_string());
    for arguments in [&["pseudonym", "u1"][..], &["policy", "digest"]] {
        let output = to_a_full_disk(&settings, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("standard output"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_list_are_completed_whether_or_not_they_can_be_printed() {
    let nats = NatsServer::start().await;
    create_stream(nats.client().await, |_| ()).await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_LIST_BY", "alice");
    let run = |run: fn(&Settings, &[&str]) -> Output, arguments: &[&str], code| {
        tokio::task::block_in_place(|| printed(&run(&settings, arguments), code).1)
    };
    let listed = async || {
        let output = settings.run(["list", "export", "bad", "--ids"]).await;
        let mut ids: Vec<_> = printed(&output, 0).0.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let stderr = run(unread, &["list", "add", "bad", "u1", "u2", "u3", "u4"], 0);
    assert!(!stderr.contains("pipe"), "{stderr}");
    assert_eq!(listed().await, ["u1", "u2", "u3", "u4"]);
    let stderr = run(
        to_a_full_disk,
        &["list", "remove", "bad", "u1", "u2", "u3"],
        1,
    );
    assert!(stderr.contains("standard output"), "{stderr}");
    assert_eq!(listed().await, ["u4"]);
    // It has not been on the list.
    run(unread, &["list", "remove", "bad", "u1"], 1);
}
