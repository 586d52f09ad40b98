//! What the rules need of the world around them.

use async_trait::async_trait;
use starling_protocol::event::ServerEvent;
use starling_protocol::{Presence, PresenceStatus, RoomId, SessionId, Timestamp, UserId};
use uuid::Uuid;

/// One connected socket. Public on purpose unlike the engine's own session id,
/// which is a secret: who knows that can speak as the client while it polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub Uuid);

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every socket in a chat room.
    Room(RoomId),
    /// Every socket in any of these rooms, each once.
    Rooms(Vec<RoomId>),
    /// Every socket of a user.
    User(UserId),
}

/// Who is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Except {
    /// Nobody.
    Nobody,
    /// Every socket of this user.
    User(UserId),
    /// This socket.
    Connection(ConnectionId),
}

/// Reaching sockets. Calls never wait: an implementation queues within bounds
/// and deals with slow readers itself. Events published by one caller to the
/// same socket arrive in the order of the calls.
pub trait Fanout: Send + Sync + 'static {
    /// Tells the targets.
    fn publish(&self, target: Target, except: Except, event: ServerEvent);
    /// Runs calls of [`Self::publish`] so that what they send to one socket may go
    /// out together.
    fn together(&self, publish: &mut dyn FnMut()) {
        publish();
    }
    /// Every socket of the user enters the room.
    fn join(&self, user: UserId, room: RoomId);
    /// Every socket of the user leaves the room, at once.
    fn leave(&self, user: UserId, room: RoomId);
    /// `session:revoked` and a Socket.IO disconnect for the session's sockets.
    fn revoke(&self, session: SessionId, reason: &str);
}

/// Who is there.
#[async_trait]
pub trait PresenceStore: Send + Sync + 'static {
    /// A socket opened. `Some` when this changes how others see the user.
    async fn opened(&self, user: UserId, connection: ConnectionId) -> Option<Presence>;
    /// A socket closed. `Some` when this changes how others see the user.
    async fn closed(
        &self,
        user: UserId,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Presence>;
    /// The user said how it is. `Some` when this is news. Ignored without socket.
    async fn set(&self, user: UserId, status: PresenceStatus) -> Option<Presence>;
    /// The status of each; `Offline` for those without a socket.
    async fn query(&self, users: &[UserId]) -> Vec<(UserId, PresenceStatus)>;
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Sends of a user.
    Messages(UserId),
    /// Handshakes at this instance.
    Connects,
    /// Handshakes from an address.
    ConnectsFrom(std::net::IpAddr),
}

/// How often something may happen.
#[async_trait]
pub trait Limits: Send + Sync + 'static {
    /// Counts one, or says after how many milliseconds the next is free. What
    /// is refused doesn't count.
    async fn take(&self, what: Limited) -> Result<(), u64>;
}
