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
    /// As folded.
    set: Arc<IdSet>,
    fold: Fold,
    /// Whether rules only report what they would have done because of it.
    shadow: bool,
    /// None for most lists, which pay nothing for it.
    more: Option<Arc<More>>,
}

/// What a list has beside its IDs.
#[derive(Debug)]
struct More {
    /// The name of the live list whose entries count as well.
    live: Option<Box<str>>,
    /// IDs that do not count.
    except: Option<Ids>,
}

/// What a list says of an ID that it contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// The entry, if it differs from the ID.
    pub entry: Option<String>,
    /// Why it is on the list, if that is known.
    pub reason: Option<Arc<str>>,
    /// When it expires, if it does.
    pub until: Option<SystemTime>,
}

/// What look-ups depend on beside the policy: the live lists at one revision, and the time.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    live: &'v LiveLists,
    /// In Unix seconds.
    now: u64,
}

impl<'v> View<'v> {
    /// The live lists `live` at the time `now`.
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
    /// The IDs of `set`, compared without the differences that `fold` ignores.
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

    /// The list with the entries of the live list `live`, and without the IDs of `except`.
    #[must_use]
    pub fn with(mut self, live: Option<&str>, except: Option<Self>) -> Self {
        if live.is_some() || except.is_some() {
            let live = live.map(Box::from);
            self.more = Some(Arc::new(More { live, except }));
        }
        self
    }

    /// The list in shadow: rules only report what they would have done because of it.
    #[must_use]
    pub fn in_shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Whether rules only report what they would have done because of it.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// The name of the live list whose entries count as well.
    pub fn live(&self) -> Option<&str> {
        self.more.as_ref()?.live.as_deref()
    }

    /// The list whose IDs do not count.
    pub fn except(&self) -> Option<&Self> {
        self.more.as_ref()?.except.as_ref()
    }

    /// Whether look-ups depend on what is no part of the policy.
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

    // Cold in the sense that lists without `fold` pay nothing for it: otherwise a look-up in them takes a nanosecond more.
    #[cold]
    #[inline(never)]
    fn contains_folded(&self, id: &str) -> bool {
        self.set.contains(&self.fold.apply(id))
    }

    /// What the list says of `id`, which it contains.
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

    /// How they are compared.
    pub fn fold(&self) -> Fold {
        self.fold
    }

    /// The number of IDs that differ, without those of a live list.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there are none, without those of a live list.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

impl More {
    /// The entry of the live list that counts now.
    #[inline]
    fn entry<'v>(&self, id: &str, hash: IdHash, view: View<'v>) -> Option<Entry<'v>> {
        let list = view.live.get(self.live.as_deref()?)?;
        let entry = list.entries().get(id, hash)?;
        entry.counts(view.now).then_some(entry)
    }
}
