//! What is told on spans, built only where somebody will read it: without an OTLP endpoint, and for what sampling leaves out, a
//! span is no more than its ids.

use opentelemetry::{Context, KeyValue, trace::TraceContextExt};

/// Whether the span that is entered is recorded. Its attributes are set only then.
pub fn recorded() -> bool {
    Context::map_current(|cx| cx.has_active_span() && cx.span().is_recording())
}

/// Gives the span that is entered the name that it has where it is read.
pub fn rename(name: String) {
    Context::map_current(|cx| cx.span().update_name(name));
}

/// Puts an event on the span that is entered, if that is recorded. It is no log line.
pub fn event(name: &'static str, attributes: &[(&'static str, &str)]) {
    Context::map_current(|cx| {
        let span = cx.span();
        if span.is_recording() {
            let attributes = attributes
                .iter()
                .map(|&(name, value)| KeyValue::new(name, value.to_owned()));
            span.add_event(name, attributes.collect());
        }
    });
}
