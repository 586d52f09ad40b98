//! This server in the cluster: what all its namespaces share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use rand::RngExt as _;
use tokio::sync::broadcast;

use crate::driver::{Channel, Driver};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::protocol::{Dialect, Event, Opts, Protocol};
use crate::value::Value;

/// What must be the same on all servers, and what is this one's own choice.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The adapter that the Node.js servers use.
    pub protocol: Protocol,
    /// Their `key` (classic) or `channelPrefix` (sharded); `socket.io` by default.
    pub key: String,
    /// How long answers of other servers are waited for; 5 s by default, as in
    /// Node.js (`requestsTimeout`).
    pub requests_timeout: Duration,
    /// Answers go to the channel of the one who asked, which spares the others
    /// reading them (classic). Servers may differ in this.
    pub publish_on_specific_response_channel: bool,
    /// Messages that may wait for a namespace; beyond, they are lost and counted.
    pub inbox_messages: usize,
    /// Bytes of them.
    pub inbox_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: Protocol::Classic,
            key: "socket.io".into(),
            requests_timeout: Duration::from_secs(5),
            publish_on_specific_response_channel: false,
            inbox_messages: 16_384,
            inbox_bytes: 64 << 20,
        }
    }
}

/// What the application should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Messages of other servers were lost: they came faster than they were
    /// delivered.
    Lost {
        /// The namespace.
        nsp: String,
        /// How many.
        messages: u64,
    },
    /// The connection to Redis was lost and is back. What other servers sent in
    /// between is lost.
    Resubscribed {
        /// The namespace.
        nsp: String,
    },
}

/// A broadcast of another server, before it reaches sockets.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// The namespace.
    pub nsp: &'a str,
    /// Which server it comes from; an emitter says `emitter`.
    pub from: Option<&'a str>,
    /// The event.
    pub event: &'a Event<'a>,
    /// Who is to get it.
    pub opts: &'a Opts,
}

/// What an interceptor says of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the sockets.
    Deliver,
    /// The application deals with it, later perhaps with [`Namespace::deliver`].
    Taken,
}

/// Sends the answer to an event.
pub(crate) type Answering = Box<dyn FnOnce(Value<'_>) + Send + Sync>;

/// An event that another server sent to the servers, not to clients.
pub struct ServerSideEvent {
    /// The namespace.
    pub nsp: String,
    /// The name, then the arguments.
    data: Vec<Value<'static>>,
    answer: Option<Answering>,
}

impl ServerSideEvent {
    pub(crate) fn new(nsp: &str, data: Vec<Value<'static>>, answer: Option<Answering>) -> Self {
        Self { nsp: nsp.to_owned(), data, answer }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.data.first().and_then(Value::as_str).unwrap_or_default()
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[Value<'static>] {
        self.data.get(1..).unwrap_or_default()
    }

    /// Whether the other server waits for an answer.
    #[must_use]
    pub fn wants_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Answers. What is never answered is answered with `null` when it is dropped:
    /// the other server waits for each server.
    pub fn answer(mut self, value: Value<'_>) {
        if let Some(answer) = self.answer.take() {
            answer(value);
        }
    }
}

impl Drop for ServerSideEvent {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer(Value::Null);
        }
    }
}

impl std::fmt::Debug for ServerSideEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSideEvent")
            .field("nsp", &self.nsp)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// What Node.js tells of a socket beside its id and its rooms.
#[derive(Debug, Clone)]
pub struct Description {
    /// `socket.handshake`
    pub handshake: Value<'static>,
    /// `socket.data`
    pub data: Value<'static>,
}

