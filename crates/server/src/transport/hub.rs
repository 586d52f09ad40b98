//! The one way out: sockets, the rooms they are in, and what is sent to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use socketioxide_wire::{Ack, Core, Frame, Handle, Member, Rooms};
use starling_chat::{ConnectionId, Except, Fanout, Identity, Target};
use starling_protocol::event::{ServerEvent, SessionRevoked};
use starling_protocol::{RoomId, SessionId, UserId};

/// An event, encoded once for all who get it.
struct Published {
    frame: Frame,
    /// The place of a `message:new` in its room.
    place: Option<(RoomId, i64)>,
}

impl Published {
    /// `None`, and a line in the log, if serde refuses.
    fn new(event: &ServerEvent) -> Option<Self> {
        let place = match event {
            ServerEvent::MessageNew(message) => Some((message.room_id, message.seq)),
            _ => None,
        };
        let frame = event
            .payload()
            .map_err(|error| error.to_string())
            .and_then(|payload| {
                Frame::event("/", event.name(), payload).map_err(|error| error.to_string())
            })
            .map(|frame| if event.is_droppable() { frame.droppable() } else { frame });
        match frame {
            Ok(frame) => Some(Self { frame, place }),
            Err(error) => {
                tracing::error!(event = event.name(), error, "an event could not be encoded");
                None
            }
        }
    }
}

/// One socket.
pub struct Link {
    /// The id that others may know.
    pub id: ConnectionId,
    /// Who it is.
    pub who: Identity,
    handle: Arc<Handle>,
    /// `session:ready` went out. Set under the hub's lock.
    ready: AtomicBool,
    /// What is published until then.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    frames: Vec<(Frame, Option<(RoomId, i64)>)>,
    /// Rooms left since: they must not be entered from an older list.
    left: HashSet<RoomId>,
}

/// Frames held for a socket that is being set up; beyond it is closed.
const HELD_MAX: usize = 10_000;

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
            self.handle.send(&event.frame);
            return;
        }
        let mut held = self.held.lock();
        if held.frames.len() < HELD_MAX {
            held.frames.push((event.frame.clone(), event.place));
        } else {
            self.end();
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
        let sent = self.handle.by_engine(|socket| {
            socket.timeout(wait).emit_with_ack::<_, serde_json::Value>(event, payload)
        });
        match sent {
            Ok(ack) => matches!(ack.await, Ok(_) | Err(socketioxide::AckError::Decode(_))),
            Err(socketioxide::SendError::Socket(
                socketioxide::SocketError::InternalChannelFull,
            )) => {
                self.end();
                false
            }
            Err(_) => false,
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

    /// Says why, then disconnects: the client stays away.
    pub fn revoke(&self, event: &ServerEvent) {
        self.emit(event);
        self.handle.disconnect();
    }
}

/// What sockets are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Room(RoomId),
    User(UserId),
    Session(SessionId),
}

/// All sockets of this instance.
pub struct Hub {
    core: Arc<Core>,
    // One lock for all maps, so that joins, leaves and publications have one
    // order. Held while frames are queued, which never blocks.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<ConnectionId, Arc<Link>>,
    rooms: Rooms<Key, Link>,
}

impl State {
    fn enter(&mut self, link: &Arc<Link>, room: RoomId) {
        self.rooms.enter(link, &Key::Room(room));
    }

    fn exit(&mut self, link: &Link, room: RoomId) {
        self.rooms.leave(link, &Key::Room(room));
        if !link.ready.load(Ordering::Acquire) {
            link.held.lock().left.insert(room);
        }
    }

    fn of_user(&self, user: UserId) -> Vec<Arc<Link>> {
        self.rooms.members(&Key::User(user)).to_vec()
    }
}

