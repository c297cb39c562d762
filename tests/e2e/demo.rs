//! `importguard demo`: what a newcomer sees first must be true, and must not leave anything behind.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use importguard_tests::{Binary, NatsServer, Process, SOON, eventually};
use tempfile::TempDir;

/// A short demonstration takes some seconds; a busy machine takes the rest.
const LONG: Duration = Duration::from_secs(120);

/// A demonstration whose temporary files are in `dir`.
fn demo(dir: &TempDir, nats_server: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(Binary::AllInOne.path());
    command
        .arg("demo")
        .arg("--nats-server")
        .arg(nats_server)
        .args(arguments)
        .env("TMPDIR", dir.path())
        // It must not publish to somebody's stream, or ask somebody's decider.
        .env("NATS_URL", "nats://127.0.0.1:1")
        .env("IMPORTGUARD_BASE_PATH", "/secret")
        .env_remove("RUST_LOG");
    let logs = dir.path().join("logs");
    fs::create_dir_all(&logs).unwrap();
    Process::spawn("demo", command, &logs)
}

/// What a demonstration left in its temporary directory.
fn left(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().display().to_string())
        .filter(|name| name != "logs" && name != "nats-server")
        .collect()
}

/// A nats-server that runs `commands` before it starts. These know its arguments, and its store as `$store`.
fn preceded(dir: &TempDir, commands: &str) -> PathBuf {
    let script = dir.path().join("nats-server");
    let program = NatsServer::program().display();
    // The last argument is the store.
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" != --version ]; then\n  for store; do :; done\n  {commands}\nfi\nexec {program} \"$@\"\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    script
}

/// Waits until the demonstration has printed `text`.
async fn wait_for(demo: &Process, text: &str) {
    eventually(text, LONG, async || match demo.stdout() {
        output if output.contains(text) => Ok(()),
        output => Err(output + &demo.stderr()),
    })
    .await;
}

#[tokio::test]
async fn every_import_is_answered_and_recorded_although_nats_is_killed() {
    let dir = TempDir::new().unwrap();
    let mut demo = demo(&dir, NatsServer::program(), &["--seconds", "30"]);
    let status = demo.exit(LONG).await;
    let output = demo.stdout();
    assert_eq!(status.code(), Some(0), "{output}{}", demo.stderr());
    for part in [
        "  refuse    blocked_user",
        "shadow big-import would refuse",
        "NATS is killed",
        "answered, event in the spool: ",
        "NATS is started again",
        "The shadow rule big-import would have changed ",
        "Nothing was lost: ",
    ] {
        assert!(output.contains(part), "no {part:?} in: {output}");
    }
    let all = output
        .lines()
        .find(|line| line.starts_with("all "))
        .unwrap();
    let counts: Vec<usize> = all
        .split_whitespace()
        .skip(1)
        .map(|count| count.parse().unwrap())
        .collect();
    let [asked, allow, modify, refuse, recorded] = counts[..] else {
        panic!("{all}");
    };
    assert!(asked > 20 && allow > 0 && modify > 0 && refuse > 0, "{all}");
    assert_eq!(recorded, asked, "{all}");
    assert_eq!(allow + modify + refuse, asked, "{all}");
    // Piped, there are no colours, and each decision is a line.
    assert!(!output.contains('\x1b'), "{output}");
    let shown = output.lines().filter(|line| line.contains("Z  ")).count();
    assert_eq!(shown, asked, "{output}");
    assert_eq!(left(&dir), [""; 0]);
}

#[tokio::test]
async fn an_event_that_is_lost_is_named_and_fails_the_demonstration() {
    let dir = TempDir::new().unwrap();
    let mut demo = demo(
        &dir,
        &preceded(&dir, r#"rm -rf "$store""#),
        &["--seconds", "20"],
    );
    let status = demo.exit(LONG).await;
    let output = demo.stdout();
    assert_eq!(status.code(), Some(1), "{output}{}", demo.stderr());
    // Which of them NATS had when it was killed is chance.
    assert!(output.contains(", but LOST"), "{output}");
    assert!(!output.contains("Nothing was lost"), "{output}");
}

#[tokio::test]
async fn ctrl_c_leads_to_the_table_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let mut demo = demo(&dir, NatsServer::program(), &["--seconds", "600"]);
    wait_for(&demo, "demo-0003").await;
    demo.sigint();
    let status = demo.exit(SOON).await;
    let output = demo.stdout();
    assert_eq!(status.code(), Some(0), "{output}{}", demo.stderr());
    assert!(output.contains("Nothing was lost: "), "{output}");
    assert_eq!(left(&dir), [""; 0]);
}

