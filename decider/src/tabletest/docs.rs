//! Runs every example of docs/policy.md: blocks marked `yaml policy` or `yaml rules`, each with the `yaml tests` after it.

use super::{read::read, run::run_test};
use crate::policy::{Draft, ListFiles};

const PAGE: &str = include_str!("../../../docs/policy.md");

/// The marks and contents of the fenced blocks that start with ```` ```yaml ````, with the line each starts on.
fn blocks() -> Vec<(&'static str, usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize, String)> = None;
    for (number, line) in PAGE.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, _, content)), None) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, Some(mark)) => open = Some((mark, number + 1, String::new())),
            (None, None) => {}
        }
    }
    blocks
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn every_example_does_what_the_page_says() {
    let blocks = blocks();
    let lists = blocks
        .iter()
        .find(|(mark, ..)| *mark == "yaml lists")
        .unwrap();
    let head = format!(
        "apiVersion: importguard/v1\nname: docs\nlists:\n{}rules:\n",
        indented(&lists.2)
    );
    let mut run = 0;
    for pair in blocks.windows(2) {
        let (mark, line, content) = &pair[0];
        let source = match *mark {
            "yaml policy" => content.clone(),
            "yaml rules" => format!("{head}{content}"),
            _ => continue,
        };
        let policy = Draft::read("docs/policy.md", &source)
            .compile(&ListFiles::new())
            .unwrap_or_else(|diagnostics| panic!("the example on line {line}:\n{diagnostics}"));
        let (mark, line, tests) = &pair[1];
        assert_eq!(
            *mark, "yaml tests",
            "the block on line {line} does not test the one before it"
        );
        let file = read("docs/policy.md", &format!("policy: docs\ntests:\n{tests}"))
            .unwrap_or_else(|diagnostics| panic!("the tests on line {line}:\n{diagnostics}"));
        for test in &file.tests {
            let case = run_test(&policy, test);
            assert!(case.passed(), "the tests on line {line}:\n{case}");
            run += 1;
        }
    }
    assert!(run >= 20, "only {run} examples were run");
}
