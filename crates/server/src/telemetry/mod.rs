//! What the server tells of itself: the log, traces and metrics.
//!
//! No text of a message, token, e-mail address or address of a client is in any of them.
//! Other crates' `debug` and `trace` tell of packets and queries: they are left out, whatever
//! `RUST_LOG` says ([`OURS`]).

use std::io::IsTerminal;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, dynamic_filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

pub mod metrics;
mod traces;

pub use traces::Traces;

/// What is logged when `RUST_LOG` is unset.
const DEFAULT_FILTER: &str = "info";
/// The client of Redis logs every attempt to connect; losses and returns are logged
/// once each without it. Who names `fred` in `RUST_LOG` gets it all the same.
const QUIET: &str = "fred=off";
/// Crates of which more than `info` may be logged: they keep to what is said above.
const OURS: [&str; 3] = ["starling", "socketioxide_wire", "socketioxide_node_redis"];

/// The lines of the log. Standard output belongs to what a command prints as its result.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed()
        }
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
    }
}

/// Starts the log, and the traces if there is a collector. `RUST_LOG` chooses what is
/// logged; a value that cannot be read is taken as `info` here, because the configuration
/// refuses it with a better message.
///
/// Call it outside a Tokio runtime, and keep what is returned until the end: traces wait
/// in it. A second call changes nothing: tests of one process may each ask for a log.
#[must_use]
pub fn init(format: LogFormat, otlp_endpoint: Option<&str>) -> Traces {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|value| !value.trim().is_empty())
        .and_then(|value| EnvFilter::try_new(value).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let filter = match QUIET.parse() {
        Ok(quiet) if !filter.to_string().contains("fred") => filter.add_directive(quiet),
        _ => filter,
    };
    let of = |ours: Level, others: Level| {
        Targets::new().with_targets(OURS.map(|name| (name, ours))).with_default(others)
    };
    let private = of(Level::TRACE, Level::INFO);
    let mut traces = Traces::default();
    let installed = match otlp_endpoint.and_then(|endpoint| traces.start(endpoint)) {
        None => {
            tracing_subscriber::registry().with(filter).with(private).with(lines(format)).try_init()
        }
        Some(spans) => {
            let ours = of(Level::DEBUG, Level::ERROR);
            // Asked for each span, not once for all: where every filter of a layer always says
            // yes, tracing-subscriber (0.3) goes by what the last `enabled!` of the thread
            // was told, and sqlx asks that for each query.
            let ours = dynamic_filter_fn(move |metadata, _| {
                ours.would_enable(metadata.target(), metadata.level())
            });
            let spans = spans.with_filter(ours.with_max_level_hint(LevelFilter::DEBUG));
            // They come first: their layer is made for the bare registry.
            let lines = lines(format).with_filter(filter.and(private));
            tracing_subscriber::registry().with(spans).with(lines).try_init()
        }
    };
    if installed.is_err() {
        tracing::debug!("the log was already started");
    }
    if let Some(problem) = traces.problem.take() {
        tracing::warn!("no traces will be sent: {problem}");
    }
    traces
}
