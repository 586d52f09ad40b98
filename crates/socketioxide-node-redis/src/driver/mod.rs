//! Where messages go and come from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

pub mod fred;
pub mod memory;

/// A channel of publish and subscribe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `PUBLISH`, `SUBSCRIBE`
    Plain(String),
    /// `SPUBLISH`, `SSUBSCRIBE`: in a cluster, of one shard.
    Shard(String),
}

impl Channel {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Plain(name) | Self::Shard(name) => name,
        }
    }
}

/// What one namespace subscribes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics {
    /// All channels whose name begins like this. Nothing in it is a wildcard.
    pub prefix: Option<String>,
    /// These channels.
    pub channels: Vec<Channel>,
}

/// Why a driver could not do as it was told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DriverError {
    /// So much waits to be published that this was dropped.
    #[error("the queue of publications is full")]
    Full,
    /// What the connection says.
    #[error("Redis: {0}")]
    Connection(String),
}

/// A connection to what carries messages between servers.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Publishes, after all that was published before. Never waits: what can't be
    /// sent later on is counted by the driver.
    ///
    /// # Errors
    /// When the queue is full. The message is lost.
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError>;

    /// Subscribes, and resolves when that is in force. From then on the driver
    /// keeps it so over lost connections, and tells the inbox when one came back.
    ///
    /// # Errors
    /// When it can't be done now.
    async fn subscribe(&self, topics: Topics, inbox: Inbox) -> Result<(), DriverError>;

    /// Ends a subscription.
    ///
    /// # Errors
    /// When it can't be done; nothing is delivered any more anyway.
    async fn unsubscribe(&self, topics: &Topics, inbox: &Inbox) -> Result<(), DriverError>;

    /// How many connections are subscribed to this very channel, in all.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn subscribers(&self, channel: &Channel) -> Result<usize, DriverError>;

    /// Messages that were taken for publication, but could not be published.
    fn unpublished(&self) -> u64;
}

/// Something that a namespace received.
#[derive(Debug)]
pub(crate) enum Received {
    Message {
        channel: String,
        payload: Bytes,
    },
    /// The connection had been lost, and is back: what was published in between
    /// has not been received.
    Resubscribed,
    /// So many messages did not fit, or were lost before.
    Lost(u64),
}

/// Bounds of an [`Inbox`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboxLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Where a driver puts what it receives for one namespace. Never waits, so that one
/// namespace can't hold up the others.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: mpsc::Sender<Received>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait.
    bytes: AtomicUsize,
    limit: usize,
    /// Messages that did not fit.
    lost: AtomicU64,
    /// There are such.
    losing: Notify,
}

/// The other end of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Outlet {
    queue: mpsc::Receiver<Received>,
    shared: Arc<Shared>,
}

impl Inbox {
    pub(crate) fn new(limits: InboxLimits) -> (Self, Outlet) {
        let (sender, receiver) = mpsc::channel(limits.messages.max(1));
        let shared = Arc::new(Shared { limit: limits.bytes, ..Shared::default() });
        let outlet = Outlet { queue: receiver, shared: shared.clone() };
        (Self { queue: sender, shared }, outlet)
    }

    /// Takes a message, or counts it as lost when the inbox is full.
    pub fn deliver(&self, channel: &str, payload: Bytes) {
        let len = payload.len();
        let before = self.shared.bytes.fetch_add(len, Ordering::AcqRel);
        let message = Received::Message { channel: channel.to_owned(), payload };
        // A single message of any size fits into an empty inbox.
        let fits = before == 0 || before + len <= self.shared.limit;
        if !fits || self.queue.try_send(message).is_err() {
            self.shared.bytes.fetch_sub(len, Ordering::AcqRel);
            self.lost(1);
        }
    }

    /// Messages were lost before they got here.
    pub fn lost(&self, messages: u64) {
        self.shared.lost.fetch_add(messages, Ordering::AcqRel);
        self.shared.losing.notify_one();
    }

    /// The connection was lost and is back.
    pub fn resubscribed(&self) {
        if self.queue.try_send(Received::Resubscribed).is_err() {
            // As good: the namespace has to catch up.
            self.lost(1);
        }
    }

    /// Whether two are the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Outlet {
    /// The next; what was lost is told first. `None` when all inboxes are gone.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            let lost = self.shared.lost.swap(0, Ordering::AcqRel);
            if lost > 0 {
                return Some(Received::Lost(lost));
            }
            tokio::select! {
                received = self.queue.recv() => {
                    if let Some(Received::Message { payload, .. }) = &received {
                        self.shared.bytes.fetch_sub(payload.len(), Ordering::AcqRel);
                    }
                    return received;
                }
                () = self.shared.losing.notified() => {}
            }
        }
    }
}

/// Who gets what comes over a channel.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    channels: HashMap<Channel, Inbox>,
    prefixes: HashMap<String, Inbox>,
}

impl Routes {
    pub(crate) fn add(&mut self, topics: &Topics, inbox: &Inbox) {
        for channel in &topics.channels {
            self.channels.insert(channel.clone(), inbox.clone());
        }
        if let Some(prefix) = &topics.prefix {
            self.prefixes.insert(prefix.clone(), inbox.clone());
        }
    }

    /// Takes out what this inbox still has; says what that was.
    pub(crate) fn remove(&mut self, topics: &Topics, inbox: &Inbox) -> Topics {
        let mut removed = Topics::default();
        for channel in &topics.channels {
            if self.channels.get(channel).is_some_and(|other| other.same(inbox)) {
                self.channels.remove(channel);
                removed.channels.push(channel.clone());
            }
        }
        if let Some(prefix) = &topics.prefix
            && self.prefixes.get(prefix).is_some_and(|other| other.same(inbox))
        {
            self.prefixes.remove(prefix);
            removed.prefix = Some(prefix.clone());
        }
        removed
    }

    /// The subscriber of exactly this channel.
    pub(crate) fn channel(&self, channel: &Channel) -> Option<&Inbox> {
        self.channels.get(channel)
    }

    /// Subscribers of a prefix of this name: more than one when a namespace has a
    /// `#` in its name.
    pub(crate) fn prefixes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Inbox> {
        let ends = name.match_indices('#').map(|(at, _)| at + 1);
        ends.filter_map(|end| self.prefixes.get(name.get(..end)?))
    }

    /// Each inbox once.
    pub(crate) fn inboxes(&self) -> Vec<Inbox> {
        let mut all: Vec<Inbox> = Vec::new();
        for inbox in self.channels.values() {
            if !all.iter().any(|other| other.same(inbox)) {
                all.push(inbox.clone());
            }
        }
        all
    }

    /// All that is subscribed.
    pub(crate) fn topics(&self) -> (Vec<String>, Vec<Channel>) {
        (self.prefixes.keys().cloned().collect(), self.channels.keys().cloned().collect())
    }
}
