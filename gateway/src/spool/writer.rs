//! The one thread that touches the spool's file. It commits everything that has come in while it was committing.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{AppendError, Command, Depth, NewEvent, SpoolError, directory::Lock, store::Store};

/// Larger groups don't commit noticeably more per second: the commit itself is a small part of one already.
const GROUP_EVENTS: usize = 1024;

/// Bounds what one transaction adds to SQLite's log, and the pages it keeps in memory.
const GROUP_BYTES: usize = 8 << 20;

/// Works until the channel is closed and empty.
pub(super) fn run(
    mut store: Store,
    lock: Lock,
    mut commands: mpsc::Receiver<Command>,
    depth: Arc<Depth>,
) {
    let mut received = Vec::with_capacity(GROUP_EVENTS);
    let mut group = Group::default();
    while commands.blocking_recv_many(&mut received, GROUP_EVENTS) > 0 {
        for command in received.drain(..) {
            match command {
                Command::Append { event, reply } => {
                    group.push(event, reply);
                    if group.bytes >= GROUP_BYTES {
                        group.commit(&mut store, &depth);
                    }
                }
                Command::Advance {
                    done,
                    limit,
                    max_bytes,
                    sequence,
                    reply,
                } => {
                    let advanced = store
                        .advance(&done, limit, max_bytes, sequence)
                        .map_err(SpoolError::from);
                    if !done.is_empty() {
                        depth.set(&store);
                        shrink(&store);
                    }
                    // The caller may have given up.
                    let _ = reply.send(advanced);
                }
                Command::Park { events, reply } => {
                    let parked = store.park(&events).map_err(SpoolError::from);
                    depth.set(&store);
                    let _ = reply.send(parked);
                }
                Command::Parked { query, reply } => {
                    let _ = reply.send(store.parked(&query).map_err(SpoolError::from));
                }
            }
        }
        group.commit(&mut store, &depth);
    }
    drop(store);
    drop(lock);
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

    fn commit(&mut self, store: &mut Store, depth: &Depth) {
        if self.events.is_empty() {
            return;
        }
        let results = store.append(self.events.iter());
        // Before the answers, so that a caller that gets "spooled" sees it in the depth.
        depth.set(store);
        for (reply, result) in self.replies.drain(..).zip(results) {
            let _ = reply.send(result);
        }
        self.events.clear();
        self.bytes = 0;
    }
}

fn shrink(store: &Store) {
    if let Err(error) = store.shrink() {
        tracing::debug!(%error, "can't shrink the empty spool");
    }
}
