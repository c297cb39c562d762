//! The documentation as a whole: links between Markdown files, and the table of contents of the site.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use importguard_tests::workspace;

/// What is not the project's own text.
const FOREIGN: [&str; 4] = ["target", "node_modules", "corpus", "venv"];

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "{:?}", documents.keys());
    let mut anchors = HashMap::new();
    let mut broken = Vec::new();
    let mut checked = 0;
    for (file, text) in &documents {
        for link in links(text) {
            let absolute = ["http://", "https://", "mailto:"];
            if absolute.iter().any(|scheme| link.starts_with(scheme)) {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: no such file", file.display()));
                continue;
            };
            if anchor.is_empty() || target.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let known = anchors
                .entry(target)
                .or_insert_with_key(|target| headings(&fs::read_to_string(target).unwrap()));
            if !known.contains(anchor) {
                broken.push(format!("{}: {link}: no such heading", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    // Were links not found, none would be broken.
    assert!(checked > 50, "only {checked} links");
}

#[test]
fn every_file_that_developers_are_told_of_exists() {
    let mut missing = Vec::new();
    let mut checked = 0;
    let extensions = ["rs", "md", "sh", "yaml", "toml", "proto", "json"];
    let root = workspace().canonicalize().unwrap();
    let files: BTreeSet<PathBuf> = extensions
        .into_iter()
        .flat_map(|extension| sources(extension).into_keys())
        .map(|file| file.strip_prefix(&root).unwrap().to_owned())
        .collect();
    for document in ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(workspace().join(document)).unwrap();
        for code in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let name = Path::new(code);
            let is_file = name
                .extension()
                .is_some_and(|extension| extensions.iter().any(|known| extension == *known));
            if !is_file || code.contains(char::is_whitespace) {
                continue;
            }
            checked += 1;
            // Within a paragraph, a directory is named once. A test that happens to have the name is not meant.
            let is_meant = |file: &&PathBuf| {
                let first = file.iter().next().and_then(|first| first.to_str());
                code.contains('/') || first.is_some_and(|first| !["tests", "fuzz"].contains(&first))
            };
            if !files
                .iter()
                .filter(is_meant)
                .any(|file| file.ends_with(name))
            {
                missing.push(format!("{document}: {code}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
    assert!(checked > 50, "only {checked} files");
}

#[test]
fn every_page_of_docs_is_in_the_table_of_contents() {
    let docs = workspace().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = links(&summary).collect();
    let pages: BTreeSet<String> = documents()
        .into_keys()
        .filter_map(|file| {
            let page = file.strip_prefix(&docs).ok()?.display().to_string();
            (page != "SUMMARY.md").then_some(page)
        })
        .collect();
    assert!(pages.len() > 4, "{pages:?}");
    assert_eq!(
        pages, listed,
        "docs/SUMMARY.md differs from the pages in docs/"
    );
}

/// A test that compares a generated file with its source writes it anew with `UPDATE=1`; `tests/regen.sh` runs them by name.
#[test]
fn every_generated_file_is_written_by_one_script() {
    let script = fs::read_to_string(workspace().join("tests/regen.sh")).unwrap();
    let (_, command) = script.split_once("UPDATE=1 cargo test ").unwrap();
    let (_, filters) = command.split_once(" -- ").unwrap();
    let filters = filters.split_whitespace().map_while(|word| match word {
        "\\" => Some(""),
        word => word
            .chars()
            .all(|c| c.is_alphabetic() || c == '_')
            .then_some(word),
    });
    let filters: Vec<&str> = filters.filter(|word| !word.is_empty()).collect();
    // Not in one piece, or this file would be one of them.
    let switches = [["\"UPD", "ATE\""], ["assert_is_cur", "rent("]].map(|halves| halves.concat());
    let mut generators = 0;
    for (file, text) in sources("rs") {
        let generates = switches.iter().any(|switch| text.contains(switch));
        if !generates || !text.contains("#[test]") {
            continue;
        }
        generators += 1;
        let functions = text.lines().filter_map(|line| {
            let name = line.trim_start().strip_prefix("fn ")?;
            name.split(['(', '<']).next()
        });
        let run = functions.filter(|name| filters.iter().any(|filter| name.contains(filter)));
        assert!(
            run.count() > 0,
            "tests/regen.sh runs no test of {}; end its name in is_current",
            file.display()
        );
    }
    assert!(generators >= 3, "{generators}");
}

/// The crates that are run, by directory.
const PRODUCT: [&str; 12] = [
    "core",
    "decider",
    "detector",
    "gateway",
    "lists",
    "nats",
    "policy",
    "proto",
    "runtime",
    "src",
    "telemetry",
    "yaml",
];

/// Fields that each line has, or each line of a callback, by the subscriber.
const FIELDS_OF_THE_SUBSCRIBER: [&str; 7] = [
    "time",
    "level",
    "target",
    "message",
    "operationID",
    "trace_id",
    "span_id",
];

#[test]
fn the_table_of_log_fields_has_each_field_that_is_logged_and_no_other() {
    let root = workspace().canonicalize().unwrap();
    let mut logged = BTreeMap::new();
    for (file, text) in sources("rs") {
        let file = file.strip_prefix(&root).unwrap();
        let directories: Vec<_> = file.iter().map(|part| part.to_str().unwrap()).collect();
        if PRODUCT.contains(&directories[0]) && !directories.contains(&"tests") {
            let fields = log_lines(&text).flat_map(fields);
            logged.extend(fields.map(|field| (field, file.display().to_string())));
        }
    }
    assert!(logged.len() > 30, "{logged:?}");
    let handbook = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, table) = handbook.split_once("| field | on | content |\n").unwrap();
    let table = table.lines().skip(1).take_while(|line| !line.is_empty());
    let documented: BTreeSet<String> = table
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    for (field, file) in &logged {
        assert!(
            documented.contains(field),
            "the table of log fields in docs/operations.md lacks {field}, which {file} logs"
        );
    }
    for field in &documented {
        let is_known = logged.contains_key(field) || FIELDS_OF_THE_SUBSCRIBER.contains(&&**field);
        assert!(
            is_known,
            "docs/operations.md has the log field {field}, which nothing logs"
        );
    }
}

/// What is in the brackets of each macro that logs a line.
fn log_lines(source: &str) -> impl Iterator<Item = &str> {
    ["error!", "warn!", "info!", "debug!"]
        .into_iter()
        .flat_map(move |name| {
            let calls = source.match_indices(name).filter(|(at, _)| {
                let before = source[..*at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            });
            calls.filter_map(move |(at, _)| source[at + name.len()..].strip_prefix('('))
        })
}

/// The names of the fields in a macro that logs a line: `name = value`, `%name`, `?name` or `name`, before the message.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in line.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                let field = line[start..at].trim();
                let name = field.split_once('=').map_or(field, |(name, _)| name);
                fields.push(name.trim().trim_start_matches(['%', '?']).to_owned());
                start = at + 1;
            }
            // A value with a string in it is not the message.
            '"' if depth == 0 && line[start..at].trim().is_empty() => break,
            ')' | ']' | '}' => break,
            _ => {}
        }
    }
    fields
}

#[test]
fn the_fields_of_a_log_line_are_found() {
    let source = "info!(\n verdict = a.kind(b, c), cause = \"x\",\n %error, friends, \"decided {}, {a}\", of(friends)\n);\nerror!(\"none, {x}\")";
    let found: Vec<_> = log_lines(source).flat_map(fields).collect();
    assert_eq!(found, ["verdict", "cause", "error", "friends"]);
}

/// The Markdown files of the project, by path.
fn documents() -> BTreeMap<PathBuf, String> {
    sources("md")
}

/// The files of the project whose names end like this, by path.
fn sources(extension: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    collect(&workspace().canonicalize().unwrap(), extension, &mut found);
    found
}

fn collect(directory: &Path, wanted: &str, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().display().to_string();
        // .git is a directory, or a file in a worktree.
        if FOREIGN.contains(&&*name) || name == ".git" {
            continue;
        }
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(&path, wanted, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == wanted)
        {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path, text);
        }
    }
}

/// The lines of `text` outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fence = None;
    text.lines().filter(move |line| {
        let start = line.trim_start();
        let ticks = start.len() - start.trim_start_matches('`').len();
        match fence {
            Some(opened) if ticks >= opened => fence = None,
            None if ticks >= 3 => fence = Some(ticks),
            None => return true,
            Some(_) => {}
        }
        false
    })
}

