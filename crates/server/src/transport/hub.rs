//! The one way out: sockets, the rooms they are in, and what is sent to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::SendError;
use socketioxide::SocketError;
use socketioxide::extract::SocketRef;
use starling_chat::{ConnectionId, Except, Fanout, Identity, Target};
use starling_protocol::event::{ServerEvent, SessionRevoked};
use starling_protocol::{RoomId, SessionId, UserId};

use super::sessions::Sessions;

/// An event, encoded once for all who get it.
#[derive(Clone)]
pub struct Frame {
    name: &'static str,
    payload: Arc<RawValue>,
    droppable: bool,
    /// The place of a `message:new` in its room.
    place: Option<(RoomId, i64)>,
}

impl Frame {
    /// Encodes an event; `None`, and a line in the log, if serde refuses.
    #[must_use]
    pub fn new(event: &ServerEvent) -> Option<Self> {
        let place = match event {
            ServerEvent::MessageNew(message) => Some((message.room_id, message.seq)),
            _ => None,
        };
        match event.payload() {
            Ok(payload) => Some(Self {
                name: event.name(),
                payload: payload.into(),
                droppable: event.is_droppable(),
                place,
            }),
            Err(error) => {
                tracing::error!(event = event.name(), %error, "an event could not be encoded");
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
    socket: SocketRef,
    sessions: Arc<Sessions>,
    /// `Some` until `session:ready` went out: what is published meanwhile.
    held: Mutex<Option<Held>>,
    /// A send found the engine's session closed.
    gone: AtomicBool,
}

#[derive(Default)]
struct Held {
    frames: Vec<Frame>,
    /// Rooms left since: they must not be entered from an older list.
    left: HashSet<RoomId>,
}

/// Frames held for a socket that is being set up; beyond it is closed.
const HELD_MAX: usize = 10_000;

impl Link {
    /// Sends an event to this socket.
    pub fn emit(&self, event: &ServerEvent) {
        if let Some(frame) = Frame::new(event) {
            self.send(&frame);
        }
    }

    fn publish(&self, frame: &Frame) {
        let mut held = self.held.lock();
        match held.as_mut() {
            Some(held) if held.frames.len() < HELD_MAX => held.frames.push(frame.clone()),
            Some(_) => self.end(),
            None => self.send(frame),
        }
    }

    fn send(&self, frame: &Frame) {
        let sent = self.socket.emit(frame.name, &*frame.payload);
        if matches!(sent, Err(SendError::Socket(SocketError::InternalChannelFull))) {
            if frame.droppable {
                metrics::counter!("starling_droppable_dropped_total").increment(1);
            } else {
                // It can't have this one, so it must not have the next either.
                metrics::counter!("starling_slow_readers_closed_total", "why" => "queue")
                    .increment(1);
                self.end();
            }
        } else if matches!(sent, Err(SendError::Socket(SocketError::Closed))) {
            self.gone.store(true, Ordering::Release);
        }
    }

    /// Whether a send found the session closed. The engine closes a session
    /// before it looks for the disconnect handler, so a socket that ended before
    /// its handler was set is known by its first send.
    #[must_use]
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Sends an event and waits for its acknowledgement, in whatever shape.
    /// False when none came in time or the socket is gone.
    pub async fn emit_with_ack<T: Serialize>(
        &self,
        event: &'static str,
        payload: &T,
        wait: Duration,
    ) -> bool {
        let sent = self.socket.timeout(wait).emit_with_ack::<_, serde_json::Value>(event, payload);
        match sent {
            Ok(ack) => matches!(ack.await, Ok(_) | Err(socketioxide::AckError::Decode(_))),
            Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                self.end();
                false
            }
            Err(_) => false,
        }
    }

    /// Ends the transport: the client sees `transport close` and comes back.
    pub fn end(&self) {
        self.sessions.end(self.socket.id.as_str());
    }

    /// Whether the socket is still there.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.socket.connected()
    }

    /// Says why, then disconnects: the client stays away.
    pub fn revoke(&self, event: &ServerEvent) {
        self.emit(event);
        self.disconnect();
    }

    fn disconnect(&self) {
        if self.socket.clone().disconnect().is_err() {
            self.end();
        }
    }
}

/// All sockets of this instance.
pub struct Hub {
    sessions: Arc<Sessions>,
    // One lock for all maps, so that joins, leaves and publications have one
    // order. Held while frames are queued, which never blocks.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<ConnectionId, Arc<Link>>,
    users: HashMap<UserId, HashSet<ConnectionId>>,
    rooms: HashMap<RoomId, HashSet<ConnectionId>>,
    /// The rooms of each socket, to leave them when it closes.
    entered: HashMap<ConnectionId, HashSet<RoomId>>,
}

impl State {
    fn enter(&mut self, id: ConnectionId, room: RoomId) {
        if self.links.contains_key(&id) {
            self.rooms.entry(room).or_default().insert(id);
            self.entered.entry(id).or_default().insert(room);
        }
    }

