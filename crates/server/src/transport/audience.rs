//! Who gets something, in this server's terms and in those of Socket.IO's rooms.

use std::str::FromStr;
use std::sync::Arc;

use socketioxide_node_redis::Opts;
use starling_protocol::{RoomId, SessionId, UserId};

/// What sockets are found by. On the way to other servers each is a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// `room:<id>`
    Room(RoomId),
    /// `user:<id>`
    User(UserId),
    /// `session:<sid>`
    Session(SessionId),
    /// The id of one socket.
    Socket(SocketId),
    /// A room that another server invented.
    Other(Arc<str>),
}

/// The id that a client knows of its own socket, as long as all of them are.
pub type SocketId = [u8; 16];

impl Key {
    /// The key that a room of this name is.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        /// Only what is written as we would write it.
        fn id<T: FromStr + ToString>(text: &str) -> Option<T> {
            text.parse::<T>().ok().filter(|id| id.to_string() == text)
        }
        let known = match name.split_once(':') {
            Some(("room", text)) => id(text).map(|id| Self::Room(RoomId(id))),
            Some(("user", text)) => id(text).map(|id| Self::User(UserId(id))),
            Some(("session", text)) => id(text).map(|id| Self::Session(SessionId(id))),
            _ => name.as_bytes().try_into().ok().map(Self::Socket),
        };
        known.unwrap_or_else(|| Self::Other(name.into()))
    }

    /// The name of the room.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Room(id) => format!("room:{id}"),
            Self::User(id) => format!("user:{id}"),
            Self::Session(id) => format!("session:{id}"),
            Self::Socket(id) => String::from_utf8_lossy(id).into_owned(),
            Self::Other(name) => name.to_string(),
        }
    }
}

/// Sockets: those in any of `rooms` (all, if there is none), but not those in
/// any of `except`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Where they are.
    pub rooms: Vec<Key>,
    /// Where they are not.
    pub except: Vec<Key>,
}

impl From<Key> for Audience {
    fn from(key: Key) -> Self {
        Self { rooms: vec![key], except: Vec::new() }
    }
}

impl From<&Opts> for Audience {
    fn from(opts: &Opts) -> Self {
        let keys = |names: &[String]| names.iter().map(|name| Key::parse(name)).collect();
        Self { rooms: keys(&opts.rooms), except: keys(&opts.except) }
    }
}

impl From<&Audience> for Opts {
    fn from(audience: &Audience) -> Self {
        let names = |keys: &[Key]| keys.iter().map(Key::name).collect();
        Self { rooms: names(&audience.rooms), except: names(&audience.except), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_one_to_one() {
        let session = uuid::Uuid::from_u128(7);
        for key in [
            Key::Room(RoomId(1)),
            Key::User(UserId(2)),
            Key::Session(SessionId(session)),
            Key::Socket(*b"0123456789abcdef"),
            Key::Other("news".into()),
        ] {
            assert_eq!(Key::parse(&key.name()), key);
        }
        // Not as we would write it: other rooms, and they keep their names.
        for name in ["room:01", "room:", "room:x", "user:+1", "session:0", "", "room"] {
            let key = Key::parse(name);
            assert_eq!((&key, key.name()), (&Key::Other(name.into()), name.to_owned()));
        }
    }
}
