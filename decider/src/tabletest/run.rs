use std::{
    fs,
    path::{Path, PathBuf},
};

use importguard_core::{Evaluation, Mode, Outcome, Verdict};
use importguard_yaml::file::FileKind;

use super::{
    Case, Difference, Report, Suite,
    read::{Expectation, Test, TestFile, read},
};
use crate::{
    lists::live::LiveLists,
    load::load,
    policy::{Diagnostics, Explanation, MAX_POLICY_BYTES, Policy, Request},
};

/// The suffix of test files, such as `policy.test.yaml`.
const SUFFIX: &str = ".test.yaml";
/// The maximum depth of the search for test files, which also ends loops of symlinks.
const MAX_DIRECTORIES_DEEP: usize = 8;

const TEST_FILE: FileKind = FileKind {
    max_bytes: MAX_POLICY_BYTES as u64,
    if_missing: "create the file or correct the path",
    if_larger: "split it into several files",
};

/// Why no test could be run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory or file could not be read.
    #[error(
        "{path} cannot be read: {error}; name the directory of your tests, or write sample files with `importguard policy init`"
    )]
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
    let source = TEST_FILE.read_text(file, "the file")?;
    let TestFile { policy, tests } = read(&file.display().to_string(), &source)?;
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
    let evaluator = policy.with_live(LiveLists::none());
    let explanation = evaluator.explain(&request, test.rollout);
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
    let (verdict, refusal) = match &decision.verdict {
        Verdict::Allow => ("allow", None),
        Verdict::Modify(_) => ("modify", None),
        Verdict::Refuse(refusal) => ("refuse", Some(refusal)),
    };
    let ids = |what, expected: &Option<Vec<String>>, got: Vec<&str>| {
        let expected: Vec<_> = expected.as_ref()?.iter().map(String::as_str).collect();
        differ(what, expected, got, |ids| listed(ids))
    };
    let told = |what, expected: Option<&str>, got: Option<&str>| {
        differ(what, Some(expected?), got, |text| {
            text.unwrap_or("no refusal").to_owned()
        })
    };
    let [expected_code, code] = [expect.code, refusal.map(|it| i64::from(it.code))]
        .map(|code| code.map(|code| code.to_string()));
    let differences = [
        differ("verdict", expect.verdict, verdict, |it| it.to_string()),
        ids("kept", &expect.kept, kept(&decision.verdict, friends)),
        told(
            "rule",
            expect.rule.as_deref(),
            refusal.map(|it| it.rule.as_deref().unwrap_or_default()),
        ),
        told("code", expected_code.as_deref(), code.as_deref()),
        told(
            "message",
            expect.message.as_deref(),
            refusal.map(|it| it.message.as_str()),
        ),
        told(
            "detail",
            expect.detail.as_deref(),
            refusal.map(|it| it.detail.as_str()),
        ),
        ids("rules", &expect.rules, fired(decision, Mode::Enforce)),
        ids("shadow", &expect.shadow, fired(decision, Mode::Shadow)),
    ];
    differences.into_iter().flatten().collect()
}

/// Compares values rather than their texts: two IDs and one with a comma in it look alike.
fn differ<T: PartialEq>(
    what: &'static str,
    expected: T,
    got: T,
    show: impl Fn(&T) -> String,
) -> Option<Difference> {
    (expected != got).then(|| Difference {
        what,
        expected: show(&expected),
        got: show(&got),
    })
}

/// The friends that are imported.
fn kept<'f>(verdict: &Verdict, friends: &'f [String]) -> Vec<&'f str> {
    match verdict {
        Verdict::Allow => friends.iter().map(String::as_str).collect(),
        Verdict::Modify(kept) => {
            let kept = kept.indexes().iter();
            let kept = kept.filter_map(|&index| friends.get(index as usize));
            kept.map(String::as_str).collect()
        }
        Verdict::Refuse(_) => Vec::new(),
    }
}

/// The rules that fired, without those that were not evaluated.
fn fired(decision: &Evaluation, mode: Mode) -> Vec<&str> {
    let rules = decision.rules.iter();
    let fired = rules.filter(|fired| fired.mode == mode && fired.outcome != Outcome::Skipped);
    let mut fired: Vec<&str> = fired.map(|fired| fired.id.as_str()).collect();
    // A rule that failed for some friends and removed others fired twice.
    fired.dedup();
    fired
}

fn listed(ids: &[&str]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| shown(id)).collect();
    format!("[{}]", ids.join(", "))
}

/// Quotes an ID that could be taken for several, or for none.
fn shown(id: &str) -> String {
    let is_odd =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '"' | '[' | ']');
    match id.is_empty() || id.contains(is_odd) {
        true => format!("{id:?}"),
        false => id.to_owned(),
    }
}