    fn exit(&mut self, id: ConnectionId, room: RoomId) {
        if let Some(ids) = self.rooms.get_mut(&room) {
            ids.remove(&id);
            if ids.is_empty() {
                self.rooms.remove(&room);
            }
        }
        if let Some(rooms) = self.entered.get_mut(&id) {
            rooms.remove(&room);
        }
        if let Some(link) = self.links.get(&id)
            && let Some(held) = link.held.lock().as_mut()
        {
            held.left.insert(room);
        }
    }
}

impl Hub {
    /// Without sockets.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { sessions, state: Mutex::default() })
    }

    /// Registers a socket. Until [`Self::ready`], what is published to it is held.
    pub fn register(&self, who: Identity, socket: SocketRef) -> Arc<Link> {
        let link = Arc::new(Link {
            id: ConnectionId(uuid::Uuid::now_v7()),
            who,
            socket,
            sessions: self.sessions.clone(),
            held: Mutex::new(Some(Held::default())),
            gone: AtomicBool::new(false),
        });
        let mut state = self.state.lock();
        state.links.insert(link.id, link.clone());
        state.users.entry(who.user).or_default().insert(link.id);
        metrics::gauge!("starling_connections").set(state.links.len() as f64);
        link
    }

    /// Takes a socket out of everything. Again is fine.
    pub fn remove(&self, link: &Link) {
        let mut state = self.state.lock();
        if state.links.remove(&link.id).is_none() {
            return;
        }
        if let Some(ids) = state.users.get_mut(&link.who.user) {
            ids.remove(&link.id);
            if ids.is_empty() {
                state.users.remove(&link.who.user);
            }
        }
        for room in state.entered.remove(&link.id).unwrap_or_default() {
            state.exit(link.id, room);
        }
        metrics::gauge!("starling_connections").set(state.links.len() as f64);
    }

    /// The socket enters rooms that a list from the database named.
    pub fn enter_all(&self, link: &Link, rooms: &[RoomId]) {
        let mut state = self.state.lock();
        for room in rooms {
            let left = link.held.lock().as_ref().is_some_and(|held| held.left.contains(room));
            if !left {
                state.enter(link.id, *room);
            }
        }
    }

    /// `session:ready` goes out, then what was published meanwhile, without the
    /// messages that `heads` (each room's `lastSeq` in `session:ready`) covers.
    pub fn ready(&self, link: &Link, ready: &ServerEvent, heads: &HashMap<RoomId, i64>) {
        // Under the state's lock nothing is published in between.
        let _state = self.state.lock();
        let held = link.held.lock().take().unwrap_or_default();
        link.emit(ready);
        for frame in held.frames {
            let covered = frame
                .place
                .is_some_and(|(room, seq)| heads.get(&room).is_some_and(|head| seq <= *head));
            if !covered {
                link.send(&frame);
            }
        }
    }

    /// This socket alone enters a room.
    pub fn enter(&self, link: &Link, room: RoomId) {
        self.state.lock().enter(link.id, room);
    }

    /// This socket alone leaves a room.
    pub fn exit(&self, link: &Link, room: RoomId) {
        self.state.lock().exit(link.id, room);
    }

    /// Every socket.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.state.lock().links.values().cloned().collect()
    }
}

impl Fanout for Hub {
    fn publish(&self, target: Target, except: Except, event: ServerEvent) {
        let Some(frame) = Frame::new(&event) else { return };
        let state = self.state.lock();
        let tell = |ids: &HashSet<ConnectionId>, seen: &mut Option<HashSet<ConnectionId>>| {
            for id in ids {
                let Some(link) = state.links.get(id) else { continue };
                let left_out = match except {
                    Except::Nobody => false,
                    Except::User(user) => link.who.user == user,
                    Except::Connection(id) => link.id == id,
                };
                if !left_out && seen.as_mut().is_none_or(|seen| seen.insert(*id)) {
                    link.publish(&frame);
                }
            }
        };
        match &target {
            Target::Room(room) => state.rooms.get(room).map(|ids| tell(ids, &mut None)),
            Target::User(user) => state.users.get(user).map(|ids| tell(ids, &mut None)),
            Target::Rooms(rooms) => {
                let mut seen = Some(HashSet::new());
                for ids in rooms.iter().filter_map(|room| state.rooms.get(room)) {
                    tell(ids, &mut seen);
                }
                Some(())
            }
        };
    }

    fn join(&self, user: UserId, room: RoomId) {
        let mut state = self.state.lock();
        for id in state.users.get(&user).cloned().unwrap_or_default() {
            state.enter(id, room);
            // A new membership after an old one ended.
            if let Some(link) = state.links.get(&id)
                && let Some(held) = link.held.lock().as_mut()
            {
                held.left.remove(&room);
            }
        }
    }

    fn leave(&self, user: UserId, room: RoomId) {
        let mut state = self.state.lock();
        for id in state.users.get(&user).cloned().unwrap_or_default() {
            state.exit(id, room);
        }
    }

    fn revoke(&self, session: SessionId, reason: &str) {
        let links = self.links();
        let event = ServerEvent::SessionRevoked(SessionRevoked { reason: reason.to_owned() });
        for link in links.iter().filter(|link| link.who.session == session) {
            link.revoke(&event);
        }
    }
}
