use std::process::Command;

use crate::Binary;

/// The parsed output of `--help`.
#[derive(Debug, Default)]
pub struct Help {
    /// The groups of options, in order.
    pub groups: Vec<Group>,
    /// The standard environment variables listed below the options, with their descriptions.
    pub standard: Vec<(String, String)>,
    /// The names of the subcommands, without `help`.
    pub commands: Vec<String>,
}

/// Options under one heading.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub name: String,
    /// Its options, in order, without `--help` and `--version`.
    pub options: Vec<Setting>,
}

/// An option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As on the command line, `--flag <VALUE>`.
    pub flag: String,
    /// The environment variable, if there is one.
    pub env: Option<String>,
    /// The default.
    pub default: Option<String>,
    /// The description.
    pub text: String,
}

impl Help {
    /// The help of `binary`'s `command`.
    pub fn of(binary: Binary, command: &[&str]) -> Self {
        let output = Command::new(binary.path())
            .args(command)
            .arg("--help")
            .env_clear()
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{binary:?} {command:?}: {output:?}"
        );
        Self::read(&String::from_utf8(output.stdout).unwrap())
    }

    /// All options.
    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.groups.iter().flat_map(|group| &group.options)
    }

    fn read(help: &str) -> Self {
        let mut read = Self::default();
        for section in sections(help) {
            let (name, lines) = (section.heading, section.lines);
            match name {
                "Commands" => read.commands = commands(&lines),
                "Standard environment variables" => read.standard = standard(&lines),
                "Arguments" => {}
                _ => {
                    let options = options(&lines);
                    if !options.is_empty() {
                        let name = name.to_owned();
                        read.groups.push(Group { name, options });
                    }
                }
            }
        }
        read
    }
}

struct Section<'a> {
    heading: &'a str,
    lines: Vec<&'a str>,
}

/// A heading is a line that begins at the margin and ends with a colon.
fn sections(help: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in help.lines() {
        match line.strip_suffix(':') {
            Some(heading) if !line.starts_with(' ') => sections.push(Section {
                heading,
                lines: Vec::new(),
            }),
            _ => {
                if let Some(section) = sections.last_mut() {
                    section.lines.push(line);
                }
            }
        }
    }
    sections
}

fn commands(lines: &[&str]) -> Vec<String> {
    // Two spaces, the name; what follows on other lines is further in.
    let names = lines.iter().filter_map(|line| {
        let rest = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))?;
        rest.split_whitespace().next()
    });
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Two spaces, the name, and what it does, which may go on at the margin.
fn standard(lines: &[&str]) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in lines {
        if let Some((name, text)) = line
            .strip_prefix("  ")
            .and_then(|rest| rest.split_once("  "))
        {
            variables.push((name.to_owned(), text.trim().to_owned()));
        } else if let Some((_, text)) = variables.last_mut() {
            text.push(' ');
            text.push_str(line.trim());
        }
    }
    variables
}

/// An option begins with a dash near the margin, and goes on till the next one.
fn options(lines: &[&str]) -> Vec<Setting> {
    let mut options: Vec<(String, String)> = Vec::new();
    for line in lines {
        let text = line.trim();
        let near = line.len() - line.trim_start().len() <= 6;
        if near && text.starts_with('-') {
            let (flag, rest) = text.split_once("  ").unwrap_or((text, ""));
            options.push((flag.to_owned(), rest.to_owned()));
        } else if line.is_empty() || line.starts_with(' ') {
            if let Some((_, rest)) = options.last_mut() {
                rest.push(' ');
                rest.push_str(text);
            }
        } else {
            // What stands below the options.
            break;
        }
    }
    let ours = options
        .into_iter()
        .filter(|(flag, _)| !flag.contains("--help") && !flag.contains("--version"));
    ours.map(|(flag, rest)| option(flag, &rest)).collect()
}

fn option(flag: String, rest: &str) -> Setting {
    let mut text = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    let env = take(&mut text, "[env: ").map(|env| env.trim_end_matches('=').to_owned());
    let default = take(&mut text, "[default: ");
    // They are listed where each has a text of its own, and named in brackets where it has none.
    if let Some((what, values)) = text.split_once(" Possible values: - ") {
        text = format!("{what}: {}", values.replace(" - ", "; "));
    }
    Setting {
        flag,
        env,
        default,
        text: text.trim().to_owned(),
    }
}

/// Cuts `[name: …]` out of a text and returns what it holds.
fn take(text: &mut String, begin: &str) -> Option<String> {
    let start = text.find(begin)?;
    let end = start + text[start..].find(']')?;
    let held = text[start + begin.len()..end].to_owned();
    text.replace_range(start..=end, "");
    Some(held)
}
