//! Redis or Valkey, through the client `fred`: standalone, Sentinel or Cluster.
//!
//! Two connections a server: one publishes, one is subscribed. Both come back by
//! themselves; the second subscribes again to all that is wanted, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::fred::clients::Client;
use ::fred::interfaces::{ClientLike, ClusterInterface, EventInterface, PubsubInterface};
use ::fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, TcpConfig,
};
use ::fred::types::{Message, MessageKind, RespVersion, Value};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Channel, Driver, DriverError, Inbox, Routes, Topics};

/// Publications that wait for the connection; beyond, new ones are lost. At a
/// kilobyte each they are as much as a second or two of a busy server.
const QUEUE: usize = 16_384;
/// Publications that have been sent and not answered: the length of the pipeline.
const IN_FLIGHT: usize = 1024;
/// Messages between the connection and [`Inbox`]es.
const RECEIVING: usize = 16_384;
/// After this long without an answer a command has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the subscribed connection is asked whether it lives: a broken one is
/// silent otherwise.
const PING: Duration = Duration::from_secs(5);
/// From one attempt to subscribe again to the next.
const RETRY: Duration = Duration::from_millis(200);

/// A [`Driver`] over `fred`. Clones share the connections, which end with the last.
#[derive(Clone)]
pub struct FredDriver {
    shared: Arc<Shared>,
}

struct Shared {
    publisher: Client,
    subscriber: Client,
    queue: mpsc::Sender<(Channel, Bytes)>,
    routes: Arc<Mutex<Routes>>,
    /// Subscribing and unsubscribing, one after the other.
    subscribing: tokio::sync::Mutex<()>,
    unpublished: Arc<AtomicU64>,
    _tasks: DropGuard,
}

impl FredDriver {
    /// Connects by a URL: `redis://`, `rediss://`, `redis-cluster://`,
    /// `redis-sentinel://`, with name and password in it. RESP3 is spoken, unless
    /// the URL ends with `?protocol=resp2`.
    ///
    /// # Errors
    /// When the URL is none, or the first connection fails.
    pub async fn from_url(url: &str) -> Result<Self, DriverError> {
        let mut config = Config::from_url(url).map_err(failed)?;
        config.version = match url.split_once('?') {
            Some((_, query)) if query.split('&').any(|part| part == "protocol=resp2") => {
                RespVersion::RESP2
            }
            _ => RespVersion::RESP3,
        };
        Self::connect(config).await
    }

    /// Connects. Prefer RESP3 in `config.version`: with RESP2, which is the default
    /// of `fred`, the subscribed connection can't be asked whether it lives, and a
    /// broken one that nobody closed is found out only by the operating system.
    ///
    /// # Errors
    /// When the first connection fails.
    pub async fn connect(config: Config) -> Result<Self, DriverError> {
        let performance = PerformanceConfig {
            default_command_timeout: PATIENCE,
            broadcast_channel_capacity: RECEIVING,
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: PATIENCE,
            internal_command_timeout: PATIENCE,
            // A publication whose connection broke may have arrived: a second one
            // would arrive twice.
            max_command_attempts: 1,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        // For ever, from 50 ms to 2 s apart.
        let policy = ReconnectPolicy::new_exponential(0, 50, 2000, 2);
        let client = || {
            Client::new(
                config.clone(),
                Some(performance.clone()),
                Some(connection.clone()),
                Some(policy.clone()),
            )
        };
        let (publisher, subscriber) = (client(), client());
        publisher.init().await.map_err(failed)?;
        let messages = subscriber.message_rx();
        subscriber.init().await.map_err(failed)?;
        // Only now, since the first connection is told as well.
        let reconnects = subscriber.reconnect_rx();

        let routes = Arc::<Mutex<Routes>>::default();
        let unpublished = Arc::<AtomicU64>::default();
        let (queue, queued) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let pings = config.version == RespVersion::RESP3;
        tokio::spawn(stop.clone().run_until_cancelled_owned(publish(
            publisher.clone(),
            queued,
            unpublished.clone(),
        )));
        tokio::spawn(stop.clone().run_until_cancelled_owned(receive(messages, routes.clone())));
        tokio::spawn(stop.clone().run_until_cancelled_owned(keep(
            subscriber.clone(),
            reconnects,
            routes.clone(),
            pings,
        )));
        let shared = Shared {
            publisher,
            subscriber,
            queue,
            routes,
            subscribing: tokio::sync::Mutex::default(),
            unpublished,
            _tasks: stop.drop_guard(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let clients = [self.publisher.clone(), self.subscriber.clone()];
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for client in clients {
                    client.quit().await.ok();
                }
            });
        }
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: ::fred::error::Error) -> DriverError {
    DriverError::Connection(error.to_string())
}

/// Publishes in order: a command is written when it is first polled, and the next
/// is not looked at before.
async fn publish(
    client: Client,
    mut queued: mpsc::Receiver<(Channel, Bytes)>,
    unpublished: Arc<AtomicU64>,
) {
    let mut in_flight = FuturesUnordered::new();
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            Some(result) = in_flight.next(), if !in_flight.is_empty() => {
                let result: Result<(), ::fred::error::Error> = result;
                if let Err(error) = &result {
                    unpublished.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        tracing::warn!(%error, "publications fail");
                    }
                }
                failing = result.is_err();
            }
            message = queued.recv(), if in_flight.len() < IN_FLIGHT => {
                let Some((channel, payload)) = message else { return };
                let client = client.clone();
                in_flight.push(async move {
                    match channel {
                        Channel::Plain(name) => client.publish::<Value, _, _>(name, payload).await,
                        Channel::Shard(name) => client.spublish::<Value, _, _>(name, payload).await,
                    }
                    .map(drop)
                });
            }
        }
    }
}

