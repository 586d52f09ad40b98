//! The adapter of socketioxide.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, Fuse};
use parking_lot::Mutex;
use socketioxide_core::adapter::errors::{AdapterError, BroadcastError};
use socketioxide_core::adapter::{
    AckStreamItem, BroadcastFlags, BroadcastOptions, CoreAdapter, CoreLocalAdapter, DefinedAdapter,
    RemoteSocketData, Room, RoomParam, SocketEmitter, Spawnable,
};
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::parser::Parse as _;
use socketioxide_core::{Sid, Str, Uid};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::local::{Acks, Local, SocketInfo};
use crate::namespace::Namespace;
use crate::protocol::{Event, Opts};
use crate::value::{Malformed, Value};

/// Node.js sockets that are remembered by an id of socketioxide's shape: those seen
/// last by `fetch_sockets`.
const ALIASES: usize = 100_000;

/// An adapter that makes socketioxide a server of a Node.js cluster.
///
/// ```
/// use socketioxide::{SocketIo, extract::SocketRef};
/// use socketioxide_node_redis::{Cluster, FredDriver, NodeRedisAdapter, Settings};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let driver = FredDriver::from_url("redis://127.0.0.1:6379").await?;
/// let cluster = Cluster::new(driver, Settings::default());
/// let (service, io) = SocketIo::builder()
///     .with_adapter::<NodeRedisAdapter<_>>(cluster)
///     .build_svc();
/// io.ns("/", async |socket: SocketRef<NodeRedisAdapter<_>>| {
///     socket.join("news");
/// })
/// .await?;
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
pub struct NodeRedisAdapter<E> {
    sockets: Arc<Sockets<E>>,
    cluster: Cluster,
    namespace: OnceLock<Namespace>,
    aliases: Mutex<Aliases>,
    /// Stands for all other servers: socketioxide knows no names of Node.js ones.
    others: Uid,
}

/// The local sockets, as the rest of this crate sees them.
struct Sockets<E> {
    local: CoreLocalAdapter<E>,
    cluster: Cluster,
    encoding: Encoding,
}

/// How the namespace's parser keeps arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// JSON and attachments: the common parser.
    Json,
    /// MessagePack: the parser of that name.
    Msgpack,
}

impl Encoding {
    fn encode(self, values: Value<'_>) -> socketioxide_core::Value {
        match self {
            Self::Json => {
                let (text, attachments) = values.packet();
                let attachments = (!attachments.is_empty()).then(|| VecDeque::from(attachments));
                socketioxide_core::Value::Str(Str::from(text), attachments)
            }
            Self::Msgpack => {
                let mut out = Vec::new();
                values.to_client_msgpack(&mut out);
                socketioxide_core::Value::Bytes(out.into())
            }
        }
    }
}

/// Reads what a packet keeps, whichever parser it is of.
fn values<'a>(
    value: &'a socketioxide_core::Value,
    attachments: &'a [Bytes],
) -> Result<Vec<Value<'a>>, Malformed> {
    let value = match value {
        socketioxide_core::Value::Str(text, _) => Value::from_packet(text, attachments)?,
        socketioxide_core::Value::Bytes(bytes) => Value::from_msgpack(bytes)?,
    };
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(Malformed::Shape("arguments that are no list")),
    }
}