type Interceptor = Arc<dyn Fn(Remote<'_>) -> Verdict + Send + Sync>;
type Listener = Arc<dyn Fn(ServerSideEvent) + Send + Sync>;
type Describer = Arc<dyn Fn(&str, &str) -> Option<Description> + Send + Sync>;
type Closer = Arc<dyn Fn(&str, &str) + Send + Sync>;

#[derive(Default)]
struct Hooks {
    interceptors: HashMap<String, Interceptor>,
    listeners: HashMap<String, Listener>,
    describer: Option<Describer>,
    closer: Option<Closer>,
}

/// Numbers of one server, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Broadcasts, requests and answers given to Redis.
    pub published: u64,
    /// Of those, what Redis did not take.
    pub unpublished: u64,
    /// Messages that came.
    pub received: u64,
    /// Of those, what was no message and was ignored.
    pub malformed: u64,
    /// Messages that came and found no place.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    published: AtomicU64,
    received: AtomicU64,
    malformed: AtomicU64,
    lost: AtomicU64,
    warned: AtomicBool,
}

impl Counters {
    pub(crate) fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// True the first time.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        !self.warned.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn lost(&self, messages: u64) {
        self.lost.fetch_add(messages, Ordering::Relaxed);
    }
}

/// This server, as the state of all its adapters
/// (`SocketIo::builder().with_adapter::<NodeRedisAdapter<_>>(cluster)`) and as what
/// the application speaks to. Clones are the same.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    driver: Arc<dyn Driver>,
    settings: Settings,
    /// Those that are being opened have a place, but nothing in it.
    namespaces: RwLock<HashMap<String, Option<Namespace>>>,
    hooks: RwLock<Hooks>,
    notices: broadcast::Sender<Notice>,
    counters: Counters,
}

/// Notices that may wait for a listener; one that misses some is told so.
const NOTICES: usize = 256;

