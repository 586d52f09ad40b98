//! Payloads of the Socket.IO events, contract section 3.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    ClientId, Code, Message, MessageId, MessageType, Presence, PresenceStatus, Room, RoomId,
    Timestamp, UserId,
};

/// Names of the events that clients send.
pub mod client {
    /// Store a message.
    pub const MESSAGE_SEND: &str = "message:send";
    /// Messages arrived.
    pub const MESSAGE_DELIVERED: &str = "message:delivered";
    /// Everything up to a message is read.
    pub const MESSAGE_READ: &str = "message:read";
    /// Change one's own message.
    pub const MESSAGE_EDIT: &str = "message:edit";
    /// Delete a message.
    pub const MESSAGE_DELETE: &str = "message:delete";
    /// Choose an emoji for a message.
    pub const REACTION_ADD: &str = "reaction:add";
    /// Take it back.
    pub const REACTION_REMOVE: &str = "reaction:remove";
    /// Typing began, or goes on.
    pub const TYPING_START: &str = "typing:start";
    /// Typing ended.
    pub const TYPING_STOP: &str = "typing:stop";
    /// Say online or away.
    pub const PRESENCE_SET: &str = "presence:set";
    /// Ask how others are.
    pub const PRESENCE_QUERY: &str = "presence:query";
    /// Subscribe this socket to a room.
    pub const ROOM_JOIN: &str = "room:join";
    /// Unsubscribe this socket from a room.
    pub const ROOM_LEAVE: &str = "room:leave";
    /// Ask for what was missed.
    pub const ROOM_SYNC: &str = "room:sync";
}

/// Names of the events that the server sends.
pub mod server {
    /// The connection is set up.
    pub const SESSION_READY: &str = "session:ready";
    /// The login session ended; a disconnect follows.
    pub const SESSION_REVOKED: &str = "session:revoked";
    /// A message was stored.
    pub const MESSAGE_NEW: &str = "message:new";
    /// A message was edited or deleted, or its reactions changed.
    pub const MESSAGE_UPDATED: &str = "message:updated";
    /// One's own messages came further.
    pub const MESSAGE_STATUS: &str = "message:status";
    /// What was not delivered before this connection.
    pub const MESSAGES_OFFLINE: &str = "messages:offline";
    /// One is a member of a room from now on.
    pub const ROOM_NEW: &str = "room:new";
    /// Name, members or roles changed.
    pub const ROOM_UPDATED: &str = "room:updated";
    /// One is no longer a member.
    pub const ROOM_REMOVED: &str = "room:removed";
    /// Another socket of this user read on.
    pub const ROOM_READ: &str = "room:read";
    /// Somebody types, or stopped.
    pub const TYPING_UPDATE: &str = "typing:update";
    /// Somebody came, left, or went away.
    pub const PRESENCE_UPDATE: &str = "presence:update";
    /// The server could not rule out that something was missed.
    pub const SYNC_REQUIRED: &str = "sync:required";
    /// The server is about to go.
    pub const SERVER_DRAINING: &str = "server:draining";
    /// An event without a callback failed.
    pub const ERROR: &str = "error";
}

/// `null` counts as an absent field.
fn absent_or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `message:send`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageSend {
    /// The room.
    pub room_id: RoomId,
    /// 1–4000 characters, stored verbatim.
    pub content: String,
    /// Makes a repeated send harmless.
    #[serde(default)]
    #[ts(optional = nullable)]
    pub client_id: Option<ClientId>,
    /// `text` when absent.
    #[serde(default, deserialize_with = "absent_or_null")]
    #[ts(optional, as = "Option<MessageType>")]
    pub message_type: MessageType,
    /// A message of the same room.
    #[serde(default)]
    #[ts(optional = nullable)]
    pub reply_to: Option<MessageId>,
    /// At most 4 KiB.
    #[serde(default, deserialize_with = "absent_or_null")]
    #[ts(optional, type = "Record<string, unknown>")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// `message:delivered`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageDelivered {
    /// The room.
    pub room_id: RoomId,
    /// 1–100 ids.
    pub message_ids: Vec<MessageId>,
}

