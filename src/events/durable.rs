use anyhow::bail;
use async_nats::jetstream::consumer::PullConsumer;

use super::printable;

/// The prefix of the description of a durable consumer; its filters follow.
const DESCRIPTION: &str = "importguard tail";

/// A consumer whose position is kept in NATS.
#[derive(Clone)]
pub(crate) struct Durable {
    /// Its name.
    pub(crate) name: String,
    /// The filters it is used with, as flags; empty for none. NATS keeps them in the consumer's description.
    pub(crate) filters: String,
}

impl Durable {
    pub(super) fn description(&self) -> String {
        format!("{DESCRIPTION} {}", self.filters)
            .trim_end()
            .to_owned()
    }

    /// # Errors
    /// If the consumer with this name belongs to another program, which would miss what is read here, or was made with other filters: its
    /// position would pass over events that those would print.
    pub(super) fn check(&self, consumer: &PullConsumer) -> anyhow::Result<()> {
        let description = consumer.cached_info().config.description.as_deref();
        let Some(made_with) = description.and_then(|text| text.strip_prefix(DESCRIPTION)) else {
            let program = description.map(|text| format!(", {}", printable(text)));
            bail!(
                "the durable consumer {} was not made by tail{}: what this command reads, the other program would miss. \
                 Use another name for --durable",
                self.name,
                program.unwrap_or_default(),
            )
        };
        let made_with = made_with.trim();
        if made_with == self.filters {
            return Ok(());
        }
        let described = |filters: &str| match filters {
            "" => "no filters".to_owned(),
            filters => format!("the filters {}", printable(filters)),
        };
        bail!(
            "the durable consumer {} was made with {}, and this command has {}: what one of them skips, the other would miss. \
             Use the same filters, or another name for --durable. Users have other pseudonyms once their key is another",
            self.name,
            described(made_with),
            described(&self.filters),
        )
    }
}
