//! Bodies and queries of the REST API, contract section 2.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Message, Role, Room, RoomType, User, UserId};

/// A field that may be absent, `null` or set: `null` clears.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// POST `/auth/register`
#[derive(Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// 3–32 of `[a-zA-Z0-9_.-]`, unique without regard to case.
    pub username: String,
    /// Unique without regard to case.
    pub email: String,
    /// At least 8 characters, at most 72 bytes.
    pub password: String,
    /// The username when absent.
    #[serde(default)]
    #[ts(optional = nullable)]
    pub display_name: Option<String>,
}

/// POST `/auth/login`
#[derive(Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// The username or the e-mail address.
    pub username: String,
    /// The password.
    pub password: String,
}

/// POST `/auth/refresh`
#[derive(Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// The newest refresh token of the session.
    pub refresh_token: String,
}

/// The answer to register, login and refresh.
#[derive(Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authenticated {
    /// The caller.
    pub user: User,
    /// A JWT for the `Authorization` header and the Socket.IO handshake.
    pub access_token: String,
    /// Good for one refresh.
    pub refresh_token: String,
    /// Seconds until the access token ends.
    #[ts(type = "number")]
    pub expires_in: i64,
}

/// PATCH `/users/me`
#[derive(Debug, Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPatch {
    /// 1–64 characters.
    #[serde(default)]
    #[ts(optional)]
    pub display_name: Option<String>,
    /// Up to 2048 characters; `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[ts(optional, as = "Option<String>", optional = nullable)]
    #[schema(value_type = Option<String>)]
    pub avatar_url: Option<Option<String>>,
}

/// POST `/rooms`
#[derive(Debug, Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomCreate {
    /// Direct or group.
    pub room_type: RoomType,
    /// 1–100 characters, for groups only.
    #[serde(default)]
    #[ts(optional = nullable)]
    pub name: Option<String>,
    /// The others; exactly one for a direct room.
    pub member_ids: Vec<UserId>,
}

/// PATCH `/rooms/:id`
#[derive(Debug, Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomPatch {
    /// 1–100 characters.
    pub name: String,
}

/// POST `/rooms/:id/members`
#[derive(Debug, Clone, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MembersAdd {
    /// Who joins.
    pub user_ids: Vec<UserId>,
}

/// PATCH `/rooms/:id/members/:userId`
#[derive(Debug, Clone, Copy, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberPatch {
    /// `owner` hands the room over.
    pub role: Role,
}

/// An answer about one user.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
pub struct UserBody {
    /// The user.
    pub user: User,
}

/// An answer about users.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
pub struct UsersBody {
    /// The users.
    pub users: Vec<User>,
}

/// An answer about one room.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
pub struct RoomBody {
    /// The room, with its members.
    pub room: Room,
}

/// An answer about rooms.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
pub struct RoomsBody {
    /// Newest activity first.
    pub rooms: Vec<Room>,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryPage {
    /// Ascending `seq`.
    pub messages: Vec<Message>,
    /// For `before`; null when the page holds the oldest message.
    #[ts(type = "number | null")]
    pub next_before: Option<i64>,
    /// For `after`; null when the page holds the newest message.
    #[ts(type = "number | null")]
    pub next_after: Option<i64>,
}

/// A page of search results.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchPage {
    /// Newest first.
    pub messages: Vec<Message>,
    /// Opaque; for `before`.
    pub next_before: Option<String>,
}
