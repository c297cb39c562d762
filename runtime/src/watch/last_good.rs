use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// The last valid content of files. Clones share it, and loading it never blocks.
#[derive(Debug)]
pub struct LastGood<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    content: ArcSwap<T>,
    status: Mutex<Status>,
}

/// Since when the content is active, and whether the files are now invalid.
#[derive(Clone, Debug)]
pub struct Status {
    /// When the content became active.
    pub since: SystemTime,
    /// Why the files' newer content is not active; `None` if there is none.
    pub failure: Option<Failure>,
}

/// A reload that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When reloads began to fail.
    pub since: SystemTime,
    /// The error of the latest one.
    pub error: String,
}

impl<T> Clone for LastGood<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> LastGood<T> {
    /// Content that is active from now on. Without a [`FileWatcher`](super::FileWatcher) it stays.
    pub fn new(content: T) -> Self {
        Self(Arc::new(Shared {
            content: ArcSwap::from_pointee(content),
            status: Mutex::new(Status {
                since: SystemTime::now(),
                failure: None,
            }),
        }))
    }

    /// The active content.
    pub fn load(&self) -> Arc<T> {
        self.0.content.load_full()
    }

    /// The active content and its status, consistent with each other.
    pub fn with_status(&self) -> (Arc<T>, Status) {
        let status = self.0.status.lock();
        (self.load(), status.clone())
    }

    /// Why the files' newer content is not active; `None` if there is none.
    pub fn error(&self) -> Option<String> {
        let status = self.0.status.lock();
        status.failure.as_ref().map(|failure| failure.error.clone())
    }

    pub(super) fn replace(&self, content: T) {
        let mut status = self.0.status.lock();
        status.since = SystemTime::now();
        status.failure = None;
        self.0.content.store(Arc::new(content));
    }

    /// The files contain the active content again.
    pub(super) fn confirm(&self) {
        self.0.status.lock().failure = None;
    }

    pub(super) fn fail(&self, error: String) {
        let mut status = self.0.status.lock();
        let since = match &status.failure {
            Some(failure) => failure.since,
            None => SystemTime::now(),
        };
        status.failure = Some(Failure { since, error });
    }
}
