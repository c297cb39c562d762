use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::policy::{DEFAULT_MAX_FRIENDS, MAX_POLICY_BYTES};

fn run(path: &Path) -> Result<Report, FindError> {
    super::run(path, DEFAULT_MAX_FRIENDS)
}

const POLICY: &str = "apiVersion: importguard/v1
name: test
lists: { blocked: { values: [bad] } }
rules:
- { id: owner, refuseOwner: { in: blocked }, refusal: { code: 5001, message: No., detail: Because. } }
- { id: drop, dropFriends: { in: blocked } }
- { id: night, refuseIf: 'now.getHours() < 6', mode: shadow, refusal: { code: 5002, message: sleep } }
";

fn run_tests(tests: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policy.yaml"), POLICY).unwrap();
    fs::write(
        directory.path().join("a.test.yaml"),
        format!("policy: policy.yaml\ntests:\n{tests}"),
    )
    .unwrap();
    run(directory.path()).unwrap()
}

#[test]
fn errors_after_a_byte_order_mark_are_those_of_the_file_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.test.yaml");
    let report = |source: String| {
        fs::write(&file, source).unwrap();
        run(directory.path()).unwrap().to_string()
    };
    for source in ["polcy: policy.yaml\n", "policy: policy.yaml\ntests: ["] {
        assert_eq!(
            report(format!("\u{feff}{source}")),
            report(source.to_owned())
        );
    }
}

#[test]
fn an_empty_file_gets_the_beginning_of_a_test_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.test.yaml"), "# later\n").unwrap();
    let report = run(directory.path()).unwrap().to_string();
    for part in [
        "a.test.yaml: the file is empty",
        "start it with \"policy: policy.yaml\"",
    ] {
        assert!(report.contains(part), "{report}");
    }
    assert!(!report.contains("apiVersion"), "{report}");
}

fn differences(report: &Report) -> Vec<String> {
    let cases = report.suites[0].result.as_ref().unwrap();
    let all = cases.iter().flat_map(|case| &case.differences);
    all.map(|it| format!("{}: {} / {}", it.what, it.expected, it.got))
        .collect()
}

#[test]
fn a_test_pins_the_rollouts_of_its_policy() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "apiVersion: importguard/v1
name: test
rules:
- { id: some, dropFriends: { prefixes: [b] }, rollout: 50 }
- { id: rest, dropFriends: { prefixes: [c] }, rollout: { percent: 50, otherwise: shadow } }
- { id: always, dropFriends: { prefixes: [d] } }
";
    fs::write(directory.path().join("policy.yaml"), policy).unwrap();
    let write = |tests: &str| {
        let tests = format!("policy: policy.yaml\ntests:\n{tests}");
        fs::write(directory.path().join("a.test.yaml"), tests).unwrap();
        run(directory.path()).unwrap()
    };
    let mut tests = String::new();
    for owner in ["u1", "u2", "u3", "u4", "u5", "u6"] {
        for (rollout, expect) in [
            ("in", "kept: [a], rules: [some, rest, always], shadow: []"),
            ("100", "kept: [a], rules: [some, rest, always], shadow: []"),
            ("out", "kept: [a, b, c], rules: [always], shadow: [rest]"),
            ("0", "kept: [a, b, c], rules: [always], shadow: [rest]"),
        ] {
            tests.push_str(&format!(
                "- {{ name: {owner} {rollout}, owner: {owner}, friends: [a, b, c, d], rollout: {rollout}, expect: {{ verdict: modify, {expect} }} }}\n"
            ));
        }
    }
    let report = write(&tests);
    assert_eq!((report.tests(), report.failures()), (24, 0), "{report}");

    for (rollout, said) in [
        ("inn", "did you mean \"in\"?"),
        ("101", "rollout is 101; it must be 0 to 100"),
        ("10%", "write 10 without the %"),
        ("[in]", "expected an integer, found a list"),
    ] {
        let report = write(&format!(
            "- {{ name: n, owner: o, friends: [a], rollout: {rollout}, expect: {{ verdict: allow }} }}\n"
        ));
        let diagnostics = report.suites[0].result.as_ref().unwrap_err().to_string();
        assert!(diagnostics.contains(said), "{diagnostics}");
    }
}

