//! The scripts in `release/`, as far as they run without a registry and without building a release.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use importguard_tests::workspace;

use crate::fake_programs::{Copy, FakePrograms, write_program};

const IMAGES: [&str; 3] = ["importguard", "importguard-gateway", "importguard-decider"];

fn script(name: &str) -> Command {
    let mut command = Command::new(workspace().join("release").join(name));
    command.stdin(Stdio::null());
    command
}

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An example of a digest.
fn digest() -> String {
    format!("sha256:{}", "0123456789abcdef".repeat(4))
}

/// `docker`, in whose registry every image has this digest.
fn docker(digest: &str) -> FakePrograms {
    // As buildx before 0.33 does, it prints a table for a format that begins like that of the whole manifest.
    let script = format!(
        "case \"$*\" in
            *'--format {{{{.Manifest'*) printf 'Name: an image\\nDigest: {digest}\\n' ;;
            *inspect*) echo '{digest}' ;;
            *--dry-run*) echo '{{ \"manifests\": [] }}' ;;
        esac"
    );
    FakePrograms::new().with("docker", &script)
}

#[test]
fn every_file_has_the_version_of_the_workspace() {
    let output = script("set_version.sh").arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn every_file_has_the_oldest_rust_that_works() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let workflows = fs::read_dir(workspace().join(".github/workflows")).unwrap();
    let workflows: String = workflows
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for (name, text, before, after) in [
        ("fuzz", read("fuzz/Cargo.toml"), "rust-version = \"", "\""),
        ("workflows", workflows, "RUSTUP_TOOLCHAIN: ", ".0\n"),
        ("Dockerfile", read("Dockerfile"), "FROM rust:", ".0-"),
        ("README.md", read("README.md"), " Rust ", " or later"),
        (
            "CONTRIBUTING.md",
            read("CONTRIBUTING.md"),
            " Rust ",
            " or later",
        ),
    ] {
        let is_version = |text: &&str| text.starts_with(|first: char| first.is_ascii_digit());
        let versions: Vec<_> = text.split(before).skip(1).filter(is_version).collect();
        assert!(!versions.is_empty(), "{name}: {before}");
        let expected = format!("{oldest}{after}");
        for found in versions {
            let line = found.lines().next();
            assert!(found.starts_with(&expected), "{name}: {line:?}");
        }
    }
}

#[test]
fn notices_accept_the_licences_that_dependencies_may_have() {
    let list = |file: &str, key: &str| {
        let text = read(file);
        let (_, list) = text.split_once(&format!("\n{key} = [\n")).unwrap();
        list.split_once(']').unwrap().0.to_owned()
    };
    assert_eq!(
        list("deny.toml", "allow"),
        list("release/about.toml", "accepted")
    );
}

/// Any file: one that has the current version in other lines, and one that has only this. A version is compared as a whole.
#[test]
fn one_stale_version_in_a_file_is_found() {
    let copy = Copy::new();
    let checked = || {
        let mut command = Command::new(copy.file("release/set_version.sh"));
        command.arg("--check").output().unwrap()
    };
    assert!(checked().status.success(), "{}", stderr(&checked()));
    let version = copy.version();
    for stale in [
        "0.0.9".to_owned(),
        format!("{version}-rc.1"),
        format!("1{version}"),
        format!("{version}9"),
    ] {
        let current = format!("importguard-gateway:{version}\n");
        let compositions = copy.read("docker-compose.yml");
        assert!(compositions.contains(&current), "{compositions}");
        let other = compositions.replace(&current, &format!("importguard-gateway:{stale}\n"));
        copy.write("docker-compose.yml", &other);
        copy.write(
            "docs/helm.md",
            &format!("docker build -t importguard:{stale} .\n"),
        );
        let output = checked();
        assert_eq!(output.status.code(), Some(1), "{stale}");
        for expected in ["docker-compose.yml:26:", "docs/helm.md:1:"] {
            assert!(
                stderr(&output).contains(expected),
                "{stale}: {}",
                stderr(&output)
            );
        }
        copy.write("docker-compose.yml", &compositions);
    }
}

