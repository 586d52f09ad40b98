//! The sockets of this server.

use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::protocol::{Event, Opts};
use crate::value::Value;

/// What clients of this server acknowledge with: the first argument of each.
pub type Acks = BoxStream<'static, Value<'static>>;

/// One socket, as other servers see it.
#[derive(Debug, Clone)]
pub struct SocketInfo {
    /// Its id, which is also the name of a room with only itself in it.
    pub id: String,
    /// What Node.js calls `socket.handshake`.
    pub handshake: Value<'static>,
    /// Its rooms, that of its id among them.
    pub rooms: Vec<String>,
    /// What Node.js calls `socket.data`.
    pub data: Value<'static>,
}

/// The sockets that this server has in one namespace.
///
/// [`NodeRedisAdapter`](crate::NodeRedisAdapter) brings the one of socketioxide's
/// own rooms. An application that keeps rooms by itself implements it, and opens a
/// [`Namespace`](crate::Namespace) with it. Calls must not wait. They come from one
/// task, one after the other, but for what the application
/// [delivers](crate::Namespace::deliver) itself.
pub trait Local: Send + Sync + 'static {
    /// Sends an event of another server. `from` names that.
    fn broadcast(&self, from: Option<&str>, event: Event<'_>, opts: &Opts);

    /// The same, asking each client for an acknowledgement: how many clients that
    /// are, and what they say within `timeout` (by default the server's own).
    fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        opts: &Opts,
        timeout: Option<Duration>,
    ) -> (u64, Acks);

    /// Which sockets there are.
    fn sockets(&self, opts: &Opts) -> Vec<SocketInfo>;

    /// All rooms that a socket is in.
    fn rooms(&self) -> Vec<String>;

    /// Whether any socket is in this room. `true` if that costs too much to know.
    fn has_room(&self, room: &str) -> bool;

    /// Sockets enter rooms.
    fn join(&self, opts: &Opts, rooms: &[String]);

    /// Sockets leave rooms.
    fn leave(&self, opts: &Opts, rooms: &[String]);

    /// Sockets are disconnected; with `close` their transport ends too.
    fn disconnect(&self, opts: &Opts, close: bool);
}
