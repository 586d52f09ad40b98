//! The metrics: one table of them all, and those that are read when somebody asks.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use socketioxide_node_redis::Cluster;
use socketioxide_wire::Core;
use starling_repository::Repository;
use tokio_util::sync::CancellationToken;

use crate::gateway::EVENTS;
use crate::transport::hub::Hub;

/// What a metric is in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start.
    Counter,
    /// Is what it is now.
    Gauge,
    /// A distribution, in these buckets.
    Histogram(&'static [f64]),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// With the unit at its end.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its label, and all values that it may have: none comes from outside.
    pub label: Option<(&'static str, &'static [&'static str])>,
    /// What is counted or measured.
    pub meaning: &'static str,
}

impl Metric {
    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((label, values)), ..self }
    }
}

const fn counts(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, label: None, meaning }
}

const fn is(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, label: None, meaning }
}

const fn spreads(name: &'static str, buckets: &'static [f64], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), label: None, meaning }
}

/// From a tenth of a millisecond to the longest that anything may take.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Up to the largest batch.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// All metrics that `/metrics` has.
pub const METRICS: &[Metric] = &[
    is("starling_build_info", "1, with the version as a label"),
    is("starling_draining", "1 while the instance is about to go"),
    is("starling_connections", "sockets now").by("transport", &["websocket", "polling"]),
    is("starling_engine_sessions", "Engine.IO sessions now, also those not yet connected"),
    is("starling_direct_sessions", "of those, WebSockets that are written to directly"),
    is("starling_socket_lists", "rooms, users and sessions that have sockets here"),
    counts("starling_handshakes_total", "requests to open a session")
        .by("result", &["accepted", "rate_limited", "draining", "forbidden", "invalid"]),
    counts(
        "starling_connects_total",
        "CONNECT to the namespace; `unavailable` were closed and come again",
    )
    .by("result", &["ok", "unauthorized", "too_many", "unavailable"]),
    counts(
        "starling_arrivals_repeated_total",
        "connects that read their rooms twice, since these were not quiet",
    ),
    counts("starling_upgrades_total", "WebSockets that took over from polling"),
    counts("starling_rate_limited_total", "refused by a limit")
        .by("what", &["connects", "messages", "logins"]),
    counts(
        "starling_events_total",
        "events of clients, by `event` and `result` (`ok` or the error code)",
    ),
    counts("starling_messages_stored_total", "messages committed"),
    spreads("starling_batch_messages", SIZES, "messages in one transaction"),
    spreads("starling_batch_marks", SIZES, "receipts and read marks in one transaction"),
    spreads("starling_send_commit_seconds", SECONDS, "from taking a `message:send` to its commit"),
    spreads(
        "starling_commit_delivery_seconds",
        SECONDS,
        "from the commit until `message:new` is queued for the last socket of this instance",
    ),
    spreads(
        "starling_remote_delivery_seconds",
        SECONDS,
        "from a message's `createdAt` on another instance until it is queued for the last socket here; two clocks",
    ),
    spreads(
        "starling_flush_seconds",
        SECONDS,
        "from the first frame that waits until the last socket is written to",
    ),
    counts("starling_offline_batches_total", "batches of missed messages that were sent"),
    counts("starling_frames_total", "frames to clients; `direct` are encoded once for all")
        .by("way", &["direct", "engine"]),
    counts("starling_socket_writes_total", "system calls that wrote the direct ones"),
    counts("starling_merged_frames_total", "direct frames that shared a write with an earlier one"),
    is("starling_waiting_bytes", "queued for all sockets"),
    counts("starling_droppable_dropped_total", "typing and presence that a slow reader was spared"),
    counts("starling_slow_readers_closed_total", "slow readers whose connection was closed")
        .by("why", &["limit", "timeout"]),
    counts("starling_gaps_found_total", "places of a room's order that nothing filled in time"),
    counts("starling_gaps_healed_total", "of those, filled from PostgreSQL or late by Redis"),
    counts("starling_messages_mended_total", "messages read from PostgreSQL for that"),
    counts(
        "starling_changes_settled_total",
        "messages sent again, since two instances had changed them at about the same time",
    ),
    counts("starling_sync_required_total", "sockets that were told to ask for what they missed"),
    counts("starling_cluster_published_total", "messages to other instances"),
    counts("starling_cluster_unpublished_total", "messages that Redis did not take"),
    counts("starling_cluster_received_total", "messages of other instances"),
    counts("starling_cluster_malformed_total", "messages on their channels that could not be read"),
    counts("starling_cluster_lost_total", "messages of other instances that the full inbox lost"),
    is("starling_pool_connections", "open connections to PostgreSQL"),
    is("starling_pool_idle", "of those, unused"),
    is("starling_pool_waiting", "calls that wait for one of them"),
    spreads(
        "starling_postgres_seconds",
        SECONDS,
        "for how long a statement or transaction held its connection",
    ),
    counts("starling_database_errors_total", "calls that PostgreSQL failed"),
    is("starling_redis_up", "1 while connected"),
    spreads("starling_redis_seconds", SECONDS, "until Redis answered a command"),
    counts("starling_redis_errors_total", "commands that failed"),
    counts(
        "starling_redis_silences_total",
        "times that Redis did not answer in time and calls went on without it",
    ),
    counts("starling_room_cache_total", "newest pages asked for").by("result", &["hit", "miss"]),
    counts(
        "starling_room_cache_dropped_total",
        "writes to the room cache that were left out, since its queue was full",
    ),
];

