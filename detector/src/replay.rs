//! Reads a part of the stream once, without storing a position in NATS.

use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::context::Interrupted;

/// How many events are requested at once.
const BATCH_SIZE: usize = 500;

/// Timeout for the next event.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long NATS keeps the consumer after its reader is gone.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// The events in the stream, up to the first moment when no more are pending.
pub(crate) struct Replay {
    messages: pull::Stream,
    left: u64,
    /// The consumer sequence of the last message.
    delivered: u64,
}

impl Replay {
    /// Starts reading the events on the subject `filter` from `begin` onwards. All replays use the same consumer `name`, one at a time, so
    /// that the NATS user needs no permission for other consumers.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses a request.
    pub(crate) async fn open(
        stream: &Stream,
        name: &str,
        filter: &str,
        begin: DeliverPolicy,
    ) -> Result<Self, Interrupted> {
        // The consumer of the previous replay has a different start.
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

    /// Returns the next event; `None` after the last one.
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
