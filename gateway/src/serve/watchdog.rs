use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for a deadline that moves with each request. It is only set anew when it would ring too late, and when it has rung too
/// early: a connection that answers quickly never touches tokio's timers.
#[derive(Debug)]
pub(super) struct Watchdog(Pin<Box<Sleep>>);

impl Watchdog {
    pub(super) fn new(first: Instant) -> Self {
        Self(Box::pin(sleep_until(first)))
    }

    /// Ready when `due` is over. Without one, nothing is waited for. To be polled whenever the deadline may have moved.
    pub(super) fn poll_over(&mut self, due: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = due else {
            return Poll::Pending;
        };
        if self.0.deadline() > due {
            self.0.as_mut().reset(due);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(due);
        }
    }
}