impl Hub {
    /// Without sockets.
    #[must_use]
    pub fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, state: Mutex::default() })
    }

    /// Registers a socket. Until [`Self::ready`], what is published to it is held.
    pub fn register(&self, who: Identity, handle: Arc<Handle>) -> Arc<Link> {
        let link = Arc::new(Link {
            id: ConnectionId(uuid::Uuid::now_v7()),
            who,
            handle,
            ready: AtomicBool::new(false),
            held: Mutex::default(),
        });
        let mut state = self.state.lock();
        state.links.insert(link.id, link.clone());
        state.rooms.add(&*link);
        state.rooms.enter(&link, &Key::User(who.user));
        state.rooms.enter(&link, &Key::Session(who.session));
        link
    }

    /// Takes a socket out of everything. Again is fine.
    pub fn remove(&self, link: &Link) {
        let mut state = self.state.lock();
        state.links.remove(&link.id);
        state.rooms.remove(link);
    }

    /// Sockets, and lists that they are in, now.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.links.len(), state.rooms.len())
    }

    /// The socket enters rooms that a list from the database named.
    pub fn enter_all(&self, link: &Arc<Link>, rooms: &[RoomId]) {
        let mut state = self.state.lock();
        for room in rooms {
            if !link.held.lock().left.contains(room) {
                state.enter(link, *room);
            }
        }
    }

    /// `session:ready` goes out, then what was published meanwhile, without the
    /// messages that `heads` (each room's `lastSeq` in `session:ready`) covers.
    pub fn ready(&self, link: &Link, ready: &ServerEvent, heads: &HashMap<RoomId, i64>) {
        // Under the state's lock nothing is published in between.
        let _state = self.state.lock();
        let held = std::mem::take(&mut *link.held.lock());
        link.emit(ready);
        for (frame, place) in held.frames {
            let covered =
                place.is_some_and(|(room, seq)| heads.get(&room).is_some_and(|head| seq <= *head));
            if !covered {
                link.handle.send(&frame);
            }
        }
        link.ready.store(true, Ordering::Release);
    }

    /// This socket alone enters a room.
    pub fn enter(&self, link: &Arc<Link>, room: RoomId) {
        self.state.lock().enter(link, room);
    }

    /// This socket alone leaves a room.
    pub fn exit(&self, link: &Link, room: RoomId) {
        self.state.lock().exit(link, room);
    }

    /// Every socket.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.state.lock().links.values().cloned().collect()
    }
}

impl Fanout for Hub {
    fn publish(&self, target: Target, except: Except, event: ServerEvent) {
        let Some(event) = Published::new(&event) else { return };
        let tell = |link: &Link| {
            let left_out = match except {
                Except::Nobody => false,
                Except::User(user) => link.who.user == user,
                Except::Connection(id) => link.id == id,
            };
            if !left_out {
                link.publish(&event);
            }
        };
        let state = self.state.lock();
        match &target {
            Target::Room(room) => {
                state.rooms.members(&Key::Room(*room)).iter().for_each(|link| tell(link));
            }
            Target::User(user) => {
                state.rooms.members(&Key::User(*user)).iter().for_each(|link| tell(link));
            }
            Target::Rooms(rooms) => {
                let mut seen = HashSet::new();
                for link in rooms.iter().flat_map(|room| state.rooms.members(&Key::Room(*room))) {
                    if seen.insert(link.id) {
                        tell(link);
                    }
                }
            }
        }
    }

    fn together(&self, publish: &mut dyn FnMut()) {
        let _together = self.core.gather();
        publish();
    }

    fn join(&self, user: UserId, room: RoomId) {
        let mut state = self.state.lock();
        for link in state.of_user(user) {
            state.enter(&link, room);
            // A new membership after an old one ended.
            if !link.ready.load(Ordering::Acquire) {
                link.held.lock().left.remove(&room);
            }
        }
    }

    fn leave(&self, user: UserId, room: RoomId) {
        let mut state = self.state.lock();
        for link in state.of_user(user) {
            state.exit(&link, room);
        }
    }

    fn revoke(&self, session: SessionId, reason: &str) {
        let links = self.state.lock().rooms.members(&Key::Session(session)).to_vec();
        let event = ServerEvent::SessionRevoked(SessionRevoked { reason: reason.to_owned() });
        for link in links {
            link.revoke(&event);
        }
    }
}
