//! One namespace: what it asks of the other servers, and what it answers them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::{Answering, Cluster, Notice, Remote, ServerSideEvent, Verdict};
use crate::driver::{Inbox, Outlet, Received};
use crate::error::Error;
use crate::local::{Acks, Local, SocketInfo};
use crate::protocol::{Answer, Asked, Dialect, Event, Incoming, Opts, Request};
use crate::value::{Value, object};

/// Requests of this server that wait for answers. Each waits a timeout at most.
const PENDING: usize = 10_000;
/// Answers that wait to be read by the one who asked.
const ANSWERS: usize = 65_536;
/// Broadcasts of other servers whose acknowledgements are collected here.
const COLLECTING: usize = 4096;
/// No other server makes this one collect for longer.
const LONGEST: Duration = Duration::from_secs(600);
/// What stands for "for ever" as a timeout of this server's own: later moments may
/// be none.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// What all other servers answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered<T> {
    /// From those that answered in time.
    pub items: Vec<T>,
    /// Servers that did not.
    pub missing: usize,
}

/// A namespace of this server in the cluster. Clones are the same.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    dialect: Dialect,
    cluster: Cluster,
    local: Arc<dyn Local>,
    inbox: Inbox,
    pending: Arc<Mutex<HashMap<String, mpsc::Sender<Answer<'static>>>>>,
    collecting: Arc<Semaphore>,
    /// Ends what runs for this namespace: the reader, and who collects
    /// acknowledgements.
    closed: CancellationToken,
    /// The same when nobody has the namespace any more.
    _closes: DropGuard,
}

/// Forgets a request when nobody waits for it any more.
struct Pending {
    all: Arc<Mutex<HashMap<String, mpsc::Sender<Answer<'static>>>>>,
    id: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// Takes back a subscription that failed, or that nobody waits for any more: other
/// servers would wait for the answers of one that is not there.
struct Opening(Option<Namespace>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(namespace) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { namespace.close().await });
        }
    }
}

impl Namespace {
    /// Joins the cluster: other servers see this one when it resolves.
    ///
    /// # Errors
    /// When Redis can't be subscribed to, or the cluster has this namespace already.
    pub async fn open(cluster: &Cluster, name: &str, local: Arc<dyn Local>) -> Result<Self, Error> {
        Self::open_as(cluster, cluster.dialect(name), local).await
    }

    pub(crate) async fn open_as(
        cluster: &Cluster,
        dialect: Dialect,
        local: Arc<dyn Local>,
    ) -> Result<Self, Error> {
        let place = cluster.open(&dialect.nsp)?;
        let (inbox, outlet) = Inbox::new(cluster.inbox_limits());
        let closed = CancellationToken::new();
        let namespace = Self {
            inner: Arc::new(Inner {
                dialect,
                cluster: cluster.clone(),
                local,
                inbox: inbox.clone(),
                pending: Arc::default(),
                collecting: Arc::new(Semaphore::new(COLLECTING)),
                _closes: closed.clone().drop_guard(),
                closed: closed.clone(),
            }),
        };
        let reading = read(Arc::downgrade(&namespace.inner), outlet);
        tokio::spawn(async move { closed.run_until_cancelled(reading).await });
        let topics = namespace.inner.dialect.topics();
        let mut opening = Opening(Some(namespace.clone()));
        cluster.driver().subscribe(topics, inbox).await?;
        opening.0 = None;
        place.opened(&namespace);
        Ok(namespace)
    }

    /// Leaves the cluster. Again is fine.
    ///
    /// # Errors
    /// When Redis can't be told; nothing is received any more all the same.
    pub async fn close(&self) -> Result<(), Error> {
        if self.inner.closed.is_cancelled() {
            return Ok(());
        }
        self.inner.closed.cancel();
        self.inner.cluster.closed(self);
        // Who waits for answers gets no more of them.
        self.inner.pending.lock().clear();
        let topics = self.inner.dialect.topics();
        Ok(self.inner.cluster.driver().unsubscribe(&topics, &self.inner.inbox).await?)
    }

