//! The variables of expressions.

use std::{any::Any, collections::HashMap, time::SystemTime};

use cel::{
    ExecutionError,
    common::{
        traits::Container,
        types::{CelInt, CelString, CelTimestamp, Type},
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
};
use chrono::{DateTime, FixedOffset};

use super::{check::FRIEND, is_identifier, regexes::Regexes};
use crate::lists::{Ids, View, live::LiveLists};

/// The policy's lists, by name.
#[derive(Debug, Default)]
pub(crate) struct ListValues(HashMap<String, ListValue>);

impl ListValues {
    pub(crate) fn insert(&mut self, name: &str, ids: Ids) {
        let value = ListValue {
            ids,
            // `Resolver` replaces these for a list with live entries.
            live: LiveLists::default(),
            now: SystemTime::UNIX_EPOCH,
        };
        self.0.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Ids> {
        self.0.get(name).map(|value| &value.ids)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Ids> {
        self.0.values().map(|value| &value.ids)
    }

    /// The names, for messages: those of lists whose names are valid.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| is_identifier(name))
    }
}

/// A list as a value of expressions, which support only `x in list`: millions of IDs are never copied or iterated over.
#[derive(Clone, Debug)]
struct ListValue {
    ids: Ids,
    live: LiveLists,
    now: SystemTime,
}

static IDS: Type = Type::new_unspecified_type("ids");

impl Val for ListValue {
    fn get_type(&self) -> &Type {
        &IDS
    }

    fn cel_type() -> &'static Type {
        &IDS
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for ListValue {}

impl Container for ListValue {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        match value.downcast_ref::<CelString<'_>>() {
            Some(id) => {
                let view = View::new(&self.live, self.now);
                Ok(self.ids.contains(id.inner(), view))
            }
            None => Err(ExecutionError::function_error(
                "in",
                "only a string can be in a list of ids",
            )),
        }
    }
}

/// The request at the position of an expression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'r> {
    pub(crate) owner: &'r str,
    pub(crate) operation_id: &'r str,
    /// Number of remaining friends.
    pub(crate) friend_count: usize,
    /// Number of requested friends.
    pub(crate) requested_count: usize,
    pub(crate) now: SystemTime,
    pub(crate) lists: &'r ListValues,
    pub(crate) live: &'r LiveLists,
}

impl<'r> Inputs<'r> {
    /// An empty request, for expressions that do not depend on it.
    pub(super) fn without_request(lists: &'r ListValues) -> Self {
        Self {
            owner: "",
            operation_id: "",
            friend_count: 0,
            requested_count: 0,
            now: SystemTime::UNIX_EPOCH,
            lists,
            live: LiveLists::none(),
        }
    }

    pub(super) fn resolver<'f>(
        &'f self,
        friend: Option<&'f str>,
        regexes: &'f Regexes,
    ) -> Resolver<'f> {
        Resolver {
            inputs: self,
            regexes,
            friend,
        }
    }
}

/// Creates the values of variables on demand.
pub(super) struct Resolver<'f> {
    inputs: &'f Inputs<'f>,
    regexes: &'f Regexes,
    friend: Option<&'f str>,
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let count =
            |count: usize| CowVal::owned(CelInt::from(i64::try_from(count).unwrap_or(i64::MAX)));
        match variable {
            "ownerUserID" => Some(CowVal::owned(CelString::from(self.inputs.owner))),
            "friendCount" => Some(count(self.inputs.friend_count)),
            "requestedCount" => Some(count(self.inputs.requested_count)),
            "operationID" => Some(CowVal::owned(CelString::from(self.inputs.operation_id))),
            "now" => Some(CowVal::owned(CelTimestamp::from(utc(self.inputs.now)))),
            FRIEND => self
                .friend
                .map(|friend| CowVal::owned(CelString::from(friend))),
            name => match self.inputs.lists.0.get(name) {
                Some(list) if list.ids.is_live() => Some(CowVal::owned(ListValue {
                    ids: list.ids.clone(),
                    live: self.inputs.live.clone(),
                    now: self.inputs.now,
                })),
                Some(list) => Some(CowVal::Borrowed(list as &dyn Val)),
                None => self.regexes.resolve(name),
            },
        }
    }
}

/// The time in UTC; the epoch for times before it or beyond the calendar.
fn utc(time: SystemTime) -> DateTime<FixedOffset> {
    let since_epoch = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or_default();
    DateTime::from_timestamp(seconds, since_epoch.subsec_nanos())
        .unwrap_or_default()
        .fixed_offset()
}