#[test]
fn a_new_version_replaces_importguards_and_no_other() {
    let copy = Copy::new();
    let version = copy.version();
    let page =
        "A library's {} is not importguard:{}, and importguard-{}-x86_64 no upgrade from {}.\n";
    copy.write("docs/helm.md", &page.replace("{}", &version));
    copy.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\nMuch.\n");
    let programs = FakePrograms::new().with("cargo", "");
    let set = |version: &str| {
        let mut script = programs.run(&copy.file("release/set_version.sh"));
        script.arg(version).output().unwrap()
    };
    let output = set("7.8.9-rc.1");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(copy.version(), "7.8.9-rc.1");
    assert_eq!(
        copy.read("docs/helm.md"),
        format!(
            "A library's {version} is not importguard:7.8.9-rc.1, and importguard-7.8.9-rc.1-x86_64 no upgrade from {version}.\n"
        )
    );
    assert!(copy.read("CHANGELOG.md").contains("\n## 7.8.9-rc.1 - 20"));
    // The preview has taken the section.
    let output = set("7.8.9");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no section Unreleased"),
        "{}",
        stderr(&output)
    );
    assert_eq!(copy.version(), "7.8.9-rc.1");
}

#[test]
fn a_tag_that_is_not_the_version_is_refused() {
    let output = script("version.sh").arg("v99.0.0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("Cargo.toml has version {}", env!("CARGO_PKG_VERSION"));
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn a_version_is_released_once() {
    let copy = Copy::new();
    let version = copy.version();
    copy.write("CHANGELOG.md", &format!("## {version} - 2026-01-01\n"));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let done = command.current_dir(copy.file("")).args(arguments).status();
        assert!(done.unwrap().success(), "{arguments:?}");
    };
    git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
    let check = |gh: &str| {
        let programs = FakePrograms::new().with("gh", gh);
        let mut script = programs.run(&copy.file("release/version.sh"));
        script.arg(format!("v{version}")).output().unwrap()
    };
    let output = check(&format!("echo v{version}-rc.1; echo v1{version}"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("{version}\n"));
    for (gh, expected) in [
        (
            format!("echo v99.0.0; echo v{version}"),
            "is released already",
        ),
        ("exit 4".to_owned(), "does not list the releases"),
    ] {
        let output = check(&gh);
        assert_eq!(output.status.code(), Some(1), "{gh}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn every_base_image_is_replaced_by_its_digest() {
    let digest = digest();
    let programs = docker(&digest);
    let output = programs
        .run(&workspace().join("release/bases.sh"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    let contexts: Vec<_> = printed
        .strip_prefix("contexts=")
        .unwrap()
        .split_whitespace()
        .collect();
    let dockerfile = read("Dockerfile");
    // The others are stages of this file.
    let mut images: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next())
        .filter(|image| image.contains(':'))
        .collect();
    images.sort_unstable();
    images.dedup();
    let expected: Vec<_> = images
        .iter()
        .map(|image| {
            let (name, _) = image.rsplit_once(':').unwrap();
            format!("{image}=docker-image://{name}@{digest}")
        })
        .collect();
    assert_eq!(contexts, expected);
}

#[test]
fn a_base_image_without_a_digest_stops_the_release() {
    let programs = docker("<no value>");
    let output = programs
        .run(&workspace().join("release/bases.sh"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no digest of"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}

/// `release/publish_images.sh` after both architectures of each image were built.
fn publish_images(programs: &FakePrograms) -> Output {
    let copy = Copy::new();
    for image in IMAGES {
        for architecture in ["amd64", "arm64"] {
            copy.write(&format!("target/digests/{image}-{architecture}"), &digest());
        }
    }
    let mut script = programs.run(&copy.file("release/publish_images.sh"));
    script
        .env("GITHUB_REPOSITORY_OWNER", "importguard")
        .output()
        .unwrap()
}

#[test]
fn images_are_signed_by_digest_and_have_no_tag_yet() {
    let digest = digest();
    let programs = docker(&digest).with("cosign", "");
    let output = publish_images(&programs);
    assert!(output.status.success(), "{}", stderr(&output));
    let calls = programs.calls();
    for image in IMAGES {
        let signed =
            format!("cosign sign --yes --recursive ghcr.io/importguard/{image}@{digest}\n");
        assert!(calls.contains(&signed), "{calls}");
        assert!(
            stdout(&output).contains(&format!("{image}={digest}\n")),
            "{output:?}"
        );
    }
    let images = IMAGES.map(|image| format!("{image}@{digest}")).join(" ");
    assert!(
        stdout(&output).contains(&format!("images={images}\n")),
        "{output:?}"
    );
    for image in IMAGES {
        let tag = format!("--tag ghcr.io/importguard/{image}:");
        assert!(!calls.contains(&tag), "{calls}");
    }
    // The bill of materials of an archive is none of an image; BuildKit makes those.
    assert!(!calls.contains("attest"), "{calls}");
}

#[test]
fn an_image_without_a_digest_is_not_signed() {
    let programs = docker("<no value>").with("cosign", "");
    let output = publish_images(&programs);
    assert_eq!(output.status.code(), Some(1));
    assert!(!programs.calls().contains("cosign"), "{}", programs.calls());
}

#[test]
fn only_the_newest_release_is_the_latest() {
    for (version, expected) in [
        ("0.9.1", "--latest=false"),
        ("0.10.1", "--latest=true"),
        ("1.0.0-rc.1", "--prerelease"),
    ] {
        let copy = Copy::new();
        copy.write("target/dist/a.tar.gz", "");
        copy.write("target/dist/a.cdx.json", "");
        let programs = FakePrograms::new().with("cosign", "").with(
            "gh",
            "if [ \"$2\" = list ]; then echo v0.9.0; echo v0.10.0; fi",
        );
        let mut script = programs.run(&copy.file("release/publish_archives.sh"));
        let output = script.env("VERSION", version).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let calls = programs.calls();
        let created = calls
            .lines()
            .find(|call| call.starts_with("gh release create"));
        assert!(calls.contains(expected), "{version}: {created:?}");
    }
}

#[test]
fn the_tag_latest_is_that_of_the_latest_release() {
    let digest = digest();
    for (version, is_latest) in [("0.10.0", true), ("0.9.1", false)] {
        let programs = docker(&digest).with("gh", "echo v0.10.0");
        let output = programs
            .run(&workspace().join("release/tag_images.sh"))
            .env("VERSION", version)
            .env("GITHUB_REPOSITORY_OWNER", "importguard")
            .env(
                "IMAGES",
                IMAGES.map(|image| format!("{image}@{digest}")).join(" "),
            )
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let calls = programs.calls();
        for image in IMAGES {
            let name = format!("ghcr.io/importguard/{image}");
            let latest = if is_latest {
                format!(" --tag {name}:latest")
            } else {
                String::new()
            };
            let tagged = format!("create --tag {name}:{version}{latest} {name}@{digest}\n");
            assert!(calls.contains(&tagged), "{calls}");
        }
    }
}

/// `release/archive.sh` after an earlier build, with a cargo that compiles nothing and a `readelf` that is this script.
fn archive(copy: &Copy, readelf: &str) -> Output {
    for program in IMAGES {
        copy.write(&format!("target/a-target/release/{program}"), "old\n");
    }
    let cargo = "dir=${CARGO_TARGET_DIR:-target}
        while [ $# -gt 0 ]; do [ \"$1\" != --target-dir ] || dir=$2; shift; done
        mkdir -p \"$dir/a-target/release\"
        for program in importguard importguard-gateway importguard-decider; do
            echo new >\"$dir/a-target/release/$program\"
        done";
    let cyclonedx = copy.file("target/cargo-cyclonedx");
    write_program(&cyclonedx, "echo '{}' >sbom.json");
    let tool = format!("echo '{}'", cyclonedx.display());
    write_program(&copy.file("tests/tool.sh"), &tool);
    let notices = "mkdir -p target/dist && echo notices >target/dist/THIRD-PARTY-NOTICES.txt";
    write_program(&copy.file("release/notices.sh"), notices);
    let programs = FakePrograms::new()
        .with("cargo", cargo)
        .with("readelf", readelf);
    let mut script = programs.run(&copy.file("release/archive.sh"));
    script
        .arg("a-target")
        .env("CARGO_TARGET_DIR", copy.file("elsewhere"))
        .output()
        .unwrap()
}

#[test]
fn an_archive_has_the_programs_that_were_just_built() {
    let copy = Copy::new();
    let output = archive(&copy, "echo 'There is no dynamic section in this file.'");
    assert!(output.status.success(), "{}", stderr(&output));
    let name = format!("importguard-{}-a-target", copy.version());
    for program in IMAGES {
        let packed = copy.read(&format!("target/dist/{name}/{program}"));
        assert_eq!(packed, "new\n", "{program}");
    }
    assert!(Path::is_file(
        &copy.file(&format!("target/dist/{name}.tar.gz"))
    ));
}

#[test]
fn only_static_programs_are_packed() {
    for readelf in [
        "exit 127",
        "echo '0x0000000000000001 (NEEDED) Shared library: [libc.so.6]'",
    ] {
        let copy = Copy::new();
        let output = archive(&copy, readelf);
        assert!(!output.status.success(), "{readelf}: {}", stdout(&output));
    }
}

/// The copy's directory has one.
#[test]
fn the_compiler_is_trained_in_a_directory_with_a_space() {
    let copy = Copy::new();
    let profdata = copy.file("rust/lib/rustlib/a-host/bin/llvm-profdata");
    write_program(&profdata, "");
    write_program(&copy.file("target/pgo/release/importguard-bench"), "");
    let rustc = format!(
        "if [ \"$1\" = -vV ]; then echo 'host: a-host'; else echo '{}'; fi",
        copy.file("rust").display()
    );
    let cargo = "echo \"flags: $CARGO_ENCODED_RUSTFLAGS\" >>flags";
    let programs = FakePrograms::new()
        .with("rustc", &rustc)
        .with("cargo", cargo);
    let mut script = programs.run(&copy.file("release/profile.sh"));
    let output = script.env("NATS_SERVER", "true").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let raw = copy.file("target/pgo/raw");
    let expected = format!("flags: -Cprofile-generate={}\nflags: \n", raw.display());
    assert_eq!(copy.read("flags"), expected);
}

/// What BOLT does with its arguments: counts and writes a program.
const BOLT: &str = r#"
while [ $# -gt 0 ]; do
    case "$1" in
        -o) shift; printf '#!/bin/sh\n' >"$1"; chmod +x "$1" ;;
        --instrumentation-file=*) touch "${1#*=}.1.fdata" ;;
    esac
    shift
done
"#;

#[test]
fn programs_are_put_in_order_on_the_processor_where_that_was_tried() {
    for (processor, is_ordered) in [("x86_64", true), ("aarch64", false)] {
        let copy = Copy::new();
        for program in ["importguard", "importguard-gateway", "importguard-decider"] {
            copy.write(&format!("built/{program}"), "as built");
        }
        let programs = FakePrograms::new()
            .with("uname", &format!("echo {processor}"))
            .with("objcopy", "")
            .with("llvm-bolt", BOLT)
            .with("merge-fdata", "");
        let bench = copy.file("built/importguard-bench");
        write_program(&bench, "");
        let mut script = programs.run(&copy.file("release/layout.sh"));
        let output = script.arg(copy.file("built")).arg(bench).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let gateway = copy.read("built/importguard-gateway");
        assert_eq!(gateway != "as built", is_ordered, "{processor}");
        // The relocations of all others are removed.
        let removed = programs.calls().matches("objcopy").count();
        assert_eq!(removed, if is_ordered { 1 } else { 3 }, "{processor}");
    }
}

#[test]
fn pages_of_an_archive_link_to_the_tag() {
    let mut child = script("links.sh")
        .arg("1.2.3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let page = "[a](docs/openim.md#openim-360) [b](https://openim.io/) [c](#install) ![d](docs/pictures/trace.png)\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let tag = "https://github.com/importguard/importguard/blob/v1.2.3";
    let expected = format!(
        "[a]({tag}/docs/openim.md#openim-360) [b](https://openim.io/) [c](#install) ![d]({tag}/docs/pictures/trace.png)\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
