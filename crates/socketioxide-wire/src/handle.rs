//! One socket of one namespace.

use std::sync::Arc;

use serde::Serialize;
use socketioxide::adapter::{Adapter, LocalAdapter};
use socketioxide::extract::SocketRef;
use socketioxide::socket::DisconnectReason;
use socketioxide::{SendError, TransportType};

use crate::frame::{self, Frame};
use crate::inbox::Ack;
use crate::line::{Engine, Line};
use crate::rooms::Member;

/// Sends to one socket, in the order of the calls, without ever waiting.
///
/// Get it from [`Core::register`](crate::Core::register).
pub struct Handle<A: Adapter = LocalAdapter> {
    pub(crate) line: Arc<Line>,
    socket: SocketRef<A>,
    number: u64,
}

impl<A: Adapter> Handle<A> {
    pub(crate) fn new(line: Arc<Line>, socket: SocketRef<A>, number: u64) -> Self {
        Self { line, socket, number }
    }

    /// A number that no other handle of this process has.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The engine's socket. What is sent by it may overtake, or be overtaken by,
    /// what this handle sends: see [`by_engine`](Self::by_engine).
    #[must_use]
    pub fn socket(&self) -> &SocketRef<A> {
        &self.socket
    }

    /// Sends an event that is encoded already. False if it was dropped, or the
    /// socket has ended or ends by this.
    pub fn send(&self, frame: &Frame) -> bool {
        self.line.send(
            frame.droppable,
            || Some(frame.bytes.clone()),
            || self.socket.emit(&*frame.name, &*frame.payload),
        )
    }

    /// Sends an event to this socket alone. False as for [`send`](Self::send), and
    /// when the payload can't be serialized.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, payload: &T) -> bool {
        self.line.send(
            false,
            || frame::event(self.socket.ns(), name, payload).ok(),
            || self.socket.emit(name, payload),
        )
    }

    /// Answers an event that asked for it.
    pub fn ack<T: Serialize + ?Sized>(&self, ack: Ack<A>, payload: &T) -> bool {
        let Ack { id, sender } = ack;
        self.line.send(
            false,
            || frame::ack(self.socket.ns(), id, payload).ok(),
            || sender.send(payload),
        )
    }

    /// Does with the engine's socket what only the engine can, such as an emit
    /// that waits for the client's answer: it keeps its place among what this
    /// handle sends before and after. `run` must not wait.
    pub fn by_engine<T>(&self, run: impl FnOnce(&SocketRef<A>) -> T) -> T {
        self.line.by_engine(self, || run(&self.socket))
    }

    /// Disconnects from the namespace, after all that was sent: clients do not
    /// come back by themselves from this.
    pub fn disconnect(&self) {
        if self.by_engine(|socket| socket.clone().disconnect()).is_err() {
            self.end();
        }
    }

    /// Ends the transport without a word of Socket.IO: clients see that it was
    /// lost, and come back.
    pub fn end(&self) {
        self.line.end();
    }

    /// Whether the socket is connected to its namespace.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.socket.connected() && !self.line.has_ended()
    }

    /// Whether it is served by a WebSocket now; by polling otherwise.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.line.is_direct()
    }

    /// Stops or resumes taking the client's messages, so that it has to wait.
    pub fn pause(&self, paused: bool) {
        self.line.pause(paused);
    }

    /// The socket is disconnected. Again is fine.
    pub(crate) fn closed(&self, reason: DisconnectReason) {
        use DisconnectReason::{ClientNSDisconnect, ServerNSDisconnect};
        self.unregister();
        // Otherwise the session lives on, and may connect again.
        if !matches!(reason, ClientNSDisconnect | ServerNSDisconnect)
            && let Some(core) = self.line.core.upgrade()
        {
            core.forget(self.line.sid);
        }
    }

    fn unregister(&self) {
        self.line.sockets.lock().remove(std::ptr::from_ref(self).cast());
    }
}

impl<A: Adapter> Engine for Handle<A> {
    fn is_connected(&self) -> bool {
        self.socket.connected()
    }

    fn is_websocket(&self) -> bool {
        self.socket.transport_type() == TransportType::Websocket
    }

    fn fence(&self, token: &str) -> Result<(), SendError> {
        self.socket.emit(token, &())
    }
}

impl<A: Adapter> Member for Handle<A> {
    fn number(&self) -> u64 {
        self.number
    }
}

impl<A: Adapter> Drop for Handle<A> {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl<A: Adapter> std::fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("number", &self.number).finish_non_exhaustive()
    }
}
