use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use tokio::time::{Duration, Instant};

use super::Fault;

/// How far a connection has come with its requests, as seen from both sides of hyper: the socket and the service.
/// In HTTP/1.1 all of it happens in one task, so that the lock is never waited for.
#[derive(Debug)]
pub(super) struct Progress {
    protocol: Protocol,
    state: Mutex<State>,
}

/// How requests share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// One after the other.
    Http1,
    /// Side by side. Only whether there are any is followed: what else can happen, HTTP/2's own rules and pings settle.
    Http2,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Requests that are being answered.
    turns: usize,
    /// The request's body has not been read to its end.
    unread: bool,
    /// No request follows the one that is being answered: what still comes is nobody's.
    last: bool,
    own_answer: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is under way.
    Between,
    /// Bytes came that are no whole head yet.
    Head,
    /// The service has the request.
    Answering,
    /// hyper has the whole answer, and may still have to write it.
    Answered,
}

/// A request's time with the service: from its head until hyper has all of its answer, or it is given up.
#[derive(Debug)]
pub(super) struct Turn(Arc<Progress>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl Progress {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            state: Mutex::new(State {
                phase: Phase::Between,
                since: Instant::now(),
                turns: 0,
                unread: false,
                last: false,
                own_answer: None,
            }),
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes came from the caller.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Between && self.protocol == Protocol::Http1 {
            state.enter(Phase::Head);
        }
    }

    /// The service got a request, with a body still to come or not.
    pub(super) fn asked(self: &Arc<Self>, unread: bool) -> Turn {
        let mut state = self.state();
        state.phase = Phase::Answering;
        state.turns += 1;
        state.unread = unread;
        drop(state);
        Turn(Arc::clone(self))
    }

    /// The request's body was read to its end.
    pub(super) fn body_read(&self) {
        self.state().unread = false;
    }

    /// The answer to come is the connection's last.
    pub(super) fn is_last(&self) {
        self.state().last = true;
    }

    fn answered(&self) {
        let mut state = self.state();
        state.turns = state.turns.saturating_sub(1);
        match self.protocol {
            Protocol::Http1 => state.phase = Phase::Answered,
            Protocol::Http2 if state.turns == 0 => state.enter(Phase::Between),
            Protocol::Http2 => {}
        }
    }

    /// Everything that hyper had to write is written.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Answered && !state.last {
            state.enter(Phase::Between);
        }
    }

    /// hyper writes though nobody answered anything: its own answer, which begins with `head` and is its last on this connection.
    /// Returns whether that is so.
    pub(super) fn is_own_answer(&self, head: &[u8]) -> bool {
        let mut state = self.state();
        let answering = matches!(state.phase, Phase::Answering | Phase::Answered);
        if answering || self.protocol == Protocol::Http2 {
            return false;
        }
        if state.own_answer.is_none() {
            // "HTTP/1.1 431 …"
            let status = head.get(9..12).map(StatusCode::from_bytes);
            let fault = status
                .and_then(Result::ok)
                .map_or(Fault::Malformed, Fault::of);
            state.own_answer = Some(fault);
        }
        true
    }

    /// What hyper wanted to say by itself.
    pub(super) fn own_answer(&self) -> Option<Fault> {
        self.state().own_answer
    }

    /// Whether a head has begun that the service never got, where hyper has `read` these bytes and made nothing of them yet. It
    /// may have read more than the request before.
    pub(super) fn in_head_with(&self, read: &[u8]) -> bool {
        match self.state().phase {
            Phase::Head => true,
            Phase::Between => !read.is_empty(),
            Phase::Answering | Phase::Answered => false,
        }
    }

    /// Whether some of the last request's body was left unread. Only HTTP/1.1 has a last request.
    pub(super) fn unread(&self) -> bool {
        self.state().unread
    }

    /// When patience with the caller ends, if it is the caller's turn.
    pub(super) fn due(&self, head: Duration, idle: Duration) -> Option<Instant> {
        let state = self.state();
        match state.phase {
            Phase::Between => Some(state.since + idle),
            Phase::Head => Some(state.since + head),
            Phase::Answering | Phase::Answered => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}
