use std::fmt::Write;

use super::{Case, Report, Suite};

/// The report as JUnit XML, which CI systems display.
pub fn junit(report: &Report) -> String {
    // The format has no place for a file without tests, so one that cannot be run is a failed test.
    let invalid = report.invalid_files();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing into a String cannot fail.
    let _ = writeln!(
        xml,
        "<testsuites tests=\"{}\" failures=\"{}\">",
        report.tests() + invalid,
        report.failures() + invalid
    );
    for suite in &report.suites {
        write_suite(&mut xml, suite);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn write_suite(xml: &mut String, suite: &Suite) {
    let file = escaped(&suite.file);
    match &suite.result {
        Ok(cases) => {
            let failures = cases.iter().filter(|case| !case.passed()).count();
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failures}\">",
                cases.len()
            );
            for case in cases {
                write_case(xml, &file, case);
            }
        }
        Err(diagnostics) => {
            let text = escaped(&diagnostics.to_string());
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{file}\" tests=\"1\" failures=\"1\">"
            );
            let _ = writeln!(
                xml,
                "    <testcase name=\"load the test file and its policy\" classname=\"{file}\">"
            );
            let _ = writeln!(
                xml,
                "      <failure message=\"loading failed\">{text}</failure>\n    </testcase>"
            );
        }
    }
    xml.push_str("  </testsuite>\n");
}

fn write_case(xml: &mut String, file: &str, case: &Case) {
    let name = escaped(&case.name);
    if case.passed() {
        let _ = writeln!(xml, "    <testcase name=\"{name}\" classname=\"{file}\"/>");
        return;
    }
    let differences = case.differences.iter();
    let message =
        differences.map(|it| format!("{}: expected {}, got {}", it.what, it.expected, it.got));
    let message = escaped(&message.collect::<Vec<_>>().join("; "));
    let text = escaped(&case.explanation.join("\n"));
    let _ = writeln!(
        xml,
        "    <testcase name=\"{name}\" classname=\"{file}\" line=\"{}\">",
        case.line
    );
    let _ = writeln!(
        xml,
        "      <failure message=\"{message}\">{text}</failure>\n    </testcase>"
    );
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            // XML 1.0 allows no other control characters, nor these two.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
