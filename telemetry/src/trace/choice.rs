//! What was chosen for a span before the SDK makes it: whether it is recorded, and by which ids it is known.

use std::cell::RefCell;

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanId, SpanKind, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SamplingResult, ShouldSample};

thread_local! {
    static CHOICE: RefCell<Option<Choice>> = const { RefCell::new(None) };
}

/// What the next span on this thread is to be.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) sampling: SamplingResult,
}

impl Choice {
    /// Has the SDK make the one span that `make` begins as it was chosen.
    pub(super) fn holds_for<T>(self, make: impl FnOnce() -> T) -> T {
        CHOICE.set(Some(self));
        let made = make();
        CHOICE.set(None);
        made
    }
}

fn chosen<T>(what: impl FnOnce(&Choice) -> T) -> Option<T> {
    CHOICE.with_borrow(|choice| choice.as_ref().map(what))
}

/// Random ids where none was chosen.
#[derive(Debug, Default)]
pub(super) struct ChosenIds(RandomIdGenerator);

impl IdGenerator for ChosenIds {
    fn new_trace_id(&self) -> TraceId {
        chosen(|choice| choice.trace_id).unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        chosen(|choice| choice.span_id).unwrap_or_else(|| self.0.new_span_id())
    }
}

/// Samples as another sampler does where nothing was chosen.
#[derive(Clone, Debug)]
pub(super) struct ChosenSampling(pub(super) Box<dyn ShouldSample>);

impl ShouldSample for ChosenSampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        chosen(|choice| choice.sampling.clone()).unwrap_or_else(|| {
            self.0
                .should_sample(parent, trace_id, name, kind, attributes, links)
        })
    }
}