impl Cluster {
    /// A server that speaks over this connection.
    #[must_use]
    pub fn new(driver: impl Driver, settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                driver: Arc::new(driver),
                settings,
                namespaces: RwLock::default(),
                hooks: RwLock::default(),
                notices: broadcast::Sender::new(NOTICES),
                counters: Counters::default(),
            }),
        }
    }

    /// An open namespace, by its name with the slash.
    #[must_use]
    pub fn of(&self, nsp: &str) -> Option<Namespace> {
        self.shared.namespaces.read().get(nsp).cloned().flatten()
    }

    /// Sets what looks at the broadcasts of other servers in a namespace before
    /// they reach sockets. It is called in the order in which they came, by one
    /// task, and must not wait. Broadcasts that ask clients for acknowledgements
    /// don't come by: they are delivered at once.
    pub fn intercept(
        &self,
        nsp: impl Into<String>,
        interceptor: impl Fn(Remote<'_>) -> Verdict + Send + Sync + 'static,
    ) {
        self.shared.hooks.write().interceptors.insert(nsp.into(), Arc::new(interceptor));
    }

    /// Sets what gets the events that other servers send to servers in a namespace
    /// (`io.on(name, …)` of Node.js). It must not wait; the event can be kept and
    /// answered later.
    pub fn on_server_side_emit(
        &self,
        nsp: impl Into<String>,
        listener: impl Fn(ServerSideEvent) + Send + Sync + 'static,
    ) {
        self.shared.hooks.write().listeners.insert(nsp.into(), Arc::new(listener));
    }

    /// Sets what tells `handshake` and `data` of a socket (namespace and id) to
    /// other servers; without it both are empty.
    pub fn describe(
        &self,
        describer: impl Fn(&str, &str) -> Option<Description> + Send + Sync + 'static,
    ) {
        self.shared.hooks.write().describer = Some(Arc::new(describer));
    }

    /// Sets what ends the transport of a socket (namespace and id) when another
    /// server says `disconnectSockets(true)`: socketioxide lets an adapter only
    /// disconnect it from the namespace.
    pub fn close_transports(&self, closer: impl Fn(&str, &str) + Send + Sync + 'static) {
        self.shared.hooks.write().closer = Some(Arc::new(closer));
    }

    /// What happens to the connection from now on.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> Stats {
        let Counters { published, received, malformed, lost, .. } = &self.shared.counters;
        Stats {
            published: published.load(Ordering::Relaxed),
            unpublished: self.shared.driver.unpublished(),
            received: received.load(Ordering::Relaxed),
            malformed: malformed.load(Ordering::Relaxed),
            lost: lost.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn stats(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.shared.driver
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn dialect(&self, nsp: &str) -> Dialect {
        let settings = &self.shared.settings;
        Dialect {
            protocol: settings.protocol,
            key: settings.key.clone(),
            nsp: nsp.to_owned(),
            uid: self.random_id(),
            private_answers: settings.publish_on_specific_response_channel,
        }
    }

    /// An id of a server or of a request, as Node.js makes them.
    pub(crate) fn random_id(&self) -> String {
        const CLASSIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = rand::rng();
        match self.shared.settings.protocol {
            Protocol::Classic => {
                (0..6).map(|_| char::from(CLASSIC[random.random_range(0..CLASSIC.len())])).collect()
            }
            Protocol::Sharded => format!("{:016x}", random.random::<u64>()),
        }
    }

    /// Keeps a place for a namespace that is about to be opened.
    pub(crate) fn open(&self, name: &str) -> Result<Place, Error> {
        match self.shared.namespaces.write().entry(name.to_owned()) {
            Entry::Occupied(_) => Err(Error::Open),
            Entry::Vacant(place) => {
                place.insert(None);
                Ok(Place { cluster: self.clone(), name: name.to_owned() })
            }
        }
    }

    pub(crate) fn closed(&self, namespace: &Namespace) {
        let mut all = self.shared.namespaces.write();
        let there = all.get(namespace.name()).and_then(Option::as_ref);
        if there.is_some_and(|other| other.same(namespace)) {
            all.remove(namespace.name());
        }
    }

    /// Publishes an answer. When that fails the other server's timeout tells.
    pub(crate) fn publish(&self, channel: Channel, payload: Bytes) {
        self.shared.counters.published();
        self.shared.driver.publish(channel, payload).ok();
    }

    pub(crate) fn tell(&self, notice: Notice) {
        match &notice {
            Notice::Lost { nsp, messages } => {
                tracing::warn!(nsp, messages, "messages of other servers were lost");
            }
            Notice::Resubscribed { nsp } => {
                tracing::warn!(nsp, "subscribed again: messages in between are lost");
            }
        }
        // Nobody has to listen.
        self.shared.notices.send(notice).ok();
    }

    pub(crate) fn intercepted(&self, remote: Remote<'_>) -> Verdict {
        let interceptor = self.shared.hooks.read().interceptors.get(remote.nsp).cloned();
        interceptor.map_or(Verdict::Deliver, |interceptor| interceptor(remote))
    }

    pub(crate) fn server_side(&self, event: ServerSideEvent) {
        let listener = self.shared.hooks.read().listeners.get(&event.nsp).cloned();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    pub(crate) fn description(&self, nsp: &str, sid: &str) -> Description {
        let describer = self.shared.hooks.read().describer.clone();
        let empty = || Value::Map(Vec::new());
        describer
            .and_then(|describe| describe(nsp, sid))
            .unwrap_or_else(|| Description { handshake: empty(), data: empty() })
    }

    pub(crate) fn close_transport(&self, nsp: &str, sid: &str) {
        let closer = self.shared.hooks.read().closer.clone();
        if let Some(close) = closer {
            close(nsp, sid);
        }
    }
}

/// The place of a namespace that is being opened; given up when that fails.
pub(crate) struct Place {
    cluster: Cluster,
    name: String,
}

impl Place {
    pub(crate) fn opened(self, namespace: &Namespace) {
        let mut all = self.cluster.shared.namespaces.write();
        all.insert(self.name.clone(), Some(namespace.clone()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.cluster.shared.namespaces.write();
        if all.get(&self.name).is_some_and(Option::is_none) {
            all.remove(&self.name);
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}
