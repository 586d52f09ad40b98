//! The one way out: sockets, the rooms they are in, and what is sent to them, here
//! and by way of the other servers.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use socketioxide_wire::{Ack, Core, Frame, Handle, HandshakeId, Member, Rooms};
use starling_chat::{ConnectionId, Except, Fanout, Identity, Target};
use starling_protocol::event::{RoomHead, ServerEvent, SessionRevoked, SyncRequired};
use starling_protocol::{Message, MessageId, Room, RoomId, SessionId, UserId};

use super::audience::{Audience, Key, SocketId};
use super::crossing::Crossing;
use super::order::{Hole, Order};

/// An event, encoded once for all who get it.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) frame: Frame,
    pub(super) about: About,
}

/// What the hub has to know of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// A `message:new`: its place in its room.
    Message(RoomId, i64),
    /// Where a room is, for those who came into it.
    Room(RoomId, i64),
    /// A message as it is after a change, and whether another instance made that.
    Change {
        id: MessageId,
        elsewhere: bool,
    },
    Other,
}

impl Published {
    /// `None`, and a line in the log, if serde refuses.
    fn new(event: &ServerEvent) -> Option<Self> {
        let about = match event {
            ServerEvent::MessageNew(Message { room_id, seq, .. }) => About::Message(*room_id, *seq),
            ServerEvent::RoomNew(Room { id, last_seq, .. }) => About::Room(*id, *last_seq),
            ServerEvent::MessageUpdated(message) => {
                About::Change { id: message.id, elsewhere: false }
            }
            _ => About::Other,
        };
        let frame = event
            .payload()
            .map_err(|error| error.to_string())
            .and_then(|payload| {
                Frame::event("/", event.name(), payload).map_err(|error| error.to_string())
            })
            .map(|frame| if event.is_droppable() { frame.droppable() } else { frame });
        match frame {
            Ok(frame) => Some(Self { frame, about }),
            Err(error) => {
                tracing::error!(event = event.name(), error, "an event could not be encoded");
                None
            }
        }
    }

    fn place(&self) -> Option<(RoomId, i64)> {
        match self.about {
            About::Message(room, seq) => Some((room, seq)),
            _ => None,
        }
    }
}

/// An event and who gets it.
struct Parcel {
    event: Published,
    to: Audience,
}

/// The other servers. Nothing in it waits; what can't be sent is counted there.
pub trait Relay: Send + Sync + 'static {
    /// They send an event to sockets of theirs.
    fn broadcast(&self, frame: &Frame, to: &Audience);
    /// Sockets of theirs enter a room.
    fn join(&self, who: Key, room: Key);
    /// Sockets of theirs leave a room.
    fn leave(&self, who: Key, room: Key);
    /// Sockets of theirs are disconnected.
    fn disconnect(&self, who: Key);
    /// A socket of this instance entered a room. Called under the hub's lock, like
    /// the two that follow.
    fn entered(&self, _link: &Arc<Link>, _room: &Key) {}
    /// A socket of this instance left a room.
    fn left(&self, _link: &Link, _room: &Key) {}
    /// A socket of this instance is no more.
    fn gone(&self, _link: &Link) {}
}

/// One socket.
pub struct Link {
    /// The id that others may know.
    pub id: ConnectionId,
    /// Who it is.
    pub who: Identity,
    /// What the client calls `socket.id`.
    pub socket_id: SocketId,
    handle: Arc<Handle>,
    /// `session:ready` went out. Set under the hub's lock.
    ready: AtomicBool,
    /// What is published until then.
    held: Mutex<Held>,
    /// Rooms of which `session:ready` told more than this instance had got by then:
    /// up to this `seq` there is nothing new in `message:new`.
    covered: Mutex<HashMap<RoomId, i64>>,
}

#[derive(Default)]
struct Held {
    events: Vec<Published>,
    /// Rooms left since: they must not be entered from an older list.
    left: HashSet<RoomId>,
}

/// Frames held for a socket that is being set up; beyond it is closed.
const HELD_MAX: usize = 10_000;
/// Rooms in one `sync:required`: as many as one `room:sync` takes.
const SYNC_ROOMS: usize = 50;
/// Rooms that other servers may put one socket into beside its own.
const OTHER_ROOMS: usize = 1000;

impl Member for Link {
    fn number(&self) -> u64 {
        self.handle.number()
    }
}

