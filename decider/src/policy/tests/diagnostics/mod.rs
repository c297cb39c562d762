//! The errors of an invalid policy, and where they point: the wording is the contract.

mod expressions;
mod lists;
mod rules;
mod shape;

use super::{compile, compile_source, with_head};

/// The errors of a policy with these lines after its first two, each as `line:column [text] message = remedy`.
fn said(rest: &str) -> Vec<String> {
    said_of(&with_head(rest))
}

fn said_of(source: &str) -> Vec<String> {
    let diagnostics = compile_source(source).expect_err("this policy should not load");
    diagnostics
        .iter()
        .map(|d| {
            let place = d
                .span
                .map(|span| format!("{}:{}", span.line, span.column))
                .unwrap_or_default();
            format!("{place} [{}] {} = {}", d.text, d.message, d.remedy)
        })
        .collect()
}

/// Asserts that there is exactly one error, which begins and ends like this.
#[track_caller]
fn says(rest: &str, begins: &str, ends: &str) {
    says_of(&with_head(rest), begins, ends);
}

#[track_caller]
fn says_of(source: &str, begins: &str, ends: &str) {
    let said = said_of(source);
    assert!(
        said.len() == 1 && said[0].starts_with(begins) && said[0].ends_with(ends),
        "{said:#?}"
    );
}

/// The rules of a policy with one rule, on line 4.
fn rule(rule: &str) -> String {
    format!("rules:\n- {rule}")
}

const REFUSAL: &str = "refusal: { code: 5001, message: no }";

#[test]
fn shows_file_line_column_and_the_line_itself() {
    let error = compile("rules:\n  - id: a\n    refuseOwnr: { prefixes: [x] }")
        .unwrap_err()
        .to_string();
    let expected = "policy.yaml:5:5: unknown key \"refuseOwnr\" in a rule\n    5 |     refuseOwnr: { prefixes: [x] }\n      |     ^^^^^^^^^^\n      = did you mean \"refuseOwner\"?";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn reports_everything_together_from_top_to_bottom() {
    let said = said_of(
        "apiVersion: importguard/v2
name: 7
lists:
  bad-name: { values: [a] }
  gone: { file: gone.txt }
rules:
- id: self
  dropFriends: { in: gonne, sufixes: [x] }
- id: two
  refuseOwner: { prefixes: [] }
  limitFriends: { max: 0, onExceed: explode }
- dropFriends: { in: nowhere }
nobodyLeft: { code: 5950, message: x }
",
    );
    let places: Vec<_> = said
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "1:13", "2:7", "4:3", "5:17", "7:7", "8:22", "8:29", "10:28", "11:3", "11:24", "11:37",
            "12:3", "12:22", "13:21"
        ],
        "{said:#?}"
    );
}
