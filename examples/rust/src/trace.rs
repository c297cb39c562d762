//! Continues the import's trace. Exports spans to `OTEL_EXPORTER_OTLP_ENDPOINT`, if set (gRPC).

use std::{collections::HashMap, env};

use opentelemetry::{
    KeyValue,
    global::{self, BoxedSpan},
    propagation::TextMapPropagator,
    trace::{Span, SpanKind, Status, Tracer},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};

/// Keeps the exporter alive.
pub struct Tracing(Option<SdkTracerProvider>);

impl Tracing {
    /// Exports the remaining spans.
    pub fn shutdown(self) -> anyhow::Result<()> {
        match self.0 {
            Some(provider) => Ok(provider.shutdown()?),
            None => Ok(()),
        }
    }
}

pub fn init(service: &'static str) -> anyhow::Result<Tracing> {
    if env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        return Ok(Tracing(None));
    }
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| service.to_owned());
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(name).build())
        .with_batch_exporter(exporter)
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Tracing(Some(provider)))
}

/// The span for handling a message. It ends on drop.
pub fn process(subject: &str, traceparent: Option<&str>) -> BoxedSpan {
    let headers: HashMap<_, _> = traceparent
        .map(|value| ("traceparent".to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    let parent = TraceContextPropagator::new().extract(&headers);
    let tracer = global::tracer("refusals-by-owner");
    tracer
        .span_builder(format!("process {subject}"))
        .with_kind(SpanKind::Consumer)
        .with_attributes([
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", subject.to_owned()),
        ])
        .start_with_context(&tracer, &parent)
}

pub fn failed(span: &mut BoxedSpan, why: &str) {
    span.set_status(Status::error(why.to_owned()));
}