impl Link {
    /// Sends an event to this socket.
    pub fn emit(&self, event: &ServerEvent) {
        match event.payload() {
            Ok(payload) => {
                self.handle.emit(event.name(), &payload);
            }
            Err(error) => {
                tracing::error!(event = event.name(), %error, "an event could not be encoded");
            }
        }
    }

    /// Answers an event of this socket.
    pub fn ack(&self, ack: Ack, body: &impl Serialize) {
        if !self.handle.ack(ack, body) && self.handle.connected() {
            // An acknowledgement that can't be sent must not be missing silently.
            self.end();
        }
    }

    fn publish(&self, event: &Published) {
        if self.ready.load(Ordering::Acquire) {
            if !self.has(event) {
                self.handle.send(&event.frame);
            }
            return;
        }
        let mut held = self.held.lock();
        if held.events.len() < HELD_MAX {
            held.events.push(event.clone());
        } else {
            self.end();
        }
    }

    /// Whether `session:ready` told of this message already.
    fn has(&self, event: &Published) -> bool {
        let Some((room, seq)) = event.place() else { return false };
        let mut covered = self.covered.lock();
        match covered.get(&room) {
            Some(last) if seq <= *last => true,
            Some(_) => {
                covered.remove(&room);
                false
            }
            None => false,
        }
    }

    /// Sends an event and waits for its acknowledgement, in whatever shape.
    /// False when none came in time or the socket is gone.
    pub async fn emit_with_ack<T: Serialize>(
        &self,
        event: &'static str,
        payload: &T,
        wait: Duration,
    ) -> bool {
        let answer = self.ask::<T, serde_json::Value>(event, payload, wait);
        match answer {
            Some(answer) => {
                matches!(answer.await, Ok(_) | Err(socketioxide::AckError::Decode(_)))
            }
            None => false,
        }
    }

    /// Sends an event that the client acknowledges within `wait`. `None` when it
    /// can't be sent.
    pub(super) fn ask<T: Serialize, A: serde::de::DeserializeOwned>(
        &self,
        event: &str,
        payload: &T,
        wait: Duration,
    ) -> Option<socketioxide::ack::AckStream<A>> {
        let sent = self
            .handle
            .by_engine(|socket| socket.timeout(wait).emit_with_ack::<T, A>(event, payload));
        match sent {
            Ok(answer) => Some(answer),
            Err(socketioxide::SendError::Socket(
                socketioxide::SocketError::InternalChannelFull,
            )) => {
                self.end();
                None
            }
            Err(_) => None,
        }
    }

    /// Ends the transport: the client sees `transport close` and comes back.
    pub fn end(&self) {
        self.handle.end();
    }

    /// Whether the socket is still there.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.handle.connected()
    }

    /// Disconnects, after all that was sent: the client stays away.
    pub fn disconnect(&self) {
        self.handle.disconnect();
    }

    /// Says why, then disconnects.
    pub fn revoke(&self, event: &ServerEvent) {
        self.emit(event);
        self.disconnect();
    }

    /// What the request by which it connected is called in the log, if that is asked for.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request().extensions.get::<HandshakeId>().map(|id| &*id.0)
    }

    /// The request by which it connected.
    pub(super) fn request(&self) -> &http::request::Parts {
        self.handle.socket().req_parts()
    }
}

/// What a [`Hub`] holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Sockets.
    pub links: usize,
    /// Those of them that are served by a WebSocket.
    pub websockets: usize,
    /// Lists that they are in: rooms, users, sessions.
    pub lists: usize,
}

/// All sockets of this instance.
pub struct Hub {
    core: Arc<Core>,
    /// Set when there are others.
    relay: OnceLock<Arc<dyn Relay>>,
    // One lock for all maps, so that joins, leaves and publications have one
    // order. Held while frames are queued, which never blocks.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<ConnectionId, Arc<Link>>,
    sockets: HashMap<SocketId, Arc<Link>>,
    rooms: Rooms<Key, Link>,
    /// There, when others publish to the same rooms.
    order: Option<Order<Parcel>>,
    crossing: Crossing,
    /// The same as the hub's.
    relay: Option<Arc<dyn Relay>>,
    arrivals: Arrivals,
}

/// Connections that read how their rooms stand before they enter them.
#[derive(Default)]
struct Arrivals {
    now: usize,
    /// Publications since the first of them.
    count: u64,
    /// The last of them in each room.
    rooms: HashMap<RoomId, u64>,
}