/// The targets of links and pictures.
fn links(text: &str) -> impl Iterator<Item = String> {
    prose(text).flat_map(|line| {
        let plain = without_code(line);
        let targets: Vec<String> = plain
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', ' ']).next())
            .map(str::to_owned)
            .collect();
        targets
    })
}

/// `line` without the code in it, which may have brackets.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("")
}

/// The anchors of the headings, as GitHub and mdBook make them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut seen = HashMap::new();
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim();
            // Of a link, the title has the text.
            let title = title.split("](").next().unwrap_or(title);
            let kept = title.to_lowercase().replace(' ', "-");
            let kept: String = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c))
                .collect();
            let count = seen.entry(kept.clone()).or_insert(0);
            *count += 1;
            match *count {
                1 => kept,
                more => format!("{kept}-{}", more - 1),
            }
        })
        .collect()
}

#[test]
fn a_link_is_found_in_prose_but_not_in_code() {
    let text = "See [a](x.md#b) and `[no](link)`.\n```\n[none](here)\n```\n![p](q.png \"title\")\n";
    let found: Vec<_> = links(text).collect();
    assert_eq!(found, ["x.md#b", "q.png"]);
    let anchors = headings("# A `b` c!\n## Twice\n## Twice\n```\n# none\n```\n");
    let expected = ["a-b-c", "twice", "twice-1"].map(str::to_owned);
    assert_eq!(anchors, BTreeSet::from(expected));
}
