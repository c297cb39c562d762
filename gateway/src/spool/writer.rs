//! The one thread that touches the spool's file. It commits everything that has come in while it was committing.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{AppendError, Command, Depth, NewEvent, supervised::Supervised};

/// Larger groups don't commit noticeably more per second: the commit itself is a small part of one already.
const GROUP_EVENTS: usize = 1024;

/// Bounds what one transaction adds to SQLite's log, and the pages it keeps in memory.
const GROUP_BYTES: usize = 8 << 20;

/// Works until the channel is closed and empty.
pub(super) fn run(mut spool: Supervised, mut commands: mpsc::Receiver<Command>, depth: Arc<Depth>) {
    let mut received = Vec::with_capacity(GROUP_EVENTS);
    let mut group = Group::default();
    while commands.blocking_recv_many(&mut received, GROUP_EVENTS) > 0 {
        for command in received.drain(..) {
            match command {
                Command::Append { event, reply } => {
                    group.push(event, reply);
                    if group.bytes >= GROUP_BYTES {
                        group.commit(&mut spool, &depth);
                    }
                }
                Command::Advance {
                    done,
                    limit,
                    max_bytes,
                    sequence,
                    reply,
                } => {
                    let advanced = spool.advance(&done, limit, max_bytes, sequence);
                    // Also where nothing was done: it may have been repaired, and hold less or more.
                    depth.set(&spool);
                    // The caller may have given up.
                    let _ = reply.send(advanced);
                }
                Command::Park { events, reply } => {
                    let parked = spool.park(&events);
                    depth.set(&spool);
                    let _ = reply.send(parked);
                }
                Command::Parked { query, reply } => {
                    let parked = spool.parked(&query);
                    depth.set(&spool);
                    let _ = reply.send(parked);
                }
                Command::Examine => {
                    spool.examine();
                    depth.set(&spool);
                }
            }
        }
        group.commit(&mut spool, &depth);
    }
    spool.close();
}

#[derive(Default)]
struct Group {
    events: Vec<NewEvent>,
    replies: Vec<oneshot::Sender<Result<(), AppendError>>>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, event: NewEvent, reply: oneshot::Sender<Result<(), AppendError>>) {
        self.bytes += event.payload.len();
        self.events.push(event);
        self.replies.push(reply);
    }

    fn commit(&mut self, spool: &mut Supervised, depth: &Depth) {
        if self.events.is_empty() {
            return;
        }
        let results = spool.append(&self.events);
        // Before the answers, so that a caller that gets "spooled" sees it in the depth.
        depth.set(spool);
        for (reply, result) in self.replies.drain(..).zip(results) {
            let _ = reply.send(result);
        }
        self.events.clear();
        self.bytes = 0;
    }
}
