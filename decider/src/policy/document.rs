//! What a policy file says, in the shape in which it says it.

use super::decision::RefusalCode;
use super::diagnostic::Span;

/// A value and where it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) lists: Vec<ListDefinition>,
    pub(super) rules: Vec<RuleDefinition>,
    pub(super) nobody_left: Option<RefusalDefinition>,
}

/// `name: { file: … }` or `name: { values: […] }`; both absent only if what stood there was reported.
#[derive(Clone, Debug)]
pub(super) struct ListDefinition {
    pub(super) name: Spanned<String>,
    pub(super) file: Option<Spanned<String>>,
    pub(super) values: Option<Vec<String>>,
}

/// Of the kinds exactly one is there, unless the file was found at fault.
#[derive(Clone, Debug)]
pub(super) struct RuleDefinition {
    pub(super) id: Spanned<String>,
    pub(super) refuse_owner: Option<MatcherDefinition>,
    pub(super) drop_friends: Option<MatcherDefinition>,
    pub(super) limit_friends: Option<LimitDefinition>,
    pub(super) refusal: Option<RefusalDefinition>,
}

/// Which ids a rule is about. A key that is absent matches nobody; an id matches if any key does.
#[derive(Clone, Debug)]
pub(super) struct MatcherDefinition {
    pub(super) in_list: Option<Spanned<String>>,
    pub(super) not_in: Option<Spanned<String>>,
    pub(super) prefixes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct LimitDefinition {
    pub(super) max: u32,
    pub(super) on_exceed: OnExceed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnExceed {
    Truncate,
    Refuse,
}

#[derive(Clone, Debug)]
pub(super) struct RefusalDefinition {
    pub(super) code: RefusalCode,
    pub(super) message: String,
    pub(super) detail: String,
}
