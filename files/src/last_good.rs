use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::Files;

/// What was read last from files, as far as it could be used. Reading it never waits. Clones are handles to the same.
#[derive(Debug)]
pub struct LastGood<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    good: ArcSwap<T>,
    trouble: Mutex<Option<String>>,
}

impl<T> Clone for LastGood<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> LastGood<T> {
    /// What holds now.
    pub fn load(&self) -> Arc<T> {
        self.0.good.load_full()
    }

    /// Why what the files hold now is not what holds; `None` while all is well.
    pub fn trouble(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of files that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// They hold.
    Applied,
    /// They cannot be used, for this reason; what held before still does.
    Failed(String),
}

/// Looks at files again and again, and reads them when they have changed.
pub struct Watch<T, F> {
    last_good: LastGood<T>,
    read: F,
    /// What the last attempt read.
    attempted: Files,
    /// The same files at the last look.
    looked_at: Files,
}

impl<T, E, F> Watch<T, F>
where
    T: Send + Sync + 'static,
    E: ToString + Send + 'static,
    F: Fn() -> Result<T, E> + Clone + Send + 'static,
{
    /// Reads for the first time, blocking; what is wrong then is an error. `read` reads all of `paths` and nothing else.
    pub fn start(paths: &[PathBuf], read: F) -> Result<Self, E> {
        let mut files = Files::default();
        for path in paths {
            files.look_at(path);
        }
        let good = read()?;
        Ok(Self {
            last_good: LastGood(Arc::new(Shared {
                good: ArcSwap::from_pointee(good),
                trouble: Mutex::new(None),
            })),
            read,
            looked_at: files.clone(),
            attempted: files,
        })
    }

    /// What holds.
    pub fn last_good(&self) -> LastGood<T> {
        self.last_good.clone()
    }

    /// Looks `every` so often, and reads at once when `again` changes, for as long as it is polled; tells `told` what became of
    /// each change.
    pub async fn run(
        mut self,
        every: Duration,
        mut again: watch::Receiver<()>,
        told: impl Fn(Reading),
    ) -> Infallible {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = looks.tick() => false,
                Ok(()) = again.changed() => true,
            };
            if let Some(reading) = self.look(forced).await {
                told(reading);
            }
        }
    }

    /// Reads what changed since the last attempt and has held still since the last look, or whatever there is where that is
    /// `forced`: a file that is being written is left alone. A look or an attempt whose thread panics is made again at the next one.
    async fn look(&mut self, forced: bool) -> Option<Reading> {
        let attempted = self.attempted.clone();
        let now = spawn_blocking(move || attempted.look_again()).await.ok()?;
        let due = forced || (now != self.attempted && now == self.looked_at);
        self.looked_at = now;
        if !due {
            return None;
        }
        let (read, before) = (self.read.clone(), self.looked_at.clone());
        let attempt = spawn_blocking(move || {
            let content = read();
            (content, before.look_again() == before)
        });
        let (content, held_still) = attempt.await.ok()?;
        if !held_still {
            return None;
        }
        self.attempted = self.looked_at.clone();
        Some(match content {
            Ok(good) => {
                self.last_good.0.good.store(Arc::new(good));
                *self.last_good.lock() = None;
                Reading::Applied
            }
            Err(error) => {
                let error = error.to_string();
                *self.last_good.lock() = Some(error.clone());
                Reading::Failed(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_broken_file_changes_nothing_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        fs::write(&file, "1").unwrap();
        let read = {
            let file = file.clone();
            move || {
                let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
                text.parse::<u8>().map_err(|error| error.to_string())
            }
        };
        let mut watch = Watch::start(std::slice::from_ref(&file), read).unwrap();
        let number = watch.last_good();
        assert_eq!(watch.look(false).await, None);

        fs::write(&file, "twelve").unwrap();
        assert_eq!(watch.look(false).await, None, "it may still be written");
        assert!(matches!(watch.look(false).await, Some(Reading::Failed(_))));
        assert_eq!(watch.look(false).await, None, "it is told once");
        assert_eq!((*number.load(), number.trouble().is_some()), (1, true));

        fs::write(&file, "12").unwrap();
        assert_eq!(watch.look(false).await, None);
        assert_eq!(watch.look(false).await, Some(Reading::Applied));
        assert_eq!((*number.load(), number.trouble()), (12, None));

        assert_eq!(
            watch.look(true).await,
            Some(Reading::Applied),
            "whoever asks for it is told"
        );
    }

    #[test]
    fn a_file_that_is_broken_from_the_start_is_an_error() {
        let read = || Err::<(), _>("broken");
        assert!(Watch::start(&[], read).is_err());
    }
}
