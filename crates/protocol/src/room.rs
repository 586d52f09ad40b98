//! Names of the Socket.IO rooms, built in this one place.

use crate::{RoomId, SessionId, UserId};

/// The Socket.IO room of every socket of one user.
#[must_use]
pub fn user(id: UserId) -> String {
    format!("user:{id}")
}

/// The Socket.IO room of every socket that one login session opened.
#[must_use]
pub fn session(id: SessionId) -> String {
    format!("session:{id}")
}

/// The Socket.IO room of a chat room.
#[must_use]
pub fn room(id: RoomId) -> String {
    format!("room:{id}")
}
