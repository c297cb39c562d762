//! `docs/settings.md` is generated from the binaries' `--help`.

use std::{collections::BTreeSet, fmt::Write};

use importguard_tests::{Binary, Group, Help, Setting, assert_is_current, workspace};

#[test]
fn the_handbook_has_every_setting() {
    let made = settings();
    assert_is_current(&workspace().join("docs/settings.md"), &made);
    // Were a reading of --help to find nothing, the page would be current and empty.
    for name in [
        "IMPORTGUARD_HTTP_LISTEN",
        "IMPORTGUARD_POLICY",
        "NATS_URL",
        "RUST_LOG",
    ] {
        assert!(made.contains(&format!("`{name}`")), "no {name}");
    }
}

fn settings() -> String {
    let gateway = Help::of(Binary::Gateway, &[]);
    let decider = Help::of(Binary::Decider, &[]);
    let serve = Help::of(Binary::AllInOne, &["serve"]);
    let mut page = String::from(
        "# Settings\n\n\
         Every setting of the three binaries, generated from their `--help`. A flag takes precedence over its environment variable. \
         Durations are written as `250ms`, `5s` or `1h 30m`, sizes as `64MiB` or as a number of bytes. Unless the table says \
         otherwise, durations are at least `1ms`, and counts and sizes at least 1. A value out of range, an `IMPORTGUARD_` variable \
         that no binary knows, and one that is set but empty, are errors at the start; variables that Kubernetes sets for Services \
         are ignored.\n\n\
         ## The gateway: `importguard-gateway`\n\n",
    );
    groups(&mut page, "###", &gateway.groups);
    page.push_str("## The decider: `importguard-decider`\n\n");
    groups(&mut page, "###", &decider.groups);
    page.push_str("## Both in one process: `importguard serve`\n\n");
    both(&mut page, &serve, &gateway, &decider);
    page.push_str("## Standard environment variables of all three\n\n");
    assert_eq!(gateway.standard, decider.standard);
    assert_eq!(gateway.standard, serve.standard);
    page.push_str("| environment | what it does |\n|---|---|\n");
    for (name, text) in &gateway.standard {
        writeln!(page, "| `{name}` | {} |", cell(text)).unwrap();
    }
    for command in commands(&[]) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = Help::of(Binary::AllInOne, &words);
        if words != ["serve"] && help.settings().next().is_some() {
            write!(page, "\n## `importguard {}`\n\n", words.join(" ")).unwrap();
            let options: Vec<_> = help.settings().cloned().collect();
            table(&mut page, &options);
        }
    }
    page
}

/// The subcommands of the one binary below `above`, and theirs.
fn commands(above: &[String]) -> Vec<Vec<String>> {
    let words: Vec<&str> = above.iter().map(String::as_str).collect();
    let help = Help::of(Binary::AllInOne, &words);
    let below = help.commands.into_iter().flat_map(|name| {
        let command: Vec<String> = above.iter().cloned().chain([name]).collect();
        let further = commands(&command);
        [command].into_iter().chain(further)
    });
    below.collect()
}

/// What the one process has is told of already, but for what is its own.
fn both(page: &mut String, serve: &Help, gateway: &Help, decider: &Help) {
    let told: Vec<&Setting> = gateway.settings().chain(decider.settings()).collect();
    let own: Vec<Setting> = serve
        .settings()
        .filter(|setting| !told.contains(setting))
        .cloned()
        .collect();
    let has: BTreeSet<&str> = serve.settings().map(|setting| &*setting.flag).collect();
    let lacks = told.iter().filter(|setting| !has.contains(&*setting.flag));
    let lacks: Vec<String> = lacks
        .map(|setting| format!("`{}`", name(setting)))
        .collect();
    write!(
        page,
        "It has the settings of both, except {}.\n\n",
        lacks.join(", ")
    )
    .unwrap();
    if !own.is_empty() {
        page.push_str("With another default:\n\n");
        table(page, &own);
        page.push('\n');
    }
}

fn groups(page: &mut String, level: &str, groups: &[Group]) {
    for group in groups {
        write!(page, "{level} {}\n\n", group.name).unwrap();
        table(page, &group.options);
        page.push('\n');
    }
}

fn table(page: &mut String, options: &[Setting]) {
    page.push_str("| environment | flag | default | what it does |\n|---|---|---|---|\n");
    let code = |text: Option<&str>| text.map_or(String::new(), |text| format!("`{}`", cell(text)));
    for option in options {
        let env = code(option.env.as_deref());
        let default = code(option.default.as_deref());
        let (flag, text) = (cell(&option.flag), cell(&option.text));
        writeln!(page, "| {env} | `{flag}` | {default} | {text} |").unwrap();
    }
}

fn name(setting: &Setting) -> &str {
    setting.env.as_deref().unwrap_or(&setting.flag)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
