use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Fold, IdHash, IdHasher, IdSet,
    live::{Entry, LiveLists},
};

/// The IDs of a list, and how they are compared.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// The IDs after folding.
    set: Arc<IdSet>,
    fold: Fold,
    /// Whether the list is in shadow: rules only report what they would have done because of it.
    shadow: bool,
    /// `None` for most lists, so that they have no overhead.
    more: Option<Arc<More>>,
}

/// The optional parts of a list.
#[derive(Debug)]
struct More {
    /// The name of the live list whose entries also belong to the list.
    live: Option<Box<str>>,
    /// IDs that are excluded from the list.
    except: Option<Ids>,
}

/// Why a list contains an ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// The matching entry, if it differs from the ID.
    pub entry: Option<String>,
    /// Why the ID is on the list, if known.
    pub reason: Option<Arc<str>>,
    /// When the entry expires; `None` if never.
    pub until: Option<SystemTime>,
}

/// What look-ups depend on in addition to the policy: the live lists at one revision, and the time.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    live: &'v LiveLists,
    /// The time, in Unix seconds.
    now: u64,
}

impl<'v> View<'v> {
    /// Creates a view of the live lists `live` at the time `now`.
    pub fn new(live: &'v LiveLists, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            live,
            now: since.as_secs(),
        }
    }

    /// The live lists.
    pub const fn live(self) -> &'v LiveLists {
        self.live
    }
}

impl Ids {
    /// Creates a list of the IDs in `set`. Look-ups ignore the differences in `fold`.
    pub fn new(set: Arc<IdSet>, fold: Fold) -> Self {
        let set = match fold.is_none() {
            true => set,
            false => Arc::new(IdSet::from_ids(set.iter().map(|id| fold.apply(id)))),
        };
        Self {
            set,
            fold,
            shadow: false,
            more: None,
        }
    }

    /// Adds the entries of the live list `live`, and excludes the IDs in `except`.
    #[must_use]
    pub fn with(mut self, live: Option<&str>, except: Option<Self>) -> Self {
        if live.is_some() || except.is_some() {
            let live = live.map(Box::from);
            self.more = Some(Arc::new(More { live, except }));
        }
        self
    }

    /// Sets whether the list is in shadow: rules then only report what they would have done because of it.
    #[must_use]
    pub fn in_shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Whether the list is in shadow: rules only report what they would have done because of it.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// The name of the live list whose entries also belong to the list.
    pub fn live(&self) -> Option<&str> {
        self.more.as_ref()?.live.as_deref()
    }

    /// The list of excluded IDs.
    pub fn except(&self) -> Option<&Self> {
        self.more.as_ref()?.except.as_ref()
    }

    /// Whether look-ups depend on live lists, here or in the list of excluded IDs.
    pub fn is_live(&self) -> bool {
        let except = |more: &More| more.except.as_ref().is_some_and(Self::is_live);
        self.more
            .as_ref()
            .is_some_and(|more| more.live.is_some() || except(more))
    }

    /// Whether the list contains `id`.
    pub fn contains(&self, id: &str, view: View<'_>) -> bool {
        self.contains_hashed(id, IdHasher::get().hash(id), view)
    }

    /// Whether the list contains `id`, whose hash is `hash`.
    #[inline]
    pub fn contains_hashed(&self, id: &str, hash: IdHash, view: View<'_>) -> bool {
        let more = match &self.more {
            None => return self.contains_static(id, hash),
            Some(more) => more,
        };
        let except = more.except.as_ref();
        (self.contains_static(id, hash) || more.entry(id, hash, view).is_some())
            && !except.is_some_and(|except| except.contains_hashed(id, hash, view))
    }

    #[inline]
    fn contains_static(&self, id: &str, hash: IdHash) -> bool {
        if self.fold.is_none() {
            self.set.contains_hashed(id, hash)
        } else {
            self.contains_folded(id)
        }
    }

    // Marked as cold to keep it out of look-ups in lists without `fold`, which otherwise take a nanosecond longer.
    #[cold]
    #[inline(never)]
    fn contains_folded(&self, id: &str) -> bool {
        self.set.contains(&self.fold.apply(id))
    }

    /// Returns why the list contains `id`. Call it only for an ID that the list contains.
    pub fn hit(&self, id: &str, view: View<'_>) -> Hit {
        let hash = IdHasher::get().hash(id);
        let live = self
            .more
            .as_ref()
            .and_then(|more| more.entry(id, hash, view));
        if let Some(entry) = live {
            let until = entry.until.map(|until| Duration::from_secs(until.into()));
            return Hit {
                entry: None,
                reason: Some(entry.reason)
                    .filter(|reason| !reason.is_empty())
                    .map(Arc::from),
                until: until.map(|until| UNIX_EPOCH + until),
            };
        }
        Hit {
            entry: match self.fold.apply(id) {
                Cow::Owned(entry) => Some(entry).filter(|entry| entry != id),
                Cow::Borrowed(_) => None,
            },
            ..Hit::default()
        }
    }

    /// The differences between IDs that the list ignores.
    pub fn fold(&self) -> Fold {
        self.fold
    }

    /// The IDs, excluding those of a live list, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.set.iter()
    }

    /// The number of distinct IDs, excluding those of a live list.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether the list has no IDs, apart from those of a live list.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

impl More {
    /// Returns the entry of `id` in the live list if it is active now.
    #[inline]
    fn entry<'v>(&self, id: &str, hash: IdHash, view: View<'v>) -> Option<Entry<'v>> {
        let list = view.live.get(self.live.as_deref()?)?;
        let entry = list.entries.get(id, hash)?;
        entry.counts(view.now).then_some(entry)
    }
}
