use std::{
    fs,
    path::{Path, PathBuf},
};

use importguard_core::{Evaluation, Mode, Outcome, Verdict};

use super::{
    Case, Difference, Report, Suite,
    read::{Expectation, Test, TestFile, read},
};
use crate::{
    load::load,
    policy::{Diagnostic, Diagnostics, Explanation, MAX_POLICY_BYTES, Policy, Request},
};

/// The suffix of test files, such as `policy.test.yaml`.
const SUFFIX: &str = ".test.yaml";
/// The maximum depth of the search for test files, which also ends loops of symlinks.
const MAX_DIRECTORIES_DEEP: usize = 8;

/// Why no test could be run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory or file could not be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// There are no test files.
    #[error("no test files in {0}: their names end in {SUFFIX}")]
    None(PathBuf),
}

/// Runs the tests in a file, or in all `*.test.yaml` files below a directory, with policies for imports of up to `max_friends`
/// friends.
///
/// # Errors
/// If there are no tests, or the directory cannot be read.
pub fn run(path: &Path, max_friends: usize) -> Result<Report, FindError> {
    let mut files = Vec::new();
    if path.is_file() {
        files.push(path.to_owned());
    } else {
        find(path, MAX_DIRECTORIES_DEEP, &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        return Err(FindError::None(path.to_owned()));
    }
    let suites = files.iter().map(|file| Suite {
        file: file.display().to_string(),
        result: run_file(file, max_friends),
    });
    Ok(Report {
        suites: suites.collect(),
    })
}

fn find(directory: &Path, deeper: usize, files: &mut Vec<PathBuf>) -> Result<(), FindError> {
    let unreadable = |error| FindError::Unreadable {
        path: directory.to_owned(),
        error,
    };
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && deeper > 0 {
            find(&path, deeper - 1, files)?;
        } else if path.is_file() && path.to_string_lossy().ends_with(SUFFIX) {
            files.push(path);
        }
    }
    Ok(())
}

fn run_file(file: &Path, max_friends: usize) -> Result<Vec<Case>, Diagnostics> {
    let name = file.display().to_string();
    let unusable = |message: String, remedy: &str| {
        Diagnostics::one(Diagnostic::of_file(name.as_str().into(), message, remedy))
    };
    let bytes = fs::metadata(file).map_or(0, |metadata| metadata.len());
    if bytes > MAX_POLICY_BYTES as u64 {
        let message = format!("the file has {bytes} bytes; the maximum is {MAX_POLICY_BYTES}");
        return Err(unusable(message, "split it into several files"));
    }
    let source = fs::read_to_string(file).map_err(|error| {
        unusable(
            format!("the file cannot be read: {error}"),
            "check its permissions, and save it as UTF-8",
        )
    })?;
    let TestFile { policy, tests } = read(&name, &source)?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let policy = load(&directory.join(&policy.value), max_friends)?;
    Ok(tests.iter().map(|test| run_test(&policy, test)).collect())
}

pub(super) fn run_test(policy: &Policy, test: &Test) -> Case {
    let request = Request {
        operation_id: &test.operation_id,
        owner: &test.owner,
        friends: &test.friends,
        now: test.now,
    };
    let explanation = match test.rollout {
        Some(per_cent) => policy.explain_at(&request, per_cent),
        None => policy.explain(&request),
    };
    let differences = compare(&test.expect, &explanation.evaluation, &test.friends);
    Case {
        name: test.name.clone(),
        line: test.line,
        explanation: if differences.is_empty() {
            Vec::new()
        } else {
            descriptions(&explanation, &test.friends)
        },
        differences,
    }
}

fn descriptions(explanation: &Explanation<'_>, friends: &[String]) -> Vec<String> {
    let steps = explanation.steps.iter().map(|step| {
        let shadow = if step.mode == Some(Mode::Shadow) {
            " (shadow)"
        } else {
            ""
        };
        format!("{}{shadow}: {}", step.rule, step.describe(friends))
    });
    steps.collect()
}

fn compare(expect: &Expectation, decision: &Evaluation, friends: &[String]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differ = |what, expected: Option<String>, got: String| {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            differences.push(Difference {
                what,
                expected,
                got,
            });
        }
    };
    let (verdict, refusal) = match &decision.verdict {
        Verdict::Allow => ("allow", None),
        Verdict::Modify(_) => ("modify", None),
        Verdict::Refuse(refusal) => ("refuse", Some(refusal)),
    };
    differ(
        "verdict",
        Some(expect.verdict.to_owned()),
        verdict.to_owned(),
    );
    let kept: Vec<&str> = match &decision.verdict {
        Verdict::Allow => friends.iter().map(String::as_str).collect(),
        Verdict::Modify(kept) => {
            let kept = kept
                .indexes()
                .iter()
                .filter_map(|&index| friends.get(index as usize));
            kept.map(String::as_str).collect()
        }
        Verdict::Refuse(_) => Vec::new(),
    };
    differ("kept", expect.kept.as_deref().map(listed), listed(&kept));
    let or_none = |part: Option<String>| part.unwrap_or_else(|| "no refusal".to_owned());
    differ(
        "rule",
        expect.rule.clone(),
        or_none(refusal.map(|it| it.rule.clone().unwrap_or_default())),
    );
    let code = expect.code.map(|code| code.to_string());
    differ("code", code, or_none(refusal.map(|it| it.code.to_string())));
    differ(
        "message",
        expect.message.clone(),
        or_none(refusal.map(|it| it.message.clone())),
    );
    differ(
        "detail",
        expect.detail.clone(),
        or_none(refusal.map(|it| it.detail.clone())),
    );
    for (what, expected, mode) in [
        ("rules", &expect.rules, Mode::Enforce),
        ("shadow", &expect.shadow, Mode::Shadow),
    ] {
        // Rules that were not evaluated are left out.
        let fired = decision
            .rules
            .iter()
            .filter(|fired| fired.mode == mode && fired.outcome != Outcome::Skipped);
        let mut fired: Vec<&str> = fired.map(|fired| fired.id.as_str()).collect();
        // A rule that failed for some friends and removed others fired twice.
        fired.dedup();
        differ(what, expected.as_deref().map(listed), listed(&fired));
    }
    differences
}

fn listed<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(", "))
}