impl Arrivals {
    fn note(&mut self, parcel: &Parcel) {
        // Who is there and who types is asked for, not remembered.
        if self.now == 0 || parcel.event.frame.is_droppable() {
            return;
        }
        self.count += 1;
        for key in &parcel.to.rooms {
            if let Key::Room(room) = key {
                self.rooms.insert(*room, self.count);
            }
        }
    }
}

/// From when this was made, a connection is told whether rooms were quiet.
pub(crate) struct Watch<'a> {
    hub: &'a Hub,
    since: u64,
}

impl Watch<'_> {
    /// Enters the rooms, and answers whether nothing was published to them meanwhile:
    /// what was read of them since this watch began is true then.
    pub(crate) fn enter(&self, link: &Arc<Link>, rooms: impl IntoIterator<Item = RoomId>) -> bool {
        let mut state = self.hub.state.lock();
        let mut quiet = true;
        for room in rooms {
            if !link.held.lock().left.contains(&room) {
                state.enter(link, &Key::Room(room));
            }
            quiet &= state.arrivals.rooms.get(&room).is_none_or(|last| *last <= self.since);
        }
        quiet
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let arrivals = &mut self.hub.state.lock().arrivals;
        arrivals.now -= 1;
        if arrivals.now == 0 {
            *arrivals = Arrivals::default();
        }
    }
}

impl State {
    fn members(&self, key: &Key) -> &[Arc<Link>] {
        match key {
            Key::Socket(id) => self.sockets.get(id).map_or(&[], std::slice::from_ref),
            key => self.rooms.members(key),
        }
    }

    fn is_in(&self, link: &Link, key: &Key) -> bool {
        match key {
            Key::User(user) => link.who.user == *user,
            Key::Session(session) => link.who.session == *session,
            Key::Socket(id) => link.socket_id == *id,
            key => self.rooms.of(link).any(|room| room == key),
        }
    }

    fn each(&self, to: &Audience, mut tell: impl FnMut(&Arc<Link>)) {
        let mut tell = |link: &Arc<Link>| {
            if !to.except.iter().any(|key| self.is_in(link, key)) {
                tell(link);
            }
        };
        match &to.rooms[..] {
            [] => self.links.values().for_each(tell),
            [one] => self.members(one).iter().for_each(tell),
            many => {
                let mut seen = HashSet::new();
                for link in many.iter().flat_map(|key| self.members(key)) {
                    if seen.insert(link.number()) {
                        tell(link);
                    }
                }
            }
        }
    }

    fn select(&self, to: &Audience) -> Vec<Arc<Link>> {
        let mut links = Vec::new();
        self.each(to, |link| links.push(link.clone()));
        links
    }

    fn deliver(&self, parcel: &Parcel) {
        self.each(&parcel.to, |link| link.publish(&parcel.event));
    }

    /// Does something with the order of rooms, if there is one, and delivers what
    /// has its turn then.
    fn in_order(&mut self, run: impl FnOnce(&mut Order<Parcel>, &mut dyn FnMut(Parcel))) {
        let Some(mut order) = self.order.take() else { return };
        run(&mut order, &mut |parcel| self.deliver(&parcel));
        self.order = Some(order);
    }

    fn publish(&mut self, parcel: Parcel) {
        self.arrivals.note(&parcel);
        let now = Instant::now();
        match parcel.event.about {
            About::Message(room, seq) if self.order.is_some() => {
                // What nobody here hears has no order here.
                if !self.rooms.members(&Key::Room(room)).is_empty() {
                    self.in_order(|order, deliver| order.arrive(room, seq, parcel, now, deliver));
                }
            }
            About::Room(room, last) => {
                self.deliver(&parcel);
                self.begin(room, last);
            }
            About::Change { id, elsewhere } if self.order.is_some() => {
                self.crossing.note(id, elsewhere, now);
                self.deliver(&parcel);
            }
            _ => self.deliver(&parcel),
        }
    }

    fn begin(&mut self, room: RoomId, last: i64) {
        if !self.rooms.members(&Key::Room(room)).is_empty() {
            self.in_order(|order, deliver| order.begin(room, last, Instant::now(), deliver));
        }
    }

    fn enter(&mut self, link: &Arc<Link>, room: &Key) {
        if self.rooms.enter(link, room)
            && let Some(relay) = &self.relay
        {
            relay.entered(link, room);
        }
    }

    fn exit(&mut self, link: &Link, room: &Key) {
        if self.rooms.leave(link, room)
            && let Some(relay) = &self.relay
        {
            relay.left(link, room);
        }
        if let Key::Room(id) = room {
            if !link.ready.load(Ordering::Acquire) {
                link.held.lock().left.insert(*id);
            }
            if let Some(order) = &mut self.order
                && self.rooms.members(room).is_empty()
            {
                order.forget(*id);
            }
        }
    }

