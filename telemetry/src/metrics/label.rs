use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A value of the domain as a label: compared and hashed as what it is, and a text only when it is scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<T>(pub T);

impl<T: AsRef<str>> EncodeLabelValue for Label<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_ref())
    }
}
