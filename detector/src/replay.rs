//! Reads a part of the stream once, without a position in NATS.

use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::follow::Interrupted;

/// How many events are requested at once.
const BATCH_SIZE: usize = 500;

/// How long NATS may take for the next event.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long NATS keeps the consumer of a reader that is gone.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// The events that the stream had when it was opened.
pub(crate) struct Replay {
    messages: pull::Stream,
    left: u64,
    /// The consumer's number of the last message.
    delivered: u64,
}

impl Replay {
    /// Reads the events on the subject `filter` from `begin` on with the consumer `name`, of which there is only one at a time: so its
    /// user needs no permission for other consumers.
    ///
    /// # Errors
    /// If NATS does not answer or refuses.
    pub(crate) async fn open(
        stream: &Stream,
        name: &str,
        filter: &str,
        begin: DeliverPolicy,
    ) -> Result<Self, Interrupted> {
        // That of the reader before has another beginning.
        let _ = stream.delete_consumer(name).await;
        let config = pull::Config {
            name: Some(name.to_owned()),
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            deliver_policy: begin,
            inactive_threshold: INACTIVE_THRESHOLD,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await?;
        let left = consumer.cached_info().num_pending;
        let messages = consumer.stream().max_messages_per_batch(BATCH_SIZE);
        Ok(Self {
            messages: messages.messages().await?,
            left,
            delivered: 0,
        })
    }

    /// The next event; None after the last.
    ///
    /// # Errors
    /// If reading was interrupted.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, Interrupted> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = timeout(PATIENCE, self.messages.next()).await;
        let next = next.map_err(|_| Interrupted::new("NATS does not send the stored events"))?;
        let message = next.ok_or_else(|| Interrupted::new("the connection was closed"))??;
        let info = message.info().map_err(Interrupted::new)?;
        self.delivered += 1;
        if info.consumer_sequence != self.delivered {
            return Err(Interrupted::new("an event was lost on the way"));
        }
        self.left = info.pending;
        Ok(Some(message))
    }
}
