//! Reads test files.

use std::time::SystemTime;

use importguard_core::{IdError, OperationId, UserId};
use importguard_yaml::document::FileKind;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::policy::{
    Diagnostics,
    diagnostic::Spanned,
    diagnostic::{Report, quoted},
    fields::{Fields, any_text, integer, sequence, text, texts, word},
    yaml::{self, Node, Scalar},
};

const EXAMPLE: &str = "\"policy: policy.yaml\" and \"tests:\"";
const EXPECT_EXAMPLE: &str = "{ verdict: refuse, code: 5001 }";
/// The default time of a test: a Thursday, at noon.
const DEFAULT_NOW: &str = "2026-01-01T12:00:00Z";

pub(super) struct TestFile {
    /// Relative to the test file.
    pub(super) policy: Spanned<String>,
    pub(super) tests: Vec<Test>,
}

pub(super) struct Test {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) owner: String,
    pub(super) friends: Vec<String>,
    pub(super) operation_id: String,
    pub(super) now: SystemTime,
    /// Replaces the percentages of rollouts.
    pub(super) rollout: Option<u8>,
    pub(super) expect: Expectation,
}

/// Absent fields are not compared.
pub(super) struct Expectation {
    pub(super) verdict: &'static str,
    pub(super) kept: Option<Vec<String>>,
    pub(super) rule: Option<String>,
    pub(super) code: Option<i64>,
    pub(super) message: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) rules: Option<Vec<String>>,
    pub(super) shadow: Option<Vec<String>>,
}

pub(super) fn read(file: &str, source: &str) -> Result<TestFile, Diagnostics> {
    let mut report = Report::new(file, source);
    let tests = yaml::parse(&mut report).and_then(|root| test_file(root, &mut report));
    report.conclude(tests, EXAMPLE)
}

fn test_file(root: Node, report: &mut Report<'_>) -> Option<TestFile> {
    FileKind::Tests.check(&root, report)?;
    let mut fields = Fields::open(root, "a test file", EXAMPLE, report)?;
    let remedy = "add \"policy: policy.yaml\", relative to this file";
    let policy = fields.required("policy", remedy, report, text);
    let remedy = "add \"tests:\" and under it the tests, each as \"- name: …\"";
    let tests = fields.required("tests", remedy, report, |node, report| {
        let span = node.span;
        let example = "each test as \"- name: …\"";
        let tests = sequence(node, "a list of tests", example, report)?;
        if tests.is_empty() {
            report.error(span, "there are no tests", format!("write {example}"));
        }
        Some(tests)
    });
    fields.close(report);
    let tests = tests?.into_iter().filter_map(|node| test(node, report));
    Some(TestFile {
        tests: tests.collect(),
        policy: policy?,
    })
}

fn test(node: Node, report: &mut Report<'_>) -> Option<Test> {
    let mut fields = Fields::open(node, "a test", "- name: what it tests", report)?;
    let line = fields.span.line;
    let name = fields.required("name", "add \"name: what it tests\"", report, text);
    let owner = fields.required(
        "owner",
        "add \"owner: user123\", the user who imports friends",
        report,
        |node, report| accepted(text(node, report)?, UserId::parse_in_callback, report),
    );
    let remedy = "add \"friends: [user456]\", or \"friends: []\" for none";
    let friends = fields.required("friends", remedy, report, |node, report| {
        let friends = texts(node, report)?.into_iter();
        let friends = friends.filter_map(|id| accepted(id, UserId::parse_in_callback, report));
        Some(friends.collect())
    });
    let operation_id = fields.optional("operationID", report, |node, report| {
        accepted(text(node, report)?, OperationId::parse, report)
    });
    let now = fields
        .optional("now", report, time)
        .or_else(|| parse_time(DEFAULT_NOW));
    let rollout = fields.optional("rollout", report, rollout);
    let remedy = "add \"expect: { verdict: allow }\"";
    let expect = fields.required("expect", remedy, report, expectation);
    fields.close(report);
    Some(Test {
        name: name?.value,
        line,
        owner: owner?,
        friends: friends?,
        operation_id: operation_id.unwrap_or_else(|| "test".to_owned()),
        now: now?,
        rollout,
        expect: expect?,
    })
}

/// Returns an ID that the gateway accepts in a callback.
fn accepted<T>(
    id: Spanned<String>,
    parse: fn(String) -> Result<T, IdError>,
    report: &mut Report<'_>,
) -> Option<String> {
    if let Err(error) = parse(id.value.clone()) {
        report.error(
            id.span,
            format!("the gateway rejects this ID: {error}"),
            "write an ID that a callback can have",
        );
        return None;
    }
    Some(id.value)
}

fn expectation(node: Node, report: &mut Report<'_>) -> Option<Expectation> {
    let mut fields = Fields::open(node, "an expectation", EXPECT_EXAMPLE, report)?;
    let verdicts = ["allow", "modify", "refuse"].map(|verdict| (verdict, verdict));
    let remedy = "add \"verdict: allow\", modify or refuse";
    let verdict = fields.required("verdict", remedy, report, |node, report| {
        word(node, "verdict", &verdicts, report)
    });
    let kept = fields.optional("kept", report, texts);
    let rule = fields.optional("rule", report, text);
    let code = fields.optional("code", report, integer);
    let message = fields.optional("message", report, any_text);
    let detail = fields.optional("detail", report, any_text);
    let rules = fields.optional("rules", report, texts);
    let shadow = fields.optional("shadow", report, texts);
    fields.close(report);
    let text = |text: Spanned<String>| text.value;
    Some(Expectation {
        verdict: verdict?,
        kept: kept.map(values),
        rule: rule.map(text),
        code: code.map(|code| code.value),
        message: message.map(text),
        detail: detail.map(text),
        rules: rules.map(values),
        shadow: shadow.map(values),
    })
}

/// Parses a rollout as written in tests: `in` and `out`, which are 100 and 0 percent, or a percentage.
pub fn parse_rollout(text: &str) -> Option<u8> {
    match text {
        "in" => Some(100),
        "out" => Some(0),
        per_cent => per_cent.parse().ok().filter(|&it| it <= 100),
    }
}

fn rollout(node: Node, report: &mut Report<'_>) -> Option<u8> {
    // `integer` reports text such as 10%.
    if matches!(node.value.scalar(), Some(Scalar::Text(text)) if !text.ends_with('%')) {
        return word(node, "rollout", &[("in", 100), ("out", 0)], report);
    }
    let per_cent = integer(node, report)?;
    let valid = u8::try_from(per_cent.value).ok().filter(|&it| it <= 100);
    if valid.is_none() {
        report.error(
            per_cent.span,
            format!("rollout is {}; it must be 0 to 100", per_cent.value),
            "write in, out, or the percentage that the policy's rollouts are to have in this test",
        );
    }
    valid
}

fn time(node: Node, report: &mut Report<'_>) -> Option<SystemTime> {
    let text = text(node, report)?;
    let time = parse_time(&text.value);
    if time.is_none() {
        report.error(
            text.span,
            format!("{} is not a timestamp", quoted(&text.value)),
            format!("use RFC 3339, such as \"{DEFAULT_NOW}\""),
        );
    }
    time
}

/// Parses a time as written in tests: RFC 3339, with any offset from UTC.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(SystemTime::from(time))
}

fn values(texts: Vec<Spanned<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}
