//! The log: events of `tracing`, written to standard error; and the metrics that
//! are read when somebody asks.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use metrics::{counter, gauge};
use socketioxide_node_redis::Cluster;
use socketioxide_wire::Core;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;
use crate::transport::hub::Hub;

/// What is logged when `RUST_LOG` is unset.
const DEFAULT_FILTER: &str = "info";
/// The client of Redis logs every attempt to connect; losses and returns are logged
/// once each without it. Who names `fred` in `RUST_LOG` gets it all the same.
const QUIET: &str = "fred=off";

/// Starts the log. `RUST_LOG` chooses what is logged; a value that cannot be read is
/// taken as `info` here, because the configuration refuses it with a better message.
///
/// A second call changes nothing: tests of one process may each ask for a log.
pub fn init(format: LogFormat) {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|value| !value.trim().is_empty())
        .and_then(|value| EnvFilter::try_new(value).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let filter = match QUIET.parse() {
        Ok(quiet) if !filter.to_string().contains("fred") => filter.add_directive(quiet),
        _ => filter,
    };
    let registry = tracing_subscriber::registry().with(filter);
    // Standard output belongs to what a command prints as its result.
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init(),
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
        }
    };
    if installed.is_err() {
        tracing::debug!("the log was already started");
    }
}

/// What the sockets' way out tells, read when the metrics are.
#[derive(Clone)]
pub struct Traffic {
    /// The way out.
    pub core: Arc<Core>,
    /// The sockets and their rooms.
    pub hub: Arc<Hub>,
    /// The other instances, by the Node.js protocol.
    pub cluster: Arc<OnceLock<Cluster>>,
}

impl Traffic {
    /// Brings the metrics up to date.
    pub fn measure(&self) {
        let (links, lists) = self.hub.size();
        let now = self.core.sessions();
        gauge!("starling_connections").set(links as f64);
        gauge!("starling_socket_lists").set(lists as f64);
        gauge!("starling_engine_sessions").set(now.sessions as f64);
        gauge!("starling_direct_sessions").set(now.direct as f64);
        gauge!("starling_waiting_bytes").set(now.waiting_bytes as f64);
        let stats = self.core.stats();
        counter!("starling_frames_total", "way" => "direct").absolute(stats.direct_frames);
        counter!("starling_frames_total", "way" => "engine").absolute(stats.engine_frames);
        counter!("starling_socket_writes_total").absolute(stats.writes);
        counter!("starling_merged_frames_total").absolute(stats.merged_frames);
        counter!("starling_droppable_dropped_total").absolute(stats.dropped);
        counter!("starling_upgrades_total").absolute(stats.upgrades);
        let closed = "starling_slow_readers_closed_total";
        counter!(closed, "why" => "limit").absolute(stats.ended_by_limit);
        counter!(closed, "why" => "timeout").absolute(stats.ended_by_timeout);
        if let Some(cluster) = self.cluster.get() {
            let stats = cluster.counters();
            counter!("starling_cluster_published_total").absolute(stats.published);
            counter!("starling_cluster_unpublished_total").absolute(stats.unpublished);
            counter!("starling_cluster_received_total").absolute(stats.received);
            counter!("starling_cluster_malformed_total").absolute(stats.malformed);
            counter!("starling_cluster_lost_total").absolute(stats.lost);
        }
    }
}