    /// A socket enters for good, by a membership that is newer than any list.
    fn join(&mut self, link: &Arc<Link>, room: &Key) {
        let others = || self.rooms.of(link).filter(|key| matches!(key, Key::Other(_))).count();
        match room {
            Key::Other(_) if others() >= OTHER_ROOMS => {
                tracing::warn!("a socket is in too many rooms that other servers put it in");
                return;
            }
            // Everybody is in those of their own, and nobody else may listen there.
            Key::User(_) | Key::Session(_) | Key::Socket(_) => return,
            Key::Room(id) => {
                if !link.ready.load(Ordering::Acquire) {
                    link.held.lock().left.remove(id);
                }
            }
            Key::Other(_) => {}
        }
        self.enter(link, room);
    }
}

impl Hub {
    /// Without sockets.
    #[must_use]
    pub fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, relay: OnceLock::new(), state: Mutex::default() })
    }

    /// There are to be other servers: the messages of a room are put in order. To be
    /// called before there are sockets.
    pub fn expect_others(&self) {
        self.state.lock().order.get_or_insert_default();
    }

    /// There are other servers, and from now on what is published goes to them too.
    /// They are told of the sockets that are here already.
    pub fn relay(&self, relay: Arc<dyn Relay>) {
        let mut state = self.state.lock();
        for link in state.links.values() {
            relay.entered(link, &Key::Socket(link.socket_id));
            state.rooms.of(&**link).for_each(|room| relay.entered(link, room));
        }
        state.relay = Some(relay.clone());
        self.relay.set(relay).ok();
    }

    /// Registers a socket. Until [`Self::ready`], what is published to it is held.
    pub fn register(&self, who: Identity, handle: Arc<Handle>) -> Arc<Link> {
        let public = self.core.public_id(handle.socket().id);
        let link = Arc::new(Link {
            id: ConnectionId(uuid::Uuid::now_v7()),
            who,
            // All ids of the engine have this length.
            socket_id: public.as_bytes().try_into().unwrap_or_default(),
            handle,
            ready: AtomicBool::new(false),
            held: Mutex::default(),
            covered: Mutex::default(),
        });
        let mut state = self.state.lock();
        state.links.insert(link.id, link.clone());
        state.sockets.insert(link.socket_id, link.clone());
        state.rooms.add(&*link);
        state.enter(&link, &Key::User(who.user));
        state.enter(&link, &Key::Session(who.session));
        if let Some(relay) = &state.relay {
            relay.entered(&link, &Key::Socket(link.socket_id));
        }
        link
    }

    /// Takes a socket out of everything. Again is fine.
    pub fn remove(&self, link: &Link) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.links.remove(&link.id).is_some()
            && let Some(relay) = &state.relay
        {
            relay.gone(link);
        }
        state.sockets.remove(&link.socket_id);
        if let Some(order) = &mut state.order {
            for room in state.rooms.of(link) {
                if let Key::Room(id) = room
                    && state.rooms.members(room).len() == 1
                {
                    order.forget(*id);
                }
            }
        }
        state.rooms.remove(link);
    }

    /// How much is here now.
    #[must_use]
    pub fn size(&self) -> Size {
        let state = self.state.lock();
        let links: Vec<_> = state.links.values().cloned().collect();
        let lists = state.rooms.len();
        drop(state);
        let websockets = links.iter().filter(|link| link.handle.is_websocket()).count();
        Size { links: links.len(), websockets, lists }
    }

    /// Begins to watch for publications, until what is returned is dropped.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let arrivals = &mut self.state.lock().arrivals;
        arrivals.now += 1;
        Watch { hub: self, since: arrivals.count }
    }

    /// How many sockets of the user are here.
    #[must_use]
    pub fn sockets_of(&self, user: UserId) -> usize {
        self.state.lock().members(&Key::User(user)).len()
    }

    /// `session:ready` goes out, then what was published meanwhile, without the
    /// messages that `heads` (each room's `lastSeq` in `session:ready`) covers.
    pub fn ready(&self, link: &Link, ready: &ServerEvent, heads: &HashMap<RoomId, i64>) {
        // Under the state's lock nothing is published in between.
        let mut state = self.state.lock();
        let held = std::mem::take(&mut *link.held.lock());
        link.emit(ready);
        for event in held.events {
            let covered = event
                .place()
                .is_some_and(|(room, seq)| heads.get(&room).is_some_and(|head| seq <= *head));
            if !covered {
                link.handle.send(&event.frame);
            }
        }
        link.ready.store(true, Ordering::Release);
        for (room, head) in heads {
            state.begin(*room, *head);
            let next = state.order.as_ref().and_then(|order| order.next(*room));
            if next.is_some_and(|next| next <= *head) {
                link.covered.lock().insert(*room, *head);
            }
        }
    }

    /// This socket alone enters a room.
    pub fn enter(&self, link: &Arc<Link>, room: RoomId) {
        self.state.lock().enter(link, &Key::Room(room));
    }

    /// Those who are in a room know of its messages up to `last`.
    pub fn begin(&self, room: RoomId, last: i64) {
        self.state.lock().begin(room, last);
    }

    /// This socket alone leaves a room.
    pub fn exit(&self, link: &Link, room: RoomId) {
        self.state.lock().exit(link, &Key::Room(room));
    }

    /// Every socket.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.state.lock().links.values().cloned().collect()
    }

    /// Sends to sockets of this instance only.
    pub(super) fn publish_here(&self, event: Published, to: Audience) {
        self.state.lock().publish(Parcel { event, to });
    }

    /// Sockets of this instance.
    pub(super) fn select(&self, to: &Audience) -> Vec<Arc<Link>> {
        self.state.lock().select(to)
    }

    /// The names of a socket's rooms, its own id first.
    pub(super) fn rooms_of(&self, link: &Link) -> Vec<String> {
        let state = self.state.lock();
        std::iter::once(Key::Socket(link.socket_id).name())
            .chain(state.rooms.of(link).map(Key::name))
            .collect()
    }

    /// The names of all rooms.
    pub(super) fn room_names(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut names = HashSet::new();
        for link in state.links.values() {
            names.insert(Key::Socket(link.socket_id).name());
            names.extend(state.rooms.of(link).map(Key::name));
        }
        names.into_iter().collect()
    }

    /// Whether anybody is in a room.
    pub(super) fn has(&self, key: &Key) -> bool {
        !self.state.lock().members(key).is_empty()
    }

    /// Sockets of this instance enter rooms.
    pub(super) fn join_here(&self, who: &Audience, rooms: &[Key]) {
        let mut state = self.state.lock();
        for link in state.select(who) {
            rooms.iter().for_each(|room| state.join(&link, room));
        }
    }

    /// Sockets of this instance leave rooms.
    pub(super) fn leave_here(&self, who: &Audience, rooms: &[Key]) {
        let mut state = self.state.lock();
        for link in state.select(who) {
            rooms.iter().for_each(|room| state.exit(&link, room));
        }
    }

    /// What has been missing from rooms for so long.
    pub(super) fn holes(&self, patience: Duration) -> Vec<Hole> {
        let state = self.state.lock();
        state.order.as_ref().map_or_else(Vec::new, |order| order.holes(Instant::now(), patience))
    }

    /// Delivers what was read for a hole; `whole` as [`Order::mend`] says.
    pub(super) fn mend(&self, hole: Hole, messages: Vec<Message>, whole: bool) {
        let found: Vec<_> = messages
            .into_iter()
            .filter_map(|message| {
                let (room, seq) = (message.room_id, message.seq);
                let event = Published::new(&ServerEvent::MessageNew(message))?;
                Some((seq, Parcel { event, to: Key::Room(room).into() }))
            })
            .collect();
        let _together = self.core.gather();
        self.state.lock().in_order(|order, deliver| {
            order.mend(hole, found, whole, Instant::now(), deliver);
        });
    }

    /// Messages that two instances changed at about the same time, so long ago.
    pub(super) fn crossed(&self, most: usize, patience: Duration) -> Vec<MessageId> {
        self.state.lock().crossing.take(most, patience, Instant::now())
    }

    /// Those could not be read.
    pub(super) fn still_crossed(&self, ids: &[MessageId]) {
        self.state.lock().crossing.again(ids, Instant::now());
    }

    /// Tells the sockets here how these messages are, as they were read from `since`
    /// on. Answers how many were told of.
    pub(super) fn settle(&self, messages: Vec<Message>, since: Instant) -> u64 {
        let mut told = 0;
        for message in messages {
            let (id, room) = (message.id, message.room_id);
            let Some(event) = Published::new(&ServerEvent::MessageUpdated(message)) else {
                continue;
            };
            let mut state = self.state.lock();
            if state.crossing.settles(id, since) {
                state.deliver(&Parcel { event, to: Key::Room(room).into() });
                told += 1;
            }
        }
        told
    }

    /// What is missing there can't be mended: the room goes on behind it, and its
    /// sockets are told to ask for themselves.
    pub(super) fn give_up(&self, hole: Hole) {
        self.state.lock().in_order(|order, deliver| {
            order.mend(hole, [], true, Instant::now(), deliver);
        });
        self.sync_required(&[(hole.room, hole.through)]);
    }

    /// Tells the sockets in these rooms, each with its newest `seq`, that they may have
    /// missed something there.
    pub(super) fn sync_required(&self, rooms: &[(RoomId, i64)]) {
        let mut told: HashMap<ConnectionId, (Arc<Link>, Vec<RoomHead>)> = HashMap::new();
        {
            let state = self.state.lock();
            for (room_id, last_seq) in rooms {
                let head = RoomHead { room_id: *room_id, last_seq: *last_seq };
                for link in state.rooms.members(&Key::Room(*room_id)) {
                    // One that is being set up gets it all new.
                    if link.ready.load(Ordering::Acquire) {
                        told.entry(link.id)
                            .or_insert_with(|| (link.clone(), Vec::new()))
                            .1
                            .push(head);
                    }
                }
            }
        }
        metrics::counter!("starling_sync_required_total").increment(told.len() as u64);
        for (link, rooms) in told.into_values() {
            for rooms in rooms.chunks(SYNC_ROOMS) {
                link.emit(&ServerEvent::SyncRequired(SyncRequired { rooms: rooms.to_vec() }));
            }
        }
    }

    /// The rooms that have sockets here, with the last `seq` that these got.
    pub(super) fn places(&self) -> Vec<(RoomId, i64)> {
        let state = self.state.lock();
        state.order.as_ref().map_or_else(Vec::new, |order| order.places().collect())
    }

    /// Messages up to these exist.
    pub(super) fn exist(&self, heads: &[(RoomId, i64)]) {
        self.state.lock().in_order(|order, _| {
            let now = Instant::now();
            heads.iter().for_each(|(room, seq)| order.exists(*room, *seq, now));
        });
    }

    fn audience(&self, target: Target, except: Except) -> Audience {
        let rooms = match target {
            Target::Room(room) => vec![Key::Room(room)],
            Target::User(user) => vec![Key::User(user)],
            Target::Rooms(rooms) => rooms.into_iter().map(Key::Room).collect(),
        };
        let except = match except {
            Except::Nobody => None,
            Except::User(user) => Some(Key::User(user)),
            Except::Connection(id) => {
                self.state.lock().links.get(&id).map(|link| Key::Socket(link.socket_id))
            }
        };
        Audience { rooms, except: except.into_iter().collect() }
    }
}