    /// The name, with its slash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.dialect.nsp
    }

    /// The name of this server among those that have this namespace.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.inner.dialect.uid
    }

    /// Whether two are the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Sends an event to clients of the other servers. One encoding, one command.
    ///
    /// # Errors
    /// When so much is waiting for Redis that it was dropped, or the namespace is
    /// closed.
    pub fn broadcast(&self, event: Event<'_>, opts: &Opts) -> Result<(), Error> {
        self.is_open()?;
        let channel = self.inner.dialect.broadcast_channel(opts);
        let payload = self.inner.dialect.broadcast(event, opts);
        self.inner.cluster.stats().published();
        Ok(self.inner.cluster.driver().publish(channel, payload)?)
    }

    /// Sends an event to clients of the other servers, and yields what they
    /// acknowledge with, until all have or the timeout ends it. `timeout` stands in
    /// for one that `opts` has not.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub async fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        mut opts: Opts,
        timeout: Duration,
    ) -> Result<Acks, Error> {
        let timeout = *opts.timeout.get_or_insert(timeout);
        let deadline = Instant::now() + timeout.min(FOR_EVER);
        let (pending, mut answers) = self.pending()?;
        self.ask_all(Some(&pending.id), Request::Broadcast(event, opts))?;
        // After the request, as Node.js: the event waits for nothing.
        let servers = self.others().await?;
        let acks = async_stream(move |out| async move {
            let _pending = pending;
            let (mut counted, mut expected, mut received) = (0, 0u64, 0u64);
            while counted < servers || received < expected {
                match tokio::time::timeout_at(deadline, answers.recv()).await {
                    Ok(Some(Answer::ClientCount(count))) => {
                        counted += 1;
                        expected = expected.saturating_add(count);
                    }
                    Ok(Some(Answer::Ack(value))) => {
                        received += 1;
                        if out.send(value).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        });
        Ok(acks)
    }

    /// Sockets of the other servers enter rooms.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub fn join(&self, opts: Opts, rooms: Vec<String>) -> Result<(), Error> {
        self.ask_all(None, Request::Join(opts, rooms))
    }

    /// Sockets of the other servers leave rooms.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub fn leave(&self, opts: Opts, rooms: Vec<String>) -> Result<(), Error> {
        self.ask_all(None, Request::Leave(opts, rooms))
    }

    /// Sockets of the other servers are disconnected; `close` ends their transport.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub fn disconnect(&self, opts: Opts, close: bool) -> Result<(), Error> {
        self.ask_all(None, Request::Disconnect(opts, close))
    }

    /// Servers that have this namespace, this one among them.
    ///
    /// # Errors
    /// When Redis does not say.
    pub async fn server_count(&self) -> Result<usize, Error> {
        let channel = self.inner.dialect.request_channel();
        Ok(self.inner.cluster.driver().subscribers(&channel).await?)
    }

    /// The sockets of the other servers.
    ///
    /// # Errors
    /// When Redis does not take the request. Servers that are silent are counted in
    /// the answer instead.
    pub async fn fetch_sockets(&self, opts: Opts) -> Result<Gathered<SocketInfo>, Error> {
        let gathered = self.ask(Request::Fetch(opts)).await?;
        let items = gathered
            .items
            .into_iter()
            .flat_map(|answer| match answer {
                Answer::Sockets(sockets) => sockets,
                _ => Vec::new(),
            })
            .filter_map(socket_info)
            .collect();
        Ok(Gathered { items, missing: gathered.missing })
    }

    /// The rooms of the other servers, each once.
    ///
    /// # Errors
    /// When Redis does not take the request.
    pub async fn rooms(&self) -> Result<Gathered<String>, Error> {
        let gathered = self.ask(Request::AllRooms).await?;
        let mut seen = std::collections::HashSet::new();
        for answer in gathered.items {
            match answer {
                Answer::Rooms(rooms) => seen.extend(rooms),
                // The sharded adapter has no other way.
                Answer::Sockets(sockets) => {
                    seen.extend(sockets.into_iter().filter_map(socket_info).flat_map(|s| s.rooms));
                }
                _ => {}
            }
        }
        Ok(Gathered { items: seen.into_iter().collect(), missing: gathered.missing })
    }

    /// Sends an event to the other servers themselves.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub fn server_side_emit(&self, event: Event<'_>) -> Result<(), Error> {
        self.ask_all(None, Request::ServerSideEmit(event.into_data()))
    }

    /// The same, and waits for what each says. A Node.js server without a listener
    /// says nothing.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub async fn server_side_emit_with_ack(
        &self,
        event: Event<'_>,
    ) -> Result<Gathered<Value<'static>>, Error> {
        let gathered = self.ask(Request::ServerSideEmit(event.into_data())).await?;
        let items = gathered
            .items
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::ServerSide(value) => Some(value),
                _ => None,
            })
            .collect();
        Ok(Gathered { items, missing: gathered.missing })
    }

    /// Gives sockets of this server a broadcast that was
    /// [taken](crate::Verdict::Taken) before.
    pub fn deliver(&self, from: Option<&str>, event: Event<'_>, opts: &Opts) {
        self.inner.local.broadcast(from, event, opts);
    }

    fn is_open(&self) -> Result<(), Error> {
        if self.inner.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    async fn others(&self) -> Result<usize, Error> {
        Ok(self.server_count().await?.saturating_sub(1))
    }

    fn ask_all(&self, id: Option<&str>, request: Request<'_>) -> Result<(), Error> {
        self.is_open()?;
        let channel = self.inner.dialect.request_channel();
        let payload = self.inner.dialect.request(id, request);
        self.inner.cluster.stats().published();
        Ok(self.inner.cluster.driver().publish(channel, payload)?)
    }

    fn pending(&self) -> Result<(Pending, mpsc::Receiver<Answer<'static>>), Error> {
        let mut all = self.inner.pending.lock();
        // Under the lock: what closes empties the table afterwards.
        self.is_open()?;
        if all.len() >= PENDING {
            return Err(Error::Busy);
        }
        let (sender, receiver) = mpsc::channel(ANSWERS);
        let id = self.inner.cluster.random_id();
        all.insert(id.clone(), sender);
        drop(all);
        Ok((Pending { all: self.inner.pending.clone(), id }, receiver))
    }

    /// Asks all others and waits for one answer of each.
    async fn ask(&self, request: Request<'_>) -> Result<Gathered<Answer<'static>>, Error> {
        let servers = self.others().await?;
        let mut items = Vec::new();
        if servers > 0 {
            let timeout = self.inner.cluster.settings().requests_timeout;
            let deadline = Instant::now() + timeout.min(FOR_EVER);
            let (pending, mut answers) = self.pending()?;
            self.ask_all(Some(&pending.id), request)?;
            while items.len() < servers {
                match tokio::time::timeout_at(deadline, answers.recv()).await {
                    Ok(Some(answer)) => items.push(answer),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        let missing = servers - items.len();
        Ok(Gathered { items, missing })
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Runs what fills a stream. It ends when the stream is dropped.
fn async_stream<F>(run: impl FnOnce(mpsc::Sender<Value<'static>>) -> F) -> Acks
where
    F: Future<Output = ()> + Send + 'static,
{
    /// Acknowledgements ahead of the reader.
    const AHEAD: usize = 64;
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let mut running = Box::pin(run(sender).fuse());
    stream::poll_fn(move |context| {
        // Driven by the reader: no task that could outlive it.
        let _ = running.as_mut().poll(context);
        receiver.poll_recv(context)
    })
    .boxed()
}

fn socket_info(mut socket: Value<'static>) -> Option<SocketInfo> {
    let Value::Str(id) = socket.take("id")? else { return None };
    Some(SocketInfo {
        id: id.into_owned(),
        handshake: socket.take("handshake").unwrap_or_else(|| Value::Map(Vec::new())),
        rooms: crate::protocol::rooms(socket.get("rooms")).ok()?,
        data: socket.take("data").unwrap_or_else(|| Value::Map(Vec::new())),
    })
}

fn socket_value(socket: SocketInfo) -> Value<'static> {
    let rooms = Value::Array(socket.rooms.into_iter().map(Value::from).collect());
    object([
        ("id", socket.id.into()),
        ("handshake", socket.handshake),
        ("rooms", rooms),
        ("data", socket.data),
    ])
}

/// Reads what other servers say, until the subscription ends.
async fn read(namespace: std::sync::Weak<Inner>, mut outlet: Outlet) {
    while let Some(received) = outlet.next().await {
        let Some(inner) = namespace.upgrade() else { return };
        let nsp = &inner.dialect.nsp;
        match received {
            Received::Lost(messages) => {
                inner.cluster.stats().lost(messages);
                inner.cluster.tell(Notice::Lost { nsp: nsp.clone(), messages });
            }
            Received::Resubscribed => {
                inner.cluster.tell(Notice::Resubscribed { nsp: nsp.clone() });
            }
            Received::Message { channel, payload } => {
                // The application's listeners run in it: what one of them does must
                // not make the server deaf.
                let read = catch_unwind(AssertUnwindSafe(|| inner.message(&channel, &payload)));
                if read.is_err() {
                    tracing::error!(nsp, channel, "a listener panicked over a message");
                }
            }
        }
    }
}

impl Inner {
    fn message(&self, channel: &str, payload: &Bytes) {
        let stats = self.cluster.stats();
        stats.received();
        // As Node.js: before anything is decoded.
        if let Some(room) = self.dialect.room_of(channel)
            && !room.is_empty()
            && !self.local.has_room(room)
        {
            return;
        }
        match self.dialect.read(channel, payload) {
            Ok(None) => {}
            Ok(Some(Incoming::Broadcast { from, event, opts })) => {
                let from = from.as_deref();
                let remote = Remote { nsp: &self.dialect.nsp, from, event: &event, opts: &opts };
                if self.cluster.intercepted(remote) == Verdict::Deliver {
                    self.local.broadcast(from, event, &opts);
                }
            }
            Ok(Some(Incoming::Request(asked))) => self.serve(asked),
            Ok(Some(Incoming::Answer { id, answer })) => {
                // Late answers, and those to other servers, are nobody's here.
                if let Some(waiting) = self.pending.lock().get(&*id)
                    && waiting.try_send(owned(answer)).is_err()
                {
                    stats.lost(1);
                }
            }
            Err(error) => {
                if stats.malformed() {
                    tracing::warn!(channel, %error, "a message that is none was ignored; more of the kind are only counted");
                }
            }
        }
    }

    fn serve(&self, mut asked: Asked<'_>) {
        if let Some(sid) = &asked.owner_of
            && !self.local.sockets(&Opts::room(sid.clone())).iter().any(|socket| socket.id == *sid)
        {
            return;
        }
        let channel = self.dialect.answer_channel(&asked);
        let legacy = asked.owner_of.is_some();
        let id = asked.id.take();
        let answer = match asked.request {
            Request::Join(opts, rooms) => {
                self.local.join(&opts, &rooms);
                legacy.then_some(Answer::Done)
            }
            Request::Leave(opts, rooms) => {
                self.local.leave(&opts, &rooms);
                legacy.then_some(Answer::Done)
            }
            Request::Disconnect(opts, close) => {
                self.local.disconnect(&opts, close);
                legacy.then_some(Answer::Done)
            }
            // Without a name nobody could tell whose answer it is.
            Request::SocketIds(_) | Request::AllRooms | Request::Fetch(_) if id.is_none() => None,
            Request::SocketIds(opts) => {
                let ids = self.local.sockets(&opts).into_iter().map(|socket| socket.id.into());
                Some(Answer::Sockets(ids.collect()))
            }
            Request::AllRooms => Some(Answer::Rooms(self.local.rooms())),
            Request::Fetch(opts) => {
                let sockets = self.local.sockets(&opts).into_iter().map(socket_value);
                Some(Answer::Sockets(sockets.collect()))
            }
            Request::ServerSideEmit(data) => {
                let answer = {
                    let (dialect, cluster) = (self.dialect.clone(), self.cluster.clone());
                    let id = id.map(std::borrow::Cow::into_owned);
                    id.map(|id| -> Answering {
                        Box::new(move |value: Value<'_>| {
                            let payload = dialect.answer(Some(&id), Answer::ServerSide(value));
                            cluster.publish(channel, payload);
                        })
                    })
                };
                let data = data.into_iter().map(Value::into_owned).collect();
                self.cluster.server_side(ServerSideEvent::new(&self.dialect.nsp, data, answer));
                return;
            }
            Request::Broadcast(event, opts) => {
                self.collect(channel, id.as_deref(), event, &opts);
                return;
            }
        };
        if let Some(answer) = answer {
            self.cluster.publish(channel, self.dialect.answer(id.as_deref(), answer));
        }
    }

    /// Delivers a broadcast, says to how many, and passes on what they answer.
    fn collect(
        &self,
        channel: crate::driver::Channel,
        id: Option<&str>,
        event: Event<'_>,
        opts: &Opts,
    ) {
        let Ok(permit) = self.collecting.clone().try_acquire_owned() else {
            // They get the event; who asked is told that nobody here will answer.
            self.local.broadcast(None, event, opts);
            let none = self.dialect.answer(id, Answer::ClientCount(0));
            return self.cluster.publish(channel, none);
        };
        let timeout = opts.timeout.map(|timeout| timeout.min(LONGEST));
        let (count, mut acks) = self.local.broadcast_with_ack(event, opts, timeout);
        let counted = self.dialect.answer(id, Answer::ClientCount(count));
        self.cluster.publish(channel.clone(), counted);
        if count == 0 {
            return;
        }
        let (dialect, cluster) = (self.dialect.clone(), self.cluster.clone());
        let (id, closed) = (id.map(str::to_owned), self.closed.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let passing = async {
                while let Some(value) = acks.next().await {
                    let ack = dialect.answer(id.as_deref(), Answer::Ack(value));
                    cluster.publish(channel.clone(), ack);
                }
            };
            // The clients' own timeout ends it; this is for a `Local` without one.
            let ends = closed.run_until_cancelled(tokio::time::timeout(LONGEST, passing));
            ends.await;
        });
    }
}

fn owned(answer: Answer<'_>) -> Answer<'static> {
    match answer {
        Answer::Sockets(all) => Answer::Sockets(all.into_iter().map(Value::into_owned).collect()),
        Answer::Rooms(rooms) => Answer::Rooms(rooms),
        Answer::ServerSide(value) => Answer::ServerSide(value.into_owned()),
        Answer::ClientCount(count) => Answer::ClientCount(count),
        Answer::Ack(value) => Answer::Ack(value.into_owned()),
        Answer::Done => Answer::Done,
    }
}
