use importguard_core::Dialect;
use importguard_tests::Reading;
use proptest::{prelude::*, sample::Index};

use super::{
    body::{Asks, Body, any_body},
    framing::{Framing, any_framing},
    head::{self, Fate, Part, Target},
    model::{Due, verdict},
};

/// A request as it is sent, and what must come of it.
#[derive(Clone)]
pub(super) struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    dialect: Dialect,
    /// Whether it tells of an import that has been done.
    pub(super) report: bool,
    pub(super) due: Due,
    /// Whether it is beyond doubt where the next one on the connection begins.
    pub(super) ends_clearly: bool,
    /// Whether the connection may end after its response: over HTTP/1.0 a server keeps it only if it wants to.
    pub(super) may_be_last: bool,
    /// Whether a reader may wait for more of it.
    pub(super) waits: bool,
}

const HOST: &[u8] = b"Host: x\r\n";

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.bytes().take(2000).collect();
        f.debug_struct("Request")
            .field("bytes", &bytes.escape_ascii().to_string())
            .field("due", &self.due)
            .field("ends_clearly", &self.ends_clearly)
            .finish()
    }
}

pub(super) fn any_request() -> impl Strategy<Value = Request> {
    let line = (head::any_method(), head::any_target(), head::any_version());
    let headers = (head::any_operation_id(), head::any_headers());
    (line, headers, any_framing(), any_body()).prop_map(
        |((method, target, version), (operation_id, mut headers), framing, body)| {
            headers.push(operation_id);
            Request::build(method, &target, version, &headers, &framing, &body)
        },
    )
}

impl Request {
    fn build(
        (method, method_fate): (&str, Fate),
        target: &Target,
        (version, version_fate): (&str, Fate),
        headers: &[Part],
        framing: &Framing,
        body: &Body,
    ) -> Self {
        let (body, asks) = body.write(target.command);
        let framed = framing.frame(body);
        let line = format!("{method} {} {version}\r\nHost: x\r\n", target.text);
        let mut head = line.into_bytes();
        for header in headers {
            head.extend_from_slice(&header.bytes);
        }
        head.extend_from_slice(framed.headers.as_bytes());
        head.extend_from_slice(b"\r\n");

        let old = version == "HTTP/1.0";
        let mut fate = [method_fate, target.fate, version_fate, framed.fate]
            .into_iter()
            .chain(headers.iter().map(|header| header.fate))
            .max()
            .unwrap_or(Fate::Heard);
        if old && framing.is_chunked() {
            fate = Fate::NoHttp;
        }
        Self {
            head,
            body: framed.body,
            dialect: target.dialect,
            report: target.command == head::AFTER,
            due: due(fate, target, asks),
            waits: framed.waits,
            ends_clearly: framed.ends_clearly && fate != Fate::NoHttp,
            may_be_last: old,
        }
    }

    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.head.iter().chain(&self.body).copied()
    }

    /// Asks for the connection's end after it.
    pub(super) fn close(&mut self) {
        let line = self.head.windows(HOST.len()).position(|part| part == HOST);
        let line = line.expect("every request has a host");
        self.head.splice(line..line, *b"Connection: close\r\n");
    }

    /// Sends only a part of it, and nothing after that.
    pub(super) fn cut(&mut self, at: Index) {
        let at = 1 + at.index(self.head.len() + self.body.len() - 1);
        self.ends_clearly = false;
        self.waits = true;
        if at < self.head.len() {
            // Half a head is no request.
            self.due = nothing(self.report);
            self.head.truncate(at);
            self.body.clear();
        } else {
            if !self.due.may_be_missing() {
                self.due = refused(self.report, self.dialect);
            }
            self.body.truncate(at - self.head.len());
        }
    }
}

fn due(fate: Fate, target: &Target, asks: Asks) -> Due {
    let (dialect, report) = (target.dialect, target.command == head::AFTER);
    let verdict = match (fate, asks) {
        (Fate::NoHttp, _) => return nothing(report),
        (Fate::Refused, _) | (_, Asks::Nonsense) => return refused(report, dialect),
        (_, Asks::Import(..)) if report => Reading::Imports { instead: None },
        (_, Asks::Import(owner, friends)) => verdict(&owner, &friends),
    };
    match fate {
        Fate::Unclear => Due::Either(dialect, verdict),
        _ => Due::Verdict(dialect, verdict),
    }
}

/// A report is let pass where a question is refused.
fn refused(report: bool, dialect: Dialect) -> Due {
    if report {
        Due::Passed
    } else {
        Due::Refusal(dialect)
    }
}

/// What is too large for importguard, and not for its HTTP library, is a report all the same.
fn nothing(report: bool) -> Due {
    if report {
        Due::NothingOrPassed
    } else {
        Due::Nothing
    }
}