fn attachments(value: &socketioxide_core::Value) -> Vec<Bytes> {
    match value {
        socketioxide_core::Value::Str(_, Some(attachments)) => {
            attachments.iter().cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// Does something with the event of a packet.
fn with_event<T>(
    packet: &Packet,
    run: impl FnOnce(Event<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (PacketData::Event(value, _) | PacketData::BinaryEvent(value, _)) = &packet.inner else {
        return Err(Malformed::Shape("a packet that is no event").into());
    };
    let attachments = attachments(value);
    run(Event::from_data(values(value, &attachments)?)?)
}

impl<E: SocketEmitter> Sockets<E> {
    fn path(&self) -> &Str {
        self.local.path()
    }

    fn packet(&self, event: Event<'_>) -> Packet {
        let id = event.id.and_then(|id| i64::try_from(id).ok());
        let value = self.encoding.encode(Value::Array(event.into_data()));
        let mut packet = Packet::event(self.path().clone(), value);
        if let Some(id) = id {
            packet.inner.set_ack_id(id);
        }
        packet
    }

    fn exists(&self, sid: Sid) -> bool {
        !self.local.fetch_sockets(BroadcastOptions::new(sid)).is_empty()
    }

    /// In Node.js a socket is in a room of its own id; in socketioxide it is not,
    /// until somebody asks for that room.
    fn own_room(&self, room: &str) {
        let Ok(sid) = Sid::from_str(room) else { return };
        if self.exists(sid) && !self.local.socket_rooms(sid).contains(room) {
            self.local.add_all(sid, [room.to_owned()]);
            if !self.exists(sid) {
                // It left in between, and nobody else would take it out.
                self.local.del_all(sid);
            }
        }
    }

    /// The rooms of these sockets, those of their ids among them.
    fn rooms_of(&self, options: BroadcastOptions) -> HashSet<Room> {
        // Only those that are here: one that was named by its id may be elsewhere.
        let sockets = self.local.fetch_sockets(options.clone()).into_iter();
        let mut rooms = self.local.rooms(options);
        rooms.extend(sockets.map(|socket| Room::Owned(socket.id.to_string())));
        rooms
    }

    fn options(&self, opts: &Opts) -> BroadcastOptions {
        for room in opts.rooms.iter().chain(&opts.except) {
            self.own_room(room);
        }
        let mut options = BroadcastOptions::default();
        options.rooms = opts.rooms.iter().cloned().map(Room::from).collect();
        options.except = opts.except.iter().cloned().map(Room::from).collect();
        if options.rooms.is_empty() {
            // Everybody; without the flag it would be nobody.
            options.add_flag(BroadcastFlags::Broadcast);
        }
        if opts.volatile {
            options.add_flag(BroadcastFlags::Volatile);
        }
        options
    }
}

impl<E: SocketEmitter> Local for Sockets<E> {
    fn broadcast(&self, _: Option<&str>, event: Event<'_>, opts: &Opts) {
        if let Err(errors) = self.local.broadcast(self.packet(event), self.options(opts)) {
            tracing::debug!(sockets = errors.len(), "sockets did not take a broadcast");
        }
    }

    fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        opts: &Opts,
        timeout: Option<Duration>,
    ) -> (u64, Acks) {
        let packet = self.packet(event);
        let (acks, count) = self.local.broadcast_with_ack(packet, self.options(opts), timeout);
        // A client that fails is one that stays silent: Node.js says no more.
        let acks = acks.filter_map(|(_, answer)| async move {
            let value = answer.ok()?;
            let attachments = attachments(&value);
            let first = values(&value, &attachments).ok()?.into_iter().next();
            Some(first.map_or(Value::Undefined, Value::into_owned))
        });
        (u64::from(count), acks.boxed())
    }

    fn sockets(&self, opts: &Opts) -> Vec<SocketInfo> {
        let sockets = self.local.fetch_sockets(self.options(opts)).into_iter();
        sockets
            .map(|socket| {
                let id = socket.id.to_string();
                let description = self.cluster.description(self.path(), &id);
                let rooms = self.local.socket_rooms(socket.id).into_iter().map(Room::into_owned);
                let others = rooms.filter(|room| *room != id);
                SocketInfo {
                    rooms: std::iter::once(id.clone()).chain(others).collect(),
                    handshake: description.handshake,
                    data: description.data,
                    id,
                }
            })
            .collect()
    }

    fn rooms(&self) -> Vec<String> {
        let everybody = self.options(&Opts::default());
        self.rooms_of(everybody).into_iter().map(Room::into_owned).collect()
    }

    fn has_room(&self, _: &str) -> bool {
        // socketioxide can't be asked without counting all rooms.
        true
    }

    fn join(&self, opts: &Opts, rooms: &[String]) {
        self.local.add_sockets(self.options(opts), rooms.to_vec());
    }

    fn leave(&self, opts: &Opts, rooms: &[String]) {
        self.local.del_sockets(self.options(opts), rooms.to_vec());
    }

    fn disconnect(&self, opts: &Opts, close: bool) {
        let sockets = self.local.sockets(self.options(opts));
        self.local.disconnect_socket(self.options(opts)).ok();
        if close {
            for sid in sockets {
                self.cluster.close_transport(self.path(), &sid.to_string());
            }
        }
    }
}

/// The ids of Node.js sockets are longer than those of socketioxide: each gets one
/// of that shape.
#[derive(Default)]
struct Aliases {
    ids: HashMap<Sid, Arc<str>>,
    sids: HashMap<Arc<str>, Sid>,
    order: VecDeque<Sid>,
}

impl Aliases {
    fn of(&mut self, id: &str) -> Sid {
        if let Ok(sid) = Sid::from_str(id) {
            return sid;
        }
        if let Some(sid) = self.sids.get(id) {
            return *sid;
        }
        if self.order.len() >= ALIASES
            && let Some(oldest) = self.order.pop_front()
            && let Some(id) = self.ids.remove(&oldest)
        {
            self.sids.remove(&id);
        }
        let (sid, id) = (Sid::new(), Arc::<str>::from(id));
        self.ids.insert(sid, id.clone());
        self.sids.insert(id, sid);
        self.order.push_back(sid);
        sid
    }

    /// Puts the real id in the place of one of these.
    fn resolve(&self, room: &mut String) {
        if !self.ids.is_empty()
            && let Ok(sid) = Sid::from_str(room)
            && let Some(id) = self.ids.get(&sid)
        {
            id.as_ref().clone_into(room);
        }
    }

    fn id(&self, sid: Sid) -> String {
        self.ids.get(&sid).map_or_else(|| sid.to_string(), |id| id.to_string())
    }
}

impl<E: SocketEmitter> NodeRedisAdapter<E> {
    /// The namespace in the cluster, once [`CoreAdapter::init`] has resolved.
    #[must_use]
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.get()
    }

    fn open(&self) -> Result<&Namespace, Error> {
        self.namespace.get().ok_or(Error::Closed)
    }

    /// Which sockets of other servers are meant; `None` if that is none.
    fn beyond(&self, opts: &BroadcastOptions) -> Option<Opts> {
        if opts.is_local(self.sockets.local.server_id()) {
            return None;
        }
        let (mut rooms, mut except) = (distinct(&opts.rooms), distinct(&opts.except));
        let aliases = self.aliases.lock();
        // Rooms may be named by the ids that `fetch_sockets` gave to sockets.
        rooms.iter_mut().chain(&mut except).for_each(|room| aliases.resolve(room));
        match opts.sid {
            Some(sid) if opts.has_flag(BroadcastFlags::Broadcast) => {
                except.push(sid.to_string());
            }
            // One socket, which is not here.
            Some(sid) if rooms.is_empty() => rooms.push(aliases.id(sid)),
            // socketioxide means nobody.
            None if rooms.is_empty() && !opts.has_flag(BroadcastFlags::Broadcast) => {
                return None;
            }
            _ => {}
        }
        let volatile = opts.has_flag(BroadcastFlags::Volatile);
        Some(Opts { rooms, except, volatile, timeout: None })
    }

    /// Tells the other servers, if their sockets are meant, and gets ready what is to
    /// be done here, whatever becomes of that.
    fn tell(
        &self,
        opts: &BroadcastOptions,
        tell: impl FnOnce(&Namespace, Opts) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let told = match self.beyond(opts) {
            None => Ok(()),
            Some(beyond) => self.open().and_then(|namespace| tell(namespace, beyond)),
        };
        self.prepare(opts);
        told
    }

    /// Rooms named by the ids of local sockets exist once they are asked for.
    fn prepare(&self, opts: &BroadcastOptions) {
        opts.rooms.iter().chain(&opts.except).for_each(|room| self.sockets.own_room(room));
    }

    fn incomplete(&self, what: &'static str, missing: usize) {
        if missing > 0 {
            let nsp: &str = self.sockets.path();
            tracing::warn!(nsp, missing, "servers did not answer in time: {what}");
        }
    }
}

fn distinct(rooms: &[Room]) -> Vec<String> {
    let mut seen = Vec::with_capacity(rooms.len());
    for room in rooms {
        if !seen.iter().any(|other| other == room) {
            seen.push(room.to_string());
        }
    }
    seen
}

impl<E> DefinedAdapter for NodeRedisAdapter<E> {}

/// Resolves when the namespace is subscribed.
pub struct Init(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Future for Init {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Spawnable for Init {
    fn spawn(self) {
        tokio::spawn(async move {
            if let Err(error) = self.await {
                tracing::error!(%error, "a namespace could not join the cluster");
            }
        });
    }
}

impl<E: SocketEmitter> CoreAdapter<E> for NodeRedisAdapter<E> {
    type Error = Error;
    type State = Cluster;
    type AckStream = Fuse<BoxStream<'static, AckStreamItem<E::AckError>>>;
    type InitRes = Init;

    fn new(cluster: &Cluster, local: CoreLocalAdapter<E>) -> Self {
        let encoding = match local.parser().encode_value(&(), Some("")) {
            Ok(socketioxide_core::Value::Bytes(_)) => Encoding::Msgpack,
            _ => Encoding::Json,
        };
        Self {
            sockets: Arc::new(Sockets { local, cluster: cluster.clone(), encoding }),
            cluster: cluster.clone(),
            namespace: OnceLock::new(),
            aliases: Mutex::default(),
            others: Uid::new(),
        }
    }

    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) -> Init {
        Init(Box::pin(async move {
            let sockets = self.sockets.clone();
            let namespace = Namespace::open(&self.cluster, self.sockets.path(), sockets).await?;
            self.namespace.set(namespace).ok();
            on_success();
            Ok(())
        }))
    }

    async fn close(&self) -> Result<(), Error> {
        let Some(namespace) = self.namespace.get().cloned() else { return Ok(()) };
        // At once, so that it can be opened again.
        self.cluster.closed(&namespace);
        // A task, since `SocketIo::delete_ns` looks at this future only once; and a
        // server that is still subscribed is waited for by all others.
        let closing = tokio::spawn(async move { namespace.close().await });
        closing.await.unwrap_or(Err(Error::Closed))
    }

    async fn server_count(&self) -> Result<u16, Error> {
        let count = self.open()?.server_count().await?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }

    async fn broadcast(
        &self,
        packet: Packet,
        opts: BroadcastOptions,
    ) -> Result<(), BroadcastError> {
        let told = self.tell(&opts, |namespace, opts| {
            with_event(&packet, |event| namespace.broadcast(event, &opts))
        });
        self.sockets.local.broadcast(packet, opts).map_err(BroadcastError::from)?;
        told.map_err(|error| BroadcastError::Adapter(AdapterError::from(error)))
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        opts: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<Self::AckStream, Error> {
        let beyond = self.beyond(&opts);
        self.prepare(&opts);
        let (here, _) = self.sockets.local.broadcast_with_ack(packet.clone(), opts, timeout);
        let Some(opts) = beyond else { return Ok(here.boxed().fuse()) };
        let timeout = timeout.unwrap_or_else(|| self.sockets.local.ack_timeout());
        let namespace = self.open()?.clone();
        // Owned, since the event is borrowed from the packet only up to here.
        let event = with_event(&packet, |event| Ok(event.into_owned()))?;
        let beyond = match namespace.broadcast_with_ack(event, opts, timeout).await {
            Ok(beyond) => beyond,
            Err(error) => {
                // Those here have got it, and their answers are worth having.
                tracing::warn!(%error, "other servers could not be asked for acknowledgements");
                return Ok(here.boxed().fuse());
            }
        };
        let encoding = self.sockets.encoding;
        let beyond = beyond.map(move |value| {
            let values = match value {
                Value::Undefined => Vec::new(),
                value => vec![value],
            };
            // Whose it is Node.js does not tell.
            (Sid::ZERO, Ok(encoding.encode(Value::Array(values))))
        });
        Ok(stream::select(here, beyond).boxed().fuse())
    }

    async fn add_sockets(
        &self,
        opts: BroadcastOptions,
        rooms: impl RoomParam,
    ) -> Result<(), Error> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        let told = self.tell(&opts, |ns, opts| ns.join(opts, distinct(&rooms)));
        self.sockets.local.add_sockets(opts, rooms);
        told
    }

    async fn del_sockets(
        &self,
        opts: BroadcastOptions,
        rooms: impl RoomParam,
    ) -> Result<(), Error> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        let told = self.tell(&opts, |ns, opts| ns.leave(opts, distinct(&rooms)));
        self.sockets.local.del_sockets(opts, rooms);
        told
    }

    async fn disconnect_socket(&self, opts: BroadcastOptions) -> Result<(), BroadcastError> {
        let told = self.tell(&opts, |ns, opts| ns.disconnect(opts, false));
        self.sockets.local.disconnect_socket(opts).map_err(BroadcastError::Socket)?;
        told.map_err(|error| BroadcastError::Adapter(AdapterError::from(error)))
    }

    async fn rooms(&self, opts: BroadcastOptions) -> Result<Vec<Room>, Error> {
        let beyond = self.beyond(&opts);
        self.prepare(&opts);
        let mut rooms = self.sockets.rooms_of(opts);
        if let Some(opts) = beyond {
            let namespace = self.open()?;
            let missing = if opts.rooms.is_empty() && opts.except.is_empty() {
                let all = namespace.rooms().await?;
                rooms.extend(all.items.into_iter().map(Room::from));
                all.missing
            } else {
                let some = namespace.fetch_sockets(opts).await?;
                let theirs = some.items.into_iter().flat_map(|socket| socket.rooms);
                rooms.extend(theirs.map(Room::from));
                some.missing
            };
            self.incomplete("rooms", missing);
        }
        Ok(rooms.into_iter().collect())
    }

    async fn fetch_sockets(&self, opts: BroadcastOptions) -> Result<Vec<RemoteSocketData>, Error> {
        let beyond = self.beyond(&opts);
        self.prepare(&opts);
        let mut sockets = self.sockets.local.fetch_sockets(opts);
        if let Some(opts) = beyond {
            let others = self.open()?.fetch_sockets(opts).await?;
            self.incomplete("sockets", others.missing);
            let mut aliases = self.aliases.lock();
            sockets.extend(others.items.into_iter().map(|socket| RemoteSocketData {
                id: aliases.of(&socket.id),
                server_id: self.others,
                ns: self.sockets.path().clone(),
            }));
        }
        Ok(sockets)
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        &self.sockets.local
    }
}

#[cfg(test)]
mod tests {
    use socketioxide::SocketIo;

    use super::*;
    use crate::cluster::Settings;
    use crate::driver::memory::MemoryBroker;

    #[test]
    fn ids_of_node_have_one_of_ours_each_and_the_oldest_are_forgotten() {
        let mut aliases = Aliases::default();
        let ours = Sid::new();
        assert_eq!(aliases.of(&ours.to_string()), ours);
        let first = aliases.of("AAAAAAAAAAAAAAAAAAAA");
        assert_eq!(aliases.of("AAAAAAAAAAAAAAAAAAAA"), first);
        assert_eq!(aliases.id(first), "AAAAAAAAAAAAAAAAAAAA");
        let mut room = first.to_string();
        aliases.resolve(&mut room);
        assert_eq!(room, "AAAAAAAAAAAAAAAAAAAA");
        for n in 0..ALIASES {
            aliases.of(&format!("{n:020}"));
        }
        assert_eq!(aliases.id(first), first.to_string());
        assert_eq!((aliases.ids.len(), aliases.sids.len()), (ALIASES, ALIASES));
    }

    #[tokio::test]
    async fn a_namespace_is_opened_once_and_again_when_it_was_closed() {
        let cluster = Cluster::new(MemoryBroker::default().driver(), Settings::default());
        let builder = SocketIo::builder().with_adapter::<NodeRedisAdapter<_>>(cluster.clone());
        let (_, io) = builder.build_svc();
        io.ns("/", async || {}).await.unwrap();
        assert!(matches!(io.ns("/", async || {}).await, Err(Error::Open)));
        let namespace = cluster.of("/").unwrap();
        assert_eq!(namespace.server_count().await.unwrap(), 1);
        // What this does it does without waiting.
        io.delete_ns("/");
        io.ns("/", async || {}).await.unwrap();
        assert!(!cluster.of("/").unwrap().same(&namespace));
        assert_eq!(cluster.of("/").unwrap().server_count().await.unwrap(), 1);
    }
}
