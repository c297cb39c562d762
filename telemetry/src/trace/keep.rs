//! What is sent of the traces that the sampler leaves out.
//!
//! A sampler decides when a trace begins, before anybody knows how it ends. So where it is this process's own choice not to
//! sample a request, a span is made of it all the same if it turns out to matter, when it has ended.

use std::{str::FromStr, time::Duration};

/// How many are sent in a second, at a kilobyte each: enough to see what is wrong, and no flood of spans from a flood of
/// requests.
pub(super) const PER_SECOND: u32 = 100;

/// From when on a span is slow enough to be sent although it was not sampled, as those are that failed or were rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSlow {
    /// From this duration on.
    After(Duration),
    /// Nothing is sent but what was sampled.
    Never,
}

/// Why a text is no [`KeepSlow`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}; write a duration such as 500ms, or never")]
pub struct InvalidKeepSlow(humantime::DurationError);

impl FromStr for KeepSlow {
    type Err = InvalidKeepSlow;

    fn from_str(text: &str) -> Result<Self, InvalidKeepSlow> {
        match text {
            "never" => Ok(Self::Never),
            _ => humantime::parse_duration(text)
                .map(Self::After)
                .map_err(InvalidKeepSlow),
        }
    }
}