#[tokio::test]
async fn a_signal_that_interrupts_it_is_its_exit_code() {
    // The first signal does while nats-server starts, and the second while it starts again.
    for (hangs, begun) in [
        ("exec sleep 600", None),
        (
            "[ ! -e \"$store\" ] || exec sleep 600",
            Some("NATS is started again"),
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let mut demo = demo(&dir, &preceded(&dir, hangs), &["--seconds", "3"]);
        match begun {
            Some(text) => wait_for(&demo, text).await,
            None => {
                eventually("it starts", SOON, async || match left(&dir).is_empty() {
                    false => Ok(()),
                    true => Err("it has no directory"),
                })
                .await;
            }
        }
        let status = eventually("it ends", SOON, async || {
            let ended = demo.ended();
            if ended.is_none() {
                demo.sigterm();
            }
            ended.ok_or("it still runs")
        })
        .await;
        assert_eq!(status.code(), Some(143), "{}", demo.output());
        assert_eq!(left(&dir), [""; 0]);
    }
}

#[tokio::test]
async fn its_nats_server_has_no_port_that_another_process_can_take_meanwhile() {
    let dir = TempDir::new().unwrap();
    let [arguments, seen] = ["arguments", "seen"].map(|name| dir.path().join("logs").join(name));
    let waits = format!(
        "echo \"$@\" > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.05; done",
        arguments.display(),
        seen.display()
    );
    let mut demo = demo(&dir, &preceded(&dir, &waits), &["--seconds", "2"]);
    let given = eventually("nats-server has its arguments", SOON, async || {
        fs::read_to_string(&arguments)
    })
    .await;
    let port = given.split_once("--port ").unwrap().1;
    let port: i32 = port.split(' ').next().unwrap().parse().unwrap();
    let _taken = u16::try_from(port).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    fs::write(&seen, "").unwrap();
    let status = demo.exit(LONG).await;
    assert_eq!(status.code(), Some(0), "{}", demo.output());
}

#[test]
fn a_closed_pipe_leads_to_a_good_end_that_leaves_nothing_behind() {
    for lines in [0, 3, 12] {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(Binary::AllInOne.path());
        command
            .args(["demo", "--seconds", "20", "--nats-server"])
            .arg(NatsServer::program())
            .env("TMPDIR", dir.path())
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped());
        let mut demo = command.spawn().unwrap();
        let mut output = BufReader::new(demo.stdout.take().unwrap());
        for _ in 0..lines {
            output.read_line(&mut String::new()).unwrap();
        }
        drop(output);
        assert_eq!(demo.wait().unwrap().code(), Some(0), "after {lines}");
        assert_eq!(left(&dir), [""; 0], "after {lines}");
    }
}

#[tokio::test]
async fn files_are_kept_only_where_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let mut demo = demo(&dir, NatsServer::program(), &["--seconds", "2", "--keep"]);
    let status = demo.exit(LONG).await;
    assert_eq!(status.code(), Some(0), "{}", demo.output());
    let [kept] = &left(&dir)[..] else {
        panic!("{:?}", left(&dir));
    };
    let kept = dir.path().join(kept);
    for file in ["policy/policy.yaml", "spool", "nats", "nats-server.log"] {
        assert!(kept.join(file).exists(), "no {file}");
    }
    let told = format!("Kept: {}", kept.display());
    assert!(demo.stdout().contains(&told), "{}", demo.stdout());
    // nats-server has ended: nobody listens where it did.
    let url = demo.stdout();
    let address = url.lines().find(|line| line.contains("  NATS ")).unwrap();
    let address = address.split_whitespace().nth(1).unwrap();
    assert!(TcpStream::connect(address).is_err(), "{address}");
}

#[tokio::test]
async fn without_a_nats_server_it_says_how_to_get_one() {
    let dir = TempDir::new().unwrap();
    let mut missing = demo(&dir, &dir.path().join("nowhere"), &[]);
    assert_eq!(missing.exit(SOON).await.code(), Some(1));
    let there_is_none = format!("there is no {}", dir.path().join("nowhere").display());
    assert!(missing.stderr().contains(&there_is_none));
    let stderr = missing.stderr();
    assert!(stderr.contains("apt-get install nats-server"), "{stderr}");
    assert_eq!(left(&dir), [""; 0]);
}
