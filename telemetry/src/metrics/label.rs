use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A domain value as a label value: compared and hashed by value, and converted to text only when scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<T>(pub T);

impl<T: AsRef<str>> EncodeLabelValue for Label<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_ref())
    }
}