#[test]
fn passes_what_is_as_expected() {
    let report = run_tests(
        "- { name: allow, owner: me, friends: [a], expect: { verdict: allow, kept: [a], rules: [], shadow: [] } }
- { name: nobody, owner: me, friends: [], expect: { verdict: allow } }
- { name: modify, owner: me, friends: [a, bad, b], expect: { verdict: modify, kept: [a, b], rules: [drop] } }
- { name: refuse, owner: bad, friends: [a], expect: { verdict: refuse, rule: owner, code: 5001, message: No., detail: Because. } }
- { name: shadow, owner: me, friends: [a], now: '2026-11-23T05:59:59Z', expect: { verdict: allow, shadow: [night], rules: [] } }
",
    );
    assert_eq!((report.tests(), report.failures()), (5, 0), "{report}");
    assert!(report.to_string().ends_with("5 tests, 0 failed"));
    let one = "- { name: nobody, owner: me, friends: [], expect: { verdict: allow } }\n";
    assert!(run_tests(one).to_string().ends_with("\n1 test, 0 failed"));
}

#[test]
fn reports_every_difference() {
    let report = run_tests(
        "- { name: a, owner: me, friends: [a, bad], expect: { verdict: refuse, kept: [a, bad], code: 5001, rules: [owner], shadow: [night] } }
- { name: b, owner: bad, friends: [a], expect: { verdict: refuse, rule: drop, code: 5002, message: Yes., detail: '' } }
- { name: c, owner: me, friends: [a], expect: { verdict: allow } }
",
    );
    assert_eq!((report.tests(), report.failures()), (3, 2));
    assert_eq!(
        differences(&report),
        [
            "verdict: refuse / modify",
            "kept: [a, bad] / [a]",
            "code: 5001 / no refusal",
            "rules: [owner] / [drop]",
            "shadow: [night] / []",
            "rule: drop / owner",
            "code: 5002 / 5001",
            "message: Yes. / No.",
            "detail:  / Because.",
        ]
    );
    let shown = report.to_string();
    for part in [
        "  FAIL  a (line 3)",
        "          verdict  expected  refuse\n                   got       modify",
        "          | drop: removed 1: \"bad\" is in blocked",
        "          | night (shadow): no match",
        "  ok    c",
        "3 tests, 2 failed",
    ] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}

#[test]
fn compares_ids_one_by_one_and_not_their_text() {
    let report = run_tests(
        "- { name: a, owner: me, friends: ['b, c', bad], expect: { verdict: modify, kept: [b, c] } }
- { name: b, owner: me, friends: [b, c, bad], expect: { verdict: modify, kept: ['b, c'] } }
- { name: c, owner: me, friends: ['b, c', ' d', '[e]', 'f\"g', bad], expect: { verdict: modify, kept: ['b, c', ' d', '[e]', 'f\"g'] } }
- { name: d, owner: me, friends: [' d', '[e]', 'f\"g', a b], expect: { verdict: allow, kept: [] } }
",
    );
    assert_eq!(
        differences(&report),
        [
            "kept: [b, c] / [\"b, c\"]",
            "kept: [\"b, c\"] / [b, c]",
            "kept: [] / [\" d\", \"[e]\", \"f\\\"g\", \"a b\"]",
        ]
    );
}

#[test]
fn no_text_equals_a_refusal_that_is_not_there() {
    let report = run_tests(
        "- { name: a, owner: me, friends: [a], expect: { verdict: allow, rule: no refusal, message: no refusal, detail: no refusal } }
- { name: b, owner: me, friends: [a], expect: { verdict: allow, detail: '' } }
",
    );
    assert_eq!(
        differences(&report),
        [
            "rule: no refusal / no refusal",
            "message: no refusal / no refusal",
            "detail: no refusal / no refusal",
            "detail:  / no refusal",
        ]
    );
}

#[test]
fn reports_errors_in_the_test_file() {
    let report = run_tests(
        "- { name: a, owner: me, friend: [a], expect: { verdict: alow } }
- { owner: me, friends: [a], now: noon, expect: { verdikt: allow } }
",
    );
    assert_eq!((report.tests(), report.failures()), (0, 0));
    assert!(!report.passed());
    let shown = report.to_string();
    for part in [
        "a.test.yaml:3:3: a test needs \"friends\"",
        "a.test.yaml:3:25: unknown key \"friend\" in a test",
        "did you mean \"friends\"?",
        "verdict cannot be \"alow\"",
        "a.test.yaml:4:3: a test needs \"name\"",
        "\"noon\" is not a timestamp",
        "unknown key \"verdikt\"",
        "0 tests, 0 failed; 1 file cannot be run",
    ] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}

#[test]
fn ids_that_the_gateway_rejects_are_errors() {
    let long = "x".repeat(257);
    let report = run_tests(&format!(
        "- {{ name: a, owner: {long}, friends: [a, {long}], expect: {{ verdict: allow }} }}
- {{ name: b, owner: me, friends: [], operationID: 'a b', expect: {{ verdict: allow }} }}
- {{ name: c, owner: me, friends: [], operationID: {long}, expect: {{ verdict: allow }} }}
"
    ));
    let shown = report.to_string();
    for part in [
        "a.test.yaml:3:21: the gateway rejects this ID: it has 257 bytes; the maximum is 256",
        "a.test.yaml:3:293: the gateway rejects this ID: it has 257 bytes",
        "a.test.yaml:4:51: the gateway rejects this ID: it has a character that is not visible ASCII",
        "a.test.yaml:5:51: the gateway rejects this ID: it has 257 bytes",
        "0 tests, 0 failed; 1 file cannot be run",
    ] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}

