use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Answers, Metrics, Room, ServeSettings, connection::Shared};

/// How many connections beyond the limit are told so at once; the next ones wait in the kernel's backlog. As many as
/// open-im-server opens.
const TURNED_AWAY_AT_ONCE: usize = 100;

/// How long to rest where the operating system gives no connection, for want of files mostly: what is open needs time to close,
/// and the log is not to be flooded.
const NO_MORE_FILES: Duration = Duration::from_secs(1);

/// The public listener.
pub(crate) struct Listener<A> {
    shared: Shared<A>,
    metrics: Metrics,
    seats: Arc<Semaphore>,
    benches: Arc<Semaphore>,
    /// Cancelled when connections are to end after the requests that have begun.
    drain: CancellationToken,
}

/// How an orderly end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything that had begun was answered.
    Answered,
    /// These many connections were cut.
    Cut(usize),
}

impl<A: Answers> Listener<A> {
    pub(crate) fn new(
        answers: Arc<A>,
        settings: &ServeSettings,
        tls: Option<TlsAcceptor>,
        metrics: Metrics,
    ) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(settings.max_connections)),
            benches: Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE)),
            shared: Shared {
                answers,
                settings: settings.clone(),
                tls,
                closing: CancellationToken::new(),
            },
            metrics,
            drain: CancellationToken::new(),
        }
    }

    /// Serves until `shutdown` is cancelled, and for the settings' grace after that; then lets what has begun come to its end,
    /// for at most `patience` after the grace.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
        patience: Duration,
    ) -> Ended {
        let mut connections = JoinSet::new();
        tokio::select! {
            never = self.accept(&listener, &mut connections) => match never {},
            () = shutdown.cancelled() => {}
        }
        self.shared.closing.cancel();
        tokio::select! {
            never = self.accept(&listener, &mut connections) => match never {},
            () = sleep(self.shared.settings.shutdown_grace) => {}
        }
        drop(listener);
        self.drain.cancel();
        let all = async { while connections.join_next().await.is_some() {} };
        match timeout_at(Instant::now() + patience, all).await {
            Ok(()) => Ended::Answered,
            Err(_) => Ended::Cut(connections.len()),
        }
    }

    async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>) -> Infallible {
        loop {
            let (room, permit) = self.room().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(self.connection(stream, room, permit));
                }
                Err(error) if is_one_connections(&error) => {}
                Err(error) => {
                    warn!(
                        "no connection can be accepted: {error}; is the limit of open files (ulimit -n) below IMPORTGUARD_MAX_CONNECTIONS?"
                    );
                    sleep(NO_MORE_FILES).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// A place for the next connection, as soon as there is one.
    async fn room(&self) -> (Room, Option<OwnedSemaphorePermit>) {
        match Arc::clone(&self.seats).try_acquire_owned() {
            Ok(seat) => (Room::Free, Some(seat)),
            // Neither semaphore is ever closed.
            Err(_) => (
                Room::None,
                Arc::clone(&self.benches).acquire_owned().await.ok(),
            ),
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        room: Room,
        permit: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        // A token of its own: waiting for a shared one would have every connection take the same lock whenever it wakes.
        let drain = self.drain.child_token();
        let open = self.metrics.open(room);
        async move {
            // An answer is one small packet, or a few large ones: none should wait for the other side's acknowledgement.
            let _ = stream.set_nodelay(true);
            shared.serve(stream, room, drain).await;
            drop((permit, open));
        }
    }
}

/// The peer hung up before it was accepted: no trouble of the listener's.
fn is_one_connections(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
