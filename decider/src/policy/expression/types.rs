//! The types of expressions, variables, functions and operators.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Bool,
    Int,
    Double,
    String,
    Timestamp,
    Duration,
    /// A list literal in the expression.
    Sequence(Box<Type>),
    /// One of the policy's lists of IDs.
    Ids,
    /// The element type of an empty list, or the type of a part with a reported error: fits any type.
    Unknown,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Sequence(_) => f.write_str("list"),
            Self::Ids => f.write_str("list of IDs"),
            Self::Unknown => f.write_str("any"),
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

/// The variables of every expression. `dropFriendIf` also has `friend`.
pub(super) const VARIABLES: [(&str, Type); 5] = [
    ("ownerUserID", Type::String),
    ("friendCount", Type::Int),
    ("requestedCount", Type::Int),
    ("operationID", Type::String),
    ("now", Type::Timestamp),
];

/// A function's name, whether it is a member function, its arguments (the receiver first) and its result.
pub(super) type Signature = (&'static str, bool, &'static [Type], Type);

use Type::{Bool, Double, Duration, Int, String, Timestamp};

pub(super) const FUNCTIONS: &[Signature] = &[
    ("startsWith", true, &[String, String], Bool),
    ("endsWith", true, &[String, String], Bool),
    ("contains", true, &[String, String], Bool),
    ("matches", true, &[String, String], Bool),
    ("lowerAscii", true, &[String], String),
    ("upperAscii", true, &[String], String),
    ("trim", true, &[String], String),
    ("replace", true, &[String, String, String], String),
    ("substring", true, &[String, Int], String),
    ("substring", true, &[String, Int, Int], String),
    ("size", true, &[String], Int),
    ("size", false, &[String], Int),
    ("int", false, &[Int], Int),
    ("int", false, &[Double], Int),
    ("int", false, &[String], Int),
    ("int", false, &[Timestamp], Int),
    ("double", false, &[Int], Double),
    ("double", false, &[Double], Double),
    ("double", false, &[String], Double),
    ("string", false, &[String], String),
    ("string", false, &[Bool], String),
    ("string", false, &[Int], String),
    ("string", false, &[Double], String),
    ("string", false, &[Timestamp], String),
    ("string", false, &[Duration], String),
    ("timestamp", false, &[String], Timestamp),
    ("timestamp", false, &[Int], Timestamp),
    ("timestamp", false, &[Timestamp], Timestamp),
    ("duration", false, &[String], Duration),
    ("duration", false, &[Duration], Duration),
    ("getFullYear", true, &[Timestamp], Int),
    ("getFullYear", true, &[Timestamp, String], Int),
    ("getMonth", true, &[Timestamp], Int),
    ("getMonth", true, &[Timestamp, String], Int),
    ("getDate", true, &[Timestamp], Int),
    ("getDate", true, &[Timestamp, String], Int),
    ("getDayOfMonth", true, &[Timestamp], Int),
    ("getDayOfMonth", true, &[Timestamp, String], Int),
    ("getDayOfWeek", true, &[Timestamp], Int),
    ("getDayOfWeek", true, &[Timestamp, String], Int),
    ("getDayOfYear", true, &[Timestamp], Int),
    ("getDayOfYear", true, &[Timestamp, String], Int),
    ("getHours", true, &[Timestamp], Int),
    ("getHours", true, &[Timestamp, String], Int),
    ("getHours", true, &[Duration], Int),
    ("getMinutes", true, &[Timestamp], Int),
    ("getMinutes", true, &[Timestamp, String], Int),
    ("getMinutes", true, &[Duration], Int),
    ("getSeconds", true, &[Timestamp], Int),
    ("getSeconds", true, &[Timestamp, String], Int),
    ("getSeconds", true, &[Duration], Int),
];

/// The signatures of binary operators. Equality and `in` take too many types to list and are checked separately.
pub(super) const OPERATORS: &[(&str, Type, Type, Type)] = &[
    ("_&&_", Bool, Bool, Bool),
    ("_||_", Bool, Bool, Bool),
    ("_+_", Int, Int, Int),
    ("_+_", Double, Double, Double),
    ("_+_", String, String, String),
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
    ("_<_", String, String, Bool),
    ("_<_", Timestamp, Timestamp, Bool),
    ("_<_", Duration, Duration, Bool),
    ("_<=_", Int, Int, Bool),
    ("_<=_", Double, Double, Bool),
    ("_<=_", String, String, Bool),
    ("_<=_", Timestamp, Timestamp, Bool),
    ("_<=_", Duration, Duration, Bool),
    ("_>_", Int, Int, Bool),
    ("_>_", Double, Double, Bool),
    ("_>_", String, String, Bool),
    ("_>_", Timestamp, Timestamp, Bool),
    ("_>_", Duration, Duration, Bool),
    ("_>=_", Int, Int, Bool),
    ("_>=_", Double, Double, Bool),
    ("_>=_", String, String, Bool),
    ("_>=_", Timestamp, Timestamp, Bool),
    ("_>=_", Duration, Duration, Bool),
];