/// Hands messages to inboxes.
async fn receive(mut messages: broadcast::Receiver<Message>, routes: Arc<Mutex<Routes>>) {
    // Of a message that matches several patterns Redis sends a copy for each, one
    // after the other, but `fred` does not say for which.
    let mut copies: (String, usize) = (String::new(), 0);
    loop {
        match messages.recv().await {
            Ok(message) => {
                let channel: &str = &message.channel;
                let Some(payload) = bytes(message.value) else { continue };
                let routes = routes.lock();
                let subscribed = match message.kind {
                    MessageKind::Message => Channel::Plain(channel.to_owned()),
                    MessageKind::SMessage => Channel::Shard(channel.to_owned()),
                    MessageKind::PMessage => {
                        if copies.1 > 0 && copies.0 == channel {
                            copies.1 -= 1;
                            continue;
                        }
                        let mut all: usize = 0;
                        for inbox in routes.prefixes(channel) {
                            inbox.deliver(channel, payload.clone());
                            all += 1;
                        }
                        copies.1 = all.saturating_sub(1);
                        if copies.1 > 0 {
                            channel.clone_into(&mut copies.0);
                        }
                        continue;
                    }
                };
                if let Some(inbox) = routes.channel(&subscribed) {
                    inbox.deliver(channel, payload);
                }
            }
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                // Whose they were nobody knows.
                routes.lock().inboxes().iter().for_each(|inbox| inbox.lost(lost));
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::String(text) => Some(text.into_inner()),
        other => other.into_owned_bytes().map(Bytes::from),
    }
}

/// Keeps the subscriptions in force.
async fn keep(
    client: Client,
    mut reconnects: broadcast::Receiver<Server>,
    routes: Arc<Mutex<Routes>>,
    pings: bool,
) {
    loop {
        let reconnected = tokio::select! {
            server = reconnects.recv() => match server {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => true,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tokio::time::sleep(PING), if pings => false,
        };
        if !reconnected {
            if client.is_connected() && client.ping::<Value>(None).await.is_err() {
                tracing::warn!("the subscribed connection is silent and is made anew");
                client.force_reconnection().await.ok();
            }
            continue;
        }
        // Again until it works, or the connection is lost again.
        loop {
            let (prefixes, channels) = routes.lock().topics();
            match subscribe(&client, &prefixes, &channels).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(%error, "subscribing again failed");
                    tokio::time::sleep(RETRY).await;
                    if !client.is_connected() {
                        break;
                    }
                }
            }
        }
        routes.lock().inboxes().iter().for_each(Inbox::resubscribed);
    }
}

