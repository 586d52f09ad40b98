//! Traces for a collector, by OTLP over HTTP.

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Registry;

/// Where spans are sent below the endpoint (OTLP/HTTP, "Endpoint URLs for OTLP/HTTP").
const PATH: &str = "/v1/traces";

/// The way of spans to the collector: in batches, by a thread of its own, with a queue that
/// drops what does not fit. What waits is sent when this is dropped.
#[derive(Default)]
pub struct Traces {
    provider: Option<SdkTracerProvider>,
    pub(super) problem: Option<String>,
}

impl Traces {
    pub(super) fn start(
        &mut self,
        endpoint: &str,
    ) -> Option<OpenTelemetryLayer<Registry, SdkTracer>> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .build();
        let exporter = match exporter {
            Ok(exporter) => exporter,
            Err(error) => {
                self.problem = Some(error.to_string());
                return None;
            }
        };
        // OTEL_RESOURCE_ATTRIBUTES, the sampler and the bounds of the queue are the SDK's own
        // variables.
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("starling");
        }
        resource =
            resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if let Ok(instance) = std::env::var("INSTANCE_ID") {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", instance));
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        let layer = OpenTelemetryLayer::new(provider.tracer("starling"))
            .with_location(false)
            .with_threads(false);
        self.provider = Some(provider);
        Some(layer)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A collector that is away keeps nobody from ending.
            provider.shutdown().ok();
        }
    }
}
