//! The only thread that accesses the spool's file. It commits all events that arrived during the previous commit as a group.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{AppendError, Command, Depth, PendingEvent, supervised::Supervised};

/// Maximum number of events in a group. Larger groups do not commit noticeably more events per second: at this size, the commit is
/// already a small part of the cost.
const GROUP_EVENTS: usize = 1024;

/// Limits what one transaction adds to SQLite's log, and the pages that it keeps in memory.
const GROUP_BYTES: usize = 8 << 20;

/// Runs until the channel is closed and empty.
pub(super) fn run(mut spool: Supervised, mut commands: mpsc::Receiver<Command>, depth: Arc<Depth>) {
    let mut received = Vec::with_capacity(GROUP_EVENTS);
    let mut group = Group::default();
    while commands.blocking_recv_many(&mut received, GROUP_EVENTS) > 0 {
        for command in received.drain(..) {
            match command {
                // Nobody waits: it counts as unrecorded. If NATS may have it, the spool has it too, like any other event without an ack.
                Command::Append { event, reply }
                    if reply.is_closed() && event.attempted_after.is_none() => {}
                Command::Append { event, reply } => {
                    group.push(event, reply);
                    if group.bytes >= GROUP_BYTES {
                        group.commit(&mut spool, &depth);
                    }
                }
                Command::Run(work) => work(&mut spool),
            }
        }
        group.commit(&mut spool, &depth);
    }
    spool.close();
}

#[derive(Default)]
struct Group {
    events: Vec<PendingEvent>,
    replies: Vec<oneshot::Sender<Result<(), AppendError>>>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, event: PendingEvent, reply: oneshot::Sender<Result<(), AppendError>>) {
        self.bytes += event.payload.len();
        self.events.push(event);
        self.replies.push(reply);
    }

    fn commit(&mut self, spool: &mut Supervised, depth: &Depth) {
        if self.events.is_empty() {
            return;
        }
        let results = spool.append(&self.events);
        // Update the depth before the replies, so that a caller whose event was spooled sees it there.
        depth.set(spool);
        for (reply, result) in self.replies.drain(..).zip(results) {
            let _ = reply.send(result);
        }
        self.events.clear();
        self.bytes = 0;
    }
}
