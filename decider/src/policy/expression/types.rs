//! The types of expressions, and what is known about variables and functions.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Bool,
    Int,
    Double,
    Text,
    Timestamp,
    Duration,
    /// A list written out in the expression.
    Sequence(Box<Type>),
    /// One of the policy's lists.
    Ids,
    /// The elements of an empty list, and whatever stands where something was reported: fits anything.
    Unknown,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Int => f.write_str("a whole number"),
            Self::Double => f.write_str("a number with a fraction"),
            Self::Text => f.write_str("a text"),
            Self::Timestamp => f.write_str("a point in time"),
            Self::Duration => f.write_str("a duration"),
            Self::Sequence(_) => f.write_str("a list in brackets"),
            Self::Ids => f.write_str("a list of ids"),
            Self::Unknown => f.write_str("something"),
        }
    }
}

impl Type {
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => true,
            (Self::Sequence(a), Self::Sequence(b)) => a.fits(b),
            (a, b) => a == b,
        }
    }
}

/// What a request has. `friend` comes on top where there is one.
pub(super) const VARIABLES: [(&str, Type); 5] = [
    ("ownerUserID", Type::Text),
    ("friendCount", Type::Int),
    ("requestedCount", Type::Int),
    ("operationID", Type::Text),
    ("now", Type::Timestamp),
];

/// A function's name, whether it is called on its first argument, its arguments and its result.
pub(super) type Signature = (&'static str, bool, &'static [Type], Type);

use Type::{Bool, Double, Duration, Int, Text, Timestamp};

pub(super) const FUNCTIONS: &[Signature] = &[
    ("startsWith", true, &[Text, Text], Bool),
    ("endsWith", true, &[Text, Text], Bool),
    ("contains", true, &[Text, Text], Bool),
    ("size", true, &[Text], Int),
    ("size", false, &[Text], Int),
    ("int", false, &[Int], Int),
    ("int", false, &[Double], Int),
    ("int", false, &[Text], Int),
    ("int", false, &[Timestamp], Int),
    ("double", false, &[Int], Double),
    ("double", false, &[Double], Double),
    ("double", false, &[Text], Double),
    ("string", false, &[Text], Text),
    ("string", false, &[Bool], Text),
    ("string", false, &[Int], Text),
    ("string", false, &[Double], Text),
    ("string", false, &[Timestamp], Text),
    ("string", false, &[Duration], Text),
    ("timestamp", false, &[Text], Timestamp),
    ("timestamp", false, &[Int], Timestamp),
    ("timestamp", false, &[Timestamp], Timestamp),
    ("duration", false, &[Text], Duration),
    ("duration", false, &[Duration], Duration),
    ("getFullYear", true, &[Timestamp], Int),
    ("getFullYear", true, &[Timestamp, Text], Int),
    ("getMonth", true, &[Timestamp], Int),
    ("getMonth", true, &[Timestamp, Text], Int),
    ("getDate", true, &[Timestamp], Int),
    ("getDate", true, &[Timestamp, Text], Int),
    ("getDayOfMonth", true, &[Timestamp], Int),
    ("getDayOfMonth", true, &[Timestamp, Text], Int),
    ("getDayOfWeek", true, &[Timestamp], Int),
    ("getDayOfWeek", true, &[Timestamp, Text], Int),
    ("getDayOfYear", true, &[Timestamp], Int),
    ("getDayOfYear", true, &[Timestamp, Text], Int),
    ("getHours", true, &[Timestamp], Int),
    ("getHours", true, &[Timestamp, Text], Int),
    ("getHours", true, &[Duration], Int),
    ("getMinutes", true, &[Timestamp], Int),
    ("getMinutes", true, &[Timestamp, Text], Int),
    ("getMinutes", true, &[Duration], Int),
    ("getSeconds", true, &[Timestamp], Int),
    ("getSeconds", true, &[Timestamp, Text], Int),
    ("getSeconds", true, &[Duration], Int),
];

/// What binary operators take and give. Equality and `in` work on more than can be listed, and are checked apart.
pub(super) const OPERATORS: &[(&str, Type, Type, Type)] = &[
    ("_&&_", Bool, Bool, Bool),
    ("_||_", Bool, Bool, Bool),
    ("_+_", Int, Int, Int),
    ("_+_", Double, Double, Double),
    ("_+_", Text, Text, Text),
    ("_+_", Timestamp, Duration, Timestamp),
    ("_+_", Duration, Timestamp, Timestamp),
    ("_+_", Duration, Duration, Duration),
    ("_-_", Int, Int, Int),
    ("_-_", Double, Double, Double),
    ("_-_", Timestamp, Duration, Timestamp),
    ("_-_", Timestamp, Timestamp, Duration),
    ("_-_", Duration, Duration, Duration),
    ("_*_", Int, Int, Int),
    ("_*_", Double, Double, Double),
    ("_/_", Int, Int, Int),
    ("_/_", Double, Double, Double),
    ("_%_", Int, Int, Int),
    ("_<_", Int, Int, Bool),
    ("_<_", Double, Double, Bool),
    ("_<_", Text, Text, Bool),
    ("_<_", Timestamp, Timestamp, Bool),
    ("_<_", Duration, Duration, Bool),
    ("_<=_", Int, Int, Bool),
    ("_<=_", Double, Double, Bool),
    ("_<=_", Text, Text, Bool),
    ("_<=_", Timestamp, Timestamp, Bool),
    ("_<=_", Duration, Duration, Bool),
    ("_>_", Int, Int, Bool),
    ("_>_", Double, Double, Bool),
    ("_>_", Text, Text, Bool),
    ("_>_", Timestamp, Timestamp, Bool),
    ("_>_", Duration, Duration, Bool),
    ("_>=_", Int, Int, Bool),
    ("_>=_", Double, Double, Bool),
    ("_>=_", Text, Text, Bool),
    ("_>=_", Timestamp, Timestamp, Bool),
    ("_>=_", Duration, Duration, Bool),
];
