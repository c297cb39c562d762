//! Parses a curl command line as a shell and curl would, to test printed ones.

use http::Method;
use importguard_tests::Call;

/// The command line that begins with `curl ` somewhere in `text`, lines continued with `\` included.
pub(crate) fn find(text: &str) -> Option<String> {
    let command = &text[text.find("curl ")?..];
    let mut whole = String::new();
    for line in command.lines() {
        match line.strip_suffix('\\') {
            Some(continued) => whole.push_str(continued),
            None => {
                whole.push_str(line);
                break;
            }
        }
    }
    Some(whole)
}

/// The request that `command` sends.
pub(crate) fn parse(command: &str) -> Call {
    let mut words = words(command).into_iter().skip(1);
    let mut url = None;
    let mut headers = Vec::new();
    let mut body = String::new();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .unwrap_or_else(|| panic!("{word} has no value: {command}"))
        };
        match word.as_str() {
            "-H" | "--header" => headers.push(value()),
            "-d" | "--data" | "--data-raw" | "--data-binary" => body = value(),
            "--json" => {
                body = value();
                headers.push("Content-Type: application/json".to_owned());
            }
            "-X" | "--request" => assert_eq!(value(), "POST"),
            flag if flag.starts_with('-') => {}
            _ => url = Some(word),
        }
    }
    let url = url.unwrap_or_else(|| panic!("no URL: {command}"));
    headers
        .iter()
        .map(|header| header.split_once(": ").expect("a header"))
        .fold(Call::new(Method::POST, url), |call, (name, value)| {
            call.header(name, value)
        })
        .body(body)
}

/// Splits at white space outside of quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn a_command_line_is_found_and_split() {
    let text = "try:\n  curl -s 'http://a/?b=c&d' \\\n    -H \"x: y z\" -d '{\"a\":1}'\nnext";
    let command = find(text).unwrap();
    assert_eq!(
        words(&command),
        [
            "curl",
            "-s",
            "http://a/?b=c&d",
            "-H",
            "x: y z",
            "-d",
            "{\"a\":1}"
        ]
    );
}