/// `message:read`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageRead {
    /// The room.
    pub room_id: RoomId,
    /// The newest message that was read.
    pub message_id: MessageId,
}

/// `message:edit`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageEdit {
    /// One's own message.
    pub message_id: MessageId,
    /// 1–4000 characters.
    pub content: String,
}

/// `message:delete`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageDelete {
    /// The message.
    pub message_id: MessageId,
}

/// `reaction:add`, `reaction:remove`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct ReactionChange {
    /// The message.
    pub message_id: MessageId,
    /// 1–32 characters.
    pub emoji: String,
}

/// `typing:start`, `typing:stop`, `room:join`, `room:leave`; also `room:removed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct RoomRef {
    /// The room.
    pub room_id: RoomId,
}

/// `presence:set`
#[derive(Debug, Clone, Copy, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct PresenceSet {
    /// `online` or `away`.
    pub status: PresenceStatus,
}

/// `presence:query`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct PresenceQuery {
    /// 1–200 ids.
    pub user_ids: Vec<UserId>,
}

/// `room:sync`
#[derive(Debug, Clone, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct RoomSync {
    /// 1–50 rooms.
    pub rooms: Vec<SyncFrom>,
}

/// From where a client wants a room's messages.
#[derive(Debug, Clone, Copy, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct SyncFrom {
    /// The room.
    pub room_id: RoomId,
    /// The newest `seq` that the client has, 0 for none.
    #[ts(type = "number")]
    pub after_seq: i64,
}

/// What a client missed in one room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct SyncedRoom {
    /// The room.
    pub room_id: RoomId,
    /// At most 100, ascending `seq`.
    pub messages: Vec<Message>,
    /// The newest `seq` of the room.
    #[ts(type = "number")]
    pub last_seq: i64,
    /// There is more: ask again from the last of these.
    pub more: bool,
}

/// `session:ready`
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct SessionReady {
    /// Who this connection is.
    pub user_id: UserId,
    /// The server that holds it.
    pub instance: String,
    /// The server's clock.
    pub server_time: Timestamp,
    /// Every active membership.
    pub rooms: Vec<ReadyRoom>,
}

/// Where a room stands when a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct ReadyRoom {
    /// The room.
    pub room_id: RoomId,
    /// The newest `seq`.
    #[ts(type = "number")]
    pub last_seq: i64,
    /// The caller's watermark.
    #[ts(type = "number")]
    pub last_read_seq: i64,
}

/// How far a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptStatus {
    /// A client said that it arrived.
    Delivered,
    /// It was read.
    Read,
}

/// `message:status`, to the sender's sockets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    /// The room.
    pub room_id: RoomId,
    /// Messages of the one who gets this event.
    pub message_ids: Vec<MessageId>,
    /// Who got or read them.
    pub user_id: UserId,
    /// How far they came.
    pub status: ReceiptStatus,
    /// When.
    pub at: Timestamp,
}

/// `messages:offline`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct MessagesOffline {
    /// At most 50, oldest first.
    pub messages: Vec<Message>,
    /// Counts from 1 within a connection.
    pub batch: u32,
    /// Messages still to come after this batch.
    #[ts(type = "number")]
    pub remaining: i64,
}

/// `room:read`; also the answer to `message:read`, with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct RoomRead {
    /// The room.
    pub room_id: RoomId,
    /// The reader's watermark.
    #[ts(type = "number")]
    pub last_read_seq: i64,
}

/// `typing:update`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct TypingUpdate {
    /// The room.
    pub room_id: RoomId,
    /// Who.
    pub user_id: UserId,
    /// Begins or stopped.
    pub is_typing: bool,
}

/// `session:revoked`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct SessionRevoked {
    /// Why.
    pub reason: String,
}