/// Sets the metrics up, each from the beginning, so that an increase is one.
///
/// # Errors
/// When this process has metrics already.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .context("buckets of a histogram")?;
        }
    }
    let handle = builder.install_recorder().context("metrics could not be set up")?;
    for Metric { name, kind, label, meaning } in METRICS.iter().copied() {
        match kind {
            Kind::Counter => describe_counter!(name, meaning),
            Kind::Gauge => describe_gauge!(name, meaning),
            Kind::Histogram(_) => describe_histogram!(name, meaning),
        }
        if kind == Kind::Counter {
            match label {
                Some((label, values)) => {
                    values.iter().for_each(|value| counter!(name, label => *value).absolute(0));
                }
                None if name == "starling_events_total" => EVENTS.iter().for_each(|event| {
                    counter!(name, "event" => *event, "result" => "ok").absolute(0);
                }),
                None => counter!(name).absolute(0),
            }
        }
    }
    gauge!("starling_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("starling_pool_waiting").set(0.0);
    gauge!("starling_redis_up").set(0.0);
    Ok(handle)
}

/// The table as Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| name | kind | labels | what |\n| --- | --- | --- | --- |\n");
    for Metric { name, kind, label, meaning } in METRICS {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let label = match (*name, label) {
            ("starling_events_total", _) => "`event`, `result`".to_owned(),
            ("starling_build_info", _) => "`version`".to_owned(),
            (_, Some((label, values))) => format!("`{label}`: {}", values.join(", ")),
            (_, None) => String::new(),
        };
        text.push_str(&format!("| `{name}` | {kind} | {label} | {meaning} |\n"));
    }
    text
}

/// What `/metrics` prints, and where what is in it only then comes from.
#[derive(Clone)]
pub struct Metrics {
    /// What was counted.
    pub handle: PrometheusHandle,
    /// The way out of the sockets.
    pub core: Arc<Core>,
    /// The sockets and their rooms.
    pub hub: Arc<Hub>,
    /// The other instances, by the Node.js protocol.
    pub cluster: Arc<OnceLock<Cluster>>,
    /// The database.
    pub repository: Repository,
    /// Cancelled when the server is about to go.
    pub draining: CancellationToken,
}

impl Metrics {
    /// All of them, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.measure();
        self.handle.render()
    }

    fn measure(&self) {
        gauge!("starling_draining").set(f64::from(u8::from(self.draining.is_cancelled())));
        let (connections, idle) = self.repository.pool_state();
        gauge!("starling_pool_connections").set(f64::from(connections));
        gauge!("starling_pool_idle").set(idle as f64);
        let size = self.hub.size();
        let connections = "starling_connections";
        gauge!(connections, "transport" => "websocket").set(size.websockets as f64);
        gauge!(connections, "transport" => "polling").set((size.links - size.websockets) as f64);
        gauge!("starling_socket_lists").set(size.lists as f64);
        let now = self.core.sessions();
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

    /// Serves `/metrics` alone at an address of its own (`METRICS_ADDR`) until the
    /// process ends.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub async fn serve(self, addr: SocketAddr) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind(addr)
            .await
            .with_context(|| format!("METRICS_ADDR={addr}: this address can't be bound"))?;
        tracing::info!(addr = %listener.local_addr()?, "metrics");
        let routes = Router::new().route("/metrics", get(move || async move { self.render() }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_for_operators_is_this_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/METRICS.md");
        let (begin, end) = ("<!-- metrics -->\n", "<!-- /metrics -->\n");
        let text = std::fs::read_to_string(file).unwrap();
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let wanted = format!("{before}{begin}{}{end}{after}", table());
        if std::env::var_os("UPDATE_METRICS").is_some() {
            std::fs::write(file, &wanted).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(file).unwrap(),
            wanted,
            "run `just metrics` after a change"
        );
    }

    #[test]
    fn names_are_one_metric_each_and_say_what_they_are() {
        let names: HashSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("starling_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"));
        }
    }
}
