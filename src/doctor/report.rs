//! What `importguard doctor` prints.

use std::fmt::Write;

use http::Version;
use serde_json::{Value, json};

use strum::IntoEnumIterator;

use super::{
    checks::{Check, Finding},
    reading::{Effect, Meaning, OpenIm},
};

/// Maximum number of characters of a foreign answer that are shown.
const MAX_SHOWN: usize = 300;

/// The findings and problems.
pub(super) struct Report {
    address: String,
    /// The only version to report on, if one was given.
    only: Option<OpenIm>,
    findings: Vec<Finding>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(address: String, only: Option<OpenIm>) -> Self {
        Self {
            address,
            only,
            findings: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds an answered check, and its problem if it has one.
    pub(super) fn add(&mut self, finding: Finding, problem: Option<String>) {
        if let Some(problem) = problem {
            self.problems.push(problem);
        } else {
            self.compare(&finding);
        }
        self.findings.push(finding);
    }

    /// Records that there is no answer, for this reason.
    pub(super) fn unanswered(&mut self, reason: &str) {
        self.problems.push(reason.to_owned());
        self.notes.push(
            "without an answer, OpenIM 3.7 and later import nothing (90004); 3.5 and 3.6 import nothing if failedContinue is false, and everybody otherwise. 3.7 and later also return the webhook's URL, with its password, to the API's caller"
                .to_owned(),
        );
    }

    /// Compares what versions do with what importguard intends.
    fn compare(&mut self, finding: &Finding) {
        for (version, effect) in &finding.effects {
            let ignored =
                *version == OpenIm::V36 && finding.answer.meaning == Some(Meaning::Refuse);
            if finding.agrees(effect) {
                if finding.check == Check::Refusal && matches!(effect, Effect::Fails(_)) {
                    self.note_unreadable(*version);
                }
            } else if !ignored {
                let name = version.into_str();
                self.problems
                    .push(format!("OpenIM {name} {}", words(*version, effect)));
            } else if finding.check == Check::Refusal {
                let text = "OpenIM 3.6 ignores refusals. Set IMPORTGUARD_REFUSALS=unreadable on the gateway and failedContinue: false in OpenIM, or upgrade OpenIM";
                match self.only {
                    Some(_) => self.problems.push(text.to_owned()),
                    None => self.notes.push(text.to_owned()),
                }
            }
        }
    }

    fn note_unreadable(&mut self, version: OpenIm) {
        let text = "refusals are unreadable for OpenIM (IMPORTGUARD_REFUSALS=unreadable): an import is refused with 90007 instead of the refusal's code. 3.5 and 3.6 need failedContinue: false for that";
        // Once for all versions.
        if self.only.is_some() || version == OpenIm::V36 {
            self.notes.push(text.to_owned());
        }
    }

    /// Whether there are no problems.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = self.address.clone();
        if let Some(first) = self.findings.first() {
            _ = write!(text, " answers over {}", protocol(first));
        }
        text.push('\n');
        for finding in &self.findings {
            self.describe(&mut text, finding);
        }
        for (title, sentences) in [("Problem", &self.problems), ("Note", &self.notes)] {
            for sentence in sentences {
                let end = if sentence.ends_with('?') { "" } else { "." };
                _ = write!(text, "\n{title}: {sentence}{end}");
            }
        }
        if self.is_good() {
            _ = write!(text, "\nOK: {}.", self.verdict());
        }
        text
    }

    /// Which versions are good, if there are no problems.
    fn verdict(&self) -> String {
        if let Some(version) = self.only {
            return format!("OpenIM {} does as importguard answers", version.into_str());
        }
        let (bad, good): (Vec<_>, Vec<_>) =
            OpenIm::iter().partition(|version| self.differs(*version));
        let names = |versions: Vec<OpenIm>| {
            let names: Vec<_> = versions.iter().map(OpenIm::into_str).collect();
            names.join(" and ")
        };
        match bad.is_empty() {
            true => "every version of OpenIM does as importguard answers".to_owned(),
            false => format!(
                "OpenIM {} do as importguard answers. NOT OK: OpenIM {}, see the note",
                names(good),
                names(bad)
            ),
        }
    }

    /// Whether `version` does something else than importguard intends.
    fn differs(&self, version: OpenIm) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| {
            let mut effects = finding.effects.iter();
            effects.any(|(one, effect)| *one == version && !finding.agrees(effect))
        })
    }

    fn describe(&self, text: &mut String, finding: &Finding) {
        _ = writeln!(text, "\n{}", finding.check.title());
        let body = String::from_utf8_lossy(&finding.response.body);
        let shown: String = body.trim().chars().take(MAX_SHOWN).collect();
        _ = writeln!(
            text,
            "  answer       {} {shown}",
            finding.response.status.as_u16()
        );
        let meaning = match &finding.answer.meaning {
            Some(meaning) => meant(meaning),
            None => "not importguard's".to_owned(),
        };
        _ = writeln!(text, "  meaning      {meaning}");
        let effects = &finding.effects;
        let mut rest = effects.as_slice();
        while let [(first, effect), after @ ..] = rest {
            // Versions that do the same share a line.
            let does = words(*first, effect);
            let same = after
                .iter()
                .take_while(|(version, effect)| words(*version, effect) == does)
                .count();
            let (alike, others) = after.split_at(same);
            let names = alike.iter().map(|(version, _)| version.into_str());
            let names: Vec<_> = [first.into_str()].into_iter().chain(names).collect();
            let label = format!("OpenIM {}", names.join(", "));
            let mark = if finding.answer.meaning.is_some() && !finding.agrees(effect) {
                "  <-- not what importguard means"
            } else {
                ""
            };
            _ = writeln!(text, "  {label:<22} {does}{mark}");
            rest = others;
        }
        if effects.is_empty() && finding.check == Check::Report {
            _ = writeln!(
                text,
                "  OpenIM 3.5 waits for this answer; later versions ignore what it says"
            );
        }
    }

    /// The report for programs.
    pub(super) fn json(&self) -> String {
        let checks = self.findings.iter().map(|finding| {
            let body = &finding.response.body;
            let answer = serde_json::from_slice::<Value>(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into());
            let openim = finding.effects.iter().map(|(version, effect)| {
                json!({"version": version.into_str(), "does": words(*version, effect), "agrees": finding.agrees(effect)})
            });
            json!({
                "check": finding.check.into_str(),
                "status": finding.response.status.as_u16(),
                "answer": answer,
                "meaning": finding.answer.meaning.as_ref().map(meant),
                "openim": openim.collect::<Value>(),
            })
        });
        json!({
            "ok": self.is_good(),
            "address": self.address,
            "protocol": self.findings.first().map(protocol),
            "checks": checks.collect::<Value>(),
            "problems": self.problems,
            "notes": self.notes,
        })
        .to_string()
    }
}

fn protocol(finding: &Finding) -> &'static str {
    match finding.response.version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn meant(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Allow => "allow".to_owned(),
        Meaning::Shorten(friends) => format!("shorten to {}", friends.join(", ")),
        Meaning::Refuse => "refuse".to_owned(),
    }
}

/// What `version` does.
fn words(version: OpenIm, effect: &Effect) -> String {
    match effect {
        Effect::ImportsAll => "imports all requested friends".to_owned(),
        Effect::ImportsOnly(friends) => format!("imports only {}", friends.join(", ")),
        Effect::Refuses(code) => format!("imports nobody; its API returns {code}"),
        Effect::Fails(reason) => {
            let otherwise = match version {
                OpenIm::UpTo35 | OpenIm::V36 => " if failedContinue is false, otherwise everybody",
                OpenIm::From37 => "",
            };
            format!("cannot read the answer ({reason}): imports nobody (90007){otherwise}")
        }
    }
}