/// `sync:required`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct SyncRequired {
    /// Rooms to sync.
    pub rooms: Vec<RoomHead>,
}

/// A room and its newest `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct RoomHead {
    /// The room.
    pub room_id: RoomId,
    /// The newest `seq`.
    #[ts(type = "number")]
    pub last_seq: i64,
}

/// `server:draining`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct ServerDraining {
    /// A jittered delay.
    #[ts(type = "number")]
    pub reconnect_in_ms: u64,
}

/// `error`: an event without a callback failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "camelCase")]
pub struct EventError {
    /// The event.
    pub event: String,
    /// The stable code.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// On `rate_limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional, type = "number")]
    pub retry_after_ms: Option<u64>,
}

/// Something the server says to clients, with its name.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "made once, encoded at once, never stored in bulk")]
pub enum ServerEvent {
    /// `session:ready`
    SessionReady(SessionReady),
    /// `session:revoked`
    SessionRevoked(SessionRevoked),
    /// `message:new`
    MessageNew(Message),
    /// `message:updated`
    MessageUpdated(Message),
    /// `message:status`
    MessageStatus(MessageStatus),
    /// `room:new`
    RoomNew(Room),
    /// `room:updated`
    RoomUpdated(Room),
    /// `room:removed`
    RoomRemoved(RoomRef),
    /// `room:read`
    RoomRead(RoomRead),
    /// `typing:update`
    TypingUpdate(TypingUpdate),
    /// `presence:update`
    PresenceUpdate(Presence),
    /// `sync:required`
    SyncRequired(SyncRequired),
    /// `server:draining`
    ServerDraining(ServerDraining),
    /// `error`
    Error(EventError),
}

impl ServerEvent {
    /// The event's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionReady(_) => server::SESSION_READY,
            Self::SessionRevoked(_) => server::SESSION_REVOKED,
            Self::MessageNew(_) => server::MESSAGE_NEW,
            Self::MessageUpdated(_) => server::MESSAGE_UPDATED,
            Self::MessageStatus(_) => server::MESSAGE_STATUS,
            Self::RoomNew(_) => server::ROOM_NEW,
            Self::RoomUpdated(_) => server::ROOM_UPDATED,
            Self::RoomRemoved(_) => server::ROOM_REMOVED,
            Self::RoomRead(_) => server::ROOM_READ,
            Self::TypingUpdate(_) => server::TYPING_UPDATE,
            Self::PresenceUpdate(_) => server::PRESENCE_UPDATE,
            Self::SyncRequired(_) => server::SYNC_REQUIRED,
            Self::ServerDraining(_) => server::SERVER_DRAINING,
            Self::Error(_) => server::ERROR,
        }
    }

    /// Whether a slow reader may miss it: it tells a passing state only.
    #[must_use]
    pub fn is_droppable(&self) -> bool {
        matches!(self, Self::TypingUpdate(_) | Self::PresenceUpdate(_))
    }

    /// The payload as compact JSON.
    ///
    /// # Errors
    /// Never for the types above; the signature keeps serde's doubt visible.
    pub fn payload(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
        use serde_json::value::to_raw_value;
        match self {
            Self::SessionReady(p) => to_raw_value(p),
            Self::SessionRevoked(p) => to_raw_value(p),
            Self::MessageNew(p) | Self::MessageUpdated(p) => to_raw_value(p),
            Self::MessageStatus(p) => to_raw_value(p),
            Self::RoomNew(p) | Self::RoomUpdated(p) => to_raw_value(p),
            Self::RoomRemoved(p) => to_raw_value(p),
            Self::RoomRead(p) => to_raw_value(p),
            Self::TypingUpdate(p) => to_raw_value(p),
            Self::PresenceUpdate(p) => to_raw_value(p),
            Self::SyncRequired(p) => to_raw_value(p),
            Self::ServerDraining(p) => to_raw_value(p),
            Self::Error(p) => to_raw_value(p),
        }
    }
}
