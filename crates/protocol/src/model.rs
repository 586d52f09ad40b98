//! The objects of the contract, section 1.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $ts:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
        #[serde(transparent)]
        #[ts(type = $ts)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A user.
    UserId(i32), "number");
id!(/// A chat room.
    RoomId(i32), "number");
id!(/// A message, UUID v7 made by the server.
    MessageId(Uuid), "string");
id!(/// The id that a client gave to a message before it was stored.
    ClientId(Uuid), "string");
id!(/// A login session: the `sid` of its access tokens.
    SessionId(Uuid), "string");

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The unique name, in the case in which it was registered.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// A picture.
    pub avatar_url: Option<String>,
    /// When the last socket closed.
    pub last_seen: Option<Timestamp>,
    /// When the account was made.
    pub created_at: Timestamp,
    /// Only in answers to the user itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub email: Option<String>,
}

/// The kind of a room.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RoomType {
    /// Exactly two users, no name.
    Direct,
    /// A name, roles, members that come and go.
    Group,
}

/// What a member may do. Ordered: a later role may do all that an earlier one may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ts_rs::TS,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Also names the room, adds and removes members, deletes messages.
    Admin,
    /// Also changes roles. A group has exactly one.
    Owner,
}

/// A room as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// Its id.
    pub id: RoomId,
    /// Null for direct rooms.
    pub name: Option<String>,
    /// Direct or group.
    pub room_type: RoomType,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: Timestamp,
    /// The `seq` of the newest message, 0 in an empty room.
    #[ts(type = "number")]
    pub last_seq: i64,
    /// Others' messages above the caller's `lastReadSeq`.
    #[ts(type = "number")]
    pub unread_count: i64,
    /// The newest message.
    pub last_message: Option<Message>,
    /// In answers and events about a single room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub members: Option<Vec<Member>>,
}

/// One user's place in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// Its unique name.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// A picture.
    pub avatar_url: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Since when.
    pub joined_at: Timestamp,
    /// Everything up to here is read.
    #[ts(type = "number")]
    pub last_read_seq: i64,
    /// Everything up to here is delivered.
    #[ts(type = "number")]
    pub last_delivered_seq: i64,
}

/// The kind of a message's content.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ts_rs::TS,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// Words.
    #[default]
    Text,
    /// A picture, described by `metadata`.
    Image,
    /// A file, described by `metadata`.
    File,
    /// Said by the system; no client can send it.
    System,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Where it was said.
    pub room_id: RoomId,
    /// By whom.
    pub sender_id: UserId,
    /// Its place in the room: 1, 2, 3 … without gap or repeat.
    #[ts(type = "number")]
    pub seq: i64,
    /// The text, verbatim; empty once deleted.
    pub content: String,
    /// The kind of content.
    pub message_type: MessageType,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When the content last changed.
    pub edited_at: Option<Timestamp>,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// The sender's own id for it.
    pub client_id: Option<ClientId>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// What the client attached.
    #[ts(type = "Record<string, unknown>")]
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Emoji, and who chose them.
    pub reactions: Vec<Reaction>,
    /// On the caller's own messages only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub receipts: Option<Receipts>,
}

/// An emoji and the users who chose it, in the order in which they did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaction {
    /// 1–32 characters.
    pub emoji: String,
    /// Never empty.
    pub user_ids: Vec<UserId>,
}

/// How far a message has come: counts of users.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Receipts {
    /// Members other than the sender when it was sent.
    #[ts(type = "number")]
    pub recipients: i64,
    /// Of these, whose client said that it arrived.
    #[ts(type = "number")]
    pub delivered: i64,
    /// Of these, who have read it.
    #[ts(type = "number")]
    pub read: i64,
}

/// Whether somebody is there.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PresenceStatus {
    /// At least one socket, in use.
    Online,
    /// At least one socket, not in use.
    Away,
    /// No socket.
    Offline,
}

/// One user's presence; also the payload of `presence:update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Who.
    pub user_id: UserId,
    /// How.
    pub status: PresenceStatus,
    /// When the last socket closed.
    pub last_seen: Option<Timestamp>,
}