#[test]
fn a_file_without_tests_and_a_policy_are_one_error() {
    for (file, expected) in [
        (
            "policy: policy.yaml\ntests: []",
            "a.test.yaml:2:8: there are no tests",
        ),
        (POLICY, "a.test.yaml:1:1: this is a policy, not a test file"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("policy.yaml"), POLICY).unwrap();
        fs::write(directory.path().join("a.test.yaml"), file).unwrap();
        let report = run(directory.path()).unwrap();
        let errors = report.suites[0].result.as_ref().unwrap_err();
        assert!(
            errors.count() == 1 && errors.to_string().contains(expected),
            "{errors}"
        );
        assert!(!report.passed());
    }
}

#[test]
fn explains_a_policy_that_cannot_be_loaded() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("a.test.yaml"),
        "policy: gone.yaml\ntests: [{ name: a, owner: a, friends: [], expect: { verdict: allow } }]",
    )
    .unwrap();
    let report = run(directory.path()).unwrap();
    assert!(!report.passed());
    assert!(
        report
            .to_string()
            .contains("gone.yaml: the policy cannot be read")
    );
}

#[test]
fn says_which_file_of_tests_is_no_text_or_too_large() {
    let directory = tempfile::tempdir().unwrap();
    let error = |content: &[u8]| {
        fs::write(directory.path().join("a.test.yaml"), content).unwrap();
        run(directory.path()).unwrap().to_string()
    };
    let binary = error(b"policy: policy.yaml\nt\xff");
    assert!(
        binary.contains("a.test.yaml:2:2: this line is not UTF-8"),
        "{binary}"
    );
    let large = error(&vec![b'#'; MAX_POLICY_BYTES + 1]);
    assert!(
        large.contains("a.test.yaml: the file has more than 1048576 bytes"),
        "{large}"
    );
}

#[test]
fn finds_tests_in_directories_below_and_says_if_there_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let error = run(directory.path()).unwrap_err().to_string();
    assert!(error.contains("their names end in .test.yaml"), "{error}");
    let below = directory.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("policy.yaml"), POLICY).unwrap();
    fs::write(below.join("x.test.yaml"), "policy: policy.yaml\ntests: []").unwrap();
    std::os::unix::fs::symlink(directory.path(), below.join("loop")).unwrap();
    assert!(
        run(directory.path()).unwrap().suites[0]
            .file
            .ends_with("a/b/x.test.yaml")
    );
    let file = run(&below.join("x.test.yaml")).unwrap();
    assert_eq!(file.suites.len(), 1);
    assert!(matches!(
        run(Path::new("/nowhere")),
        Err(FindError::Unreadable { .. })
    ));
}

#[test]
fn writes_junit_xml_whatever_is_in_the_names() {
    let report = run_tests(
        "- { name: 'a <b> & \"c\"', owner: me, friends: [a], expect: { verdict: refuse } }
- { name: fine, owner: me, friends: [a], expect: { verdict: allow } }
- { name: \"bell \\a\", owner: me, friends: [a], expect: { verdict: allow } }
",
    );
    let xml = junit(&report);
    assert!(
        xml.contains("<testsuites tests=\"3\" failures=\"1\">"),
        "{xml}"
    );
    assert!(
        xml.contains("<testcase name=\"a &lt;b&gt; &amp; &quot;c&quot;\""),
        "{xml}"
    );
    assert!(
        xml.contains(
            "<failure message=\"verdict: expected refuse, got allow\">self: no match&#10;"
        ),
        "{xml}"
    );
    assert!(
        xml.contains("<testcase name=\"fine\" classname=\""),
        "{xml}"
    );
    assert!(
        xml.contains("bell \u{fffd}") && !xml.contains('\u{7}'),
        "{xml}"
    );
    let broken = junit(&run_tests("- 7"));
    assert!(
        broken.contains("<failure message=\"loading failed\">")
            && broken.contains("<testsuites tests=\"1\" failures=\"1\">"),
        "{broken}"
    );
}

#[test]
fn the_shipped_policy_passes_its_tests() {
    let policy = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../policy"));
    let report = run(&policy).unwrap();
    assert!(report.failures() == 0 && report.tests() >= 10, "{report}");
}
