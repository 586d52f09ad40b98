//! What the rules need of the world around them.

use async_trait::async_trait;
use starling_protocol::event::ServerEvent;
use starling_protocol::{Message, Presence, PresenceStatus, RoomId, SessionId, Timestamp, UserId};
use starling_repository::RoomHead;
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
    /// Called every few seconds and again until it gives nothing: says that this
    /// process lives, and returns whose rooms have to be told something that did
    /// not begin here, such as that the users of a dead instance are gone.
    async fn refresh(&self) -> Vec<Presence> {
        Vec::new()
    }
    /// Returns when [`Self::refresh`] should be called before its time.
    async fn stirred(&self) {
        std::future::pending().await
    }
}

/// The newest messages of a room as a cache has them.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedPage {
    /// The room's [`RoomHead::version`] to which the messages belong.
    pub version: Uuid,
    /// Ascending by `seq` without a gap, never empty; without receipts.
    pub messages: Vec<Message>,
}

/// The newest messages of rooms, kept outside the database. It may lose, mix up or
/// outlive anything: whoever reads it compares what it says with the room's
/// [`RoomHead`] ([`CachedPage::is_at`]) and believes nothing else. Its calls are
/// hints, none has to succeed.
#[async_trait]
pub trait RoomCache: Send + Sync + 'static {
    /// The newest `limit` messages of the room, or as many as there are.
    async fn newest(&self, room: RoomId, limit: usize) -> Option<CachedPage>;
    /// These are the newest [`CACHED_MESSAGES`] of the room, or all that there are.
    /// Queues.
    fn keep(&self, room: RoomId, page: CachedPage);
    /// These were stored and committed. Queues.
    fn stored(&self, messages: Vec<Message>);
    /// A message of the room was changed. Queues.
    fn changed(&self, room: RoomId);
}

/// Messages of a room in a [`RoomCache`].
pub const CACHED_MESSAGES: usize = 50;

impl CachedPage {
    /// Whether this is what the room holds: it ends with the room's newest message,
    /// and no message was changed since.
    #[must_use]
    pub fn is_at(&self, head: &RoomHead) -> bool {
        let newest = self.messages.last().map(|message| (message.id, message.seq));
        newest.is_some() && newest == head.newest && self.version == head.version
    }
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