impl Fanout for Hub {
    fn publish(&self, target: Target, except: Except, event: ServerEvent) {
        // Nobody, which an empty list would not mean further on.
        if matches!(&target, Target::Rooms(rooms) if rooms.is_empty()) {
            return;
        }
        let Some(event) = Published::new(&event) else { return };
        let to = self.audience(target, except);
        if let Some(relay) = self.relay.get() {
            relay.broadcast(&event.frame, &to);
        }
        self.publish_here(event, to);
    }

    fn together(&self, publish: &mut dyn FnMut()) {
        let _together = self.core.gather();
        publish();
    }

    fn join(&self, user: UserId, room: RoomId) {
        self.join_here(&Key::User(user).into(), &[Key::Room(room)]);
        if let Some(relay) = self.relay.get() {
            relay.join(Key::User(user), Key::Room(room));
        }
    }

    fn leave(&self, user: UserId, room: RoomId) {
        self.leave_here(&Key::User(user).into(), &[Key::Room(room)]);
        if let Some(relay) = self.relay.get() {
            relay.leave(Key::User(user), Key::Room(room));
        }
    }

    fn revoke(&self, session: SessionId, reason: &str) {
        let event = ServerEvent::SessionRevoked(SessionRevoked { reason: reason.to_owned() });
        let Some(event) = Published::new(&event) else { return };
        let to = Audience::from(Key::Session(session));
        if let Some(relay) = self.relay.get() {
            relay.broadcast(&event.frame, &to);
            relay.disconnect(Key::Session(session));
        }
        for link in self.select(&to) {
            link.handle.send(&event.frame);
            link.disconnect();
        }
    }
}