async fn subscribe(
    client: &Client,
    prefixes: &[String],
    channels: &[Channel],
) -> Result<(), ::fred::error::Error> {
    if !prefixes.is_empty() {
        let patterns: Vec<String> = prefixes.iter().map(|prefix| pattern(prefix)).collect();
        client.psubscribe(patterns).await?;
    }
    let (plain, shard) = split(channels);
    if !plain.is_empty() {
        client.subscribe(plain).await?;
    }
    // In a cluster each may be of another shard.
    for name in shard {
        client.ssubscribe(name).await?;
    }
    Ok(())
}

async fn unsubscribe(client: &Client, topics: Topics) -> Result<(), ::fred::error::Error> {
    let (plain, shard) = split(&topics.channels);
    // What is counted goes first.
    if !plain.is_empty() {
        client.unsubscribe(plain).await?;
    }
    for name in shard {
        client.sunsubscribe(name).await?;
    }
    if let Some(prefix) = &topics.prefix {
        client.punsubscribe(pattern(prefix)).await?;
    }
    Ok(())
}

fn split(channels: &[Channel]) -> (Vec<String>, Vec<String>) {
    let (mut plain, mut shard) = (Vec::new(), Vec::new());
    for channel in channels {
        match channel {
            Channel::Plain(name) => plain.push(name.clone()),
            Channel::Shard(name) => shard.push(name.clone()),
        }
    }
    (plain, shard)
}

/// The glob pattern of all names that begin like this.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[async_trait]
impl Driver for FredDriver {
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError> {
        self.shared.queue.try_send((channel, payload)).map_err(|_| {
            self.shared.unpublished.fetch_add(1, Ordering::Relaxed);
            DriverError::Full
        })
    }

    async fn subscribe(&self, topics: Topics, inbox: Inbox) -> Result<(), DriverError> {
        let _one = self.shared.subscribing.lock().await;
        // First, so that a connection that breaks now is subscribed by `keep`.
        self.shared.routes.lock().add(&topics, &inbox);
        let prefixes: Vec<String> = topics.prefix.iter().cloned().collect();
        let client = &self.shared.subscriber;
        let done = subscribe(client, &prefixes, &topics.channels).await;
        if done.is_err() {
            let removed = self.shared.routes.lock().remove(&topics, &inbox);
            // It may have been done all the same, and who is subscribed is waited for.
            let client = client.clone();
            tokio::spawn(async move { unsubscribe(&client, removed).await });
        }
        done.map_err(failed)
    }

    async fn unsubscribe(&self, topics: &Topics, inbox: &Inbox) -> Result<(), DriverError> {
        let _one = self.shared.subscribing.lock().await;
        let removed = self.shared.routes.lock().remove(topics, inbox);
        unsubscribe(&self.shared.subscriber, removed).await.map_err(failed)
    }

    async fn subscribers(&self, channel: &Channel) -> Result<usize, DriverError> {
        let client = &self.shared.publisher;
        let servers = client.cached_cluster_state().map(|state| state.unique_primary_nodes());
        let mut sum = 0;
        // Each node of a cluster counts its own connections.
        for server in servers.map_or(vec![None], |all| all.into_iter().map(Some).collect()) {
            let answer: Result<Vec<Value>, _> = match (channel, server) {
                (Channel::Plain(name), None) => client.pubsub_numsub(name.as_str()).await,
                (Channel::Plain(name), Some(server)) => {
                    client.with_cluster_node(server).pubsub_numsub(name.as_str()).await
                }
                (Channel::Shard(name), None) => client.pubsub_shardnumsub(name.as_str()).await,
                (Channel::Shard(name), Some(server)) => {
                    client.with_cluster_node(server).pubsub_shardnumsub(name.as_str()).await
                }
            };
            let answer = answer.map_err(failed)?;
            sum += answer.iter().filter_map(Value::as_u64).sum::<u64>();
        }
        Ok(usize::try_from(sum).unwrap_or(usize::MAX))
    }

    fn unpublished(&self) -> u64 {
        self.shared.unpublished.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for FredDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FredDriver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn nothing_in_a_prefix_is_a_wildcard() {
        assert_eq!(pattern("socket.io#/#"), "socket.io#/#*");
        assert_eq!(pattern("k#/a[b]*?\\#"), "k#/a\\[b\\]\\*\\?\\\\#*");
    }
}
