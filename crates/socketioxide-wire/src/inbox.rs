//! The one way in: a socket's events, in the order in which they came.
//!
//! The engine runs each event handler in a task of its own, so that two events of
//! a client may change places. Here one queue takes them in the order of arrival,
//! for one task that reads it.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::adapter::{Adapter, LocalAdapter};
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::{FromMessageParts as _, MessageHandler};
use socketioxide::socket::{DisconnectReason, Sid, Socket};
use socketioxide_core::Value;
use tokio::sync::Notify;

use crate::core::{Core, OpenInbox};
use crate::handle::Handle;

/// A socket with so many events waiting is not read further …
const PAUSE_AT: usize = 256;
/// … until so few are left.
const RESUME_AT: usize = 64;

/// One event of a client.
pub struct Event<A: Adapter = LocalAdapter> {
    /// Its name; empty if it was no text.
    pub name: String,
    /// Its arguments after the name, as JSON.
    pub args: Vec<Box<RawValue>>,
    /// Its binary attachments, which `_placeholder` objects in the arguments name.
    pub attachments: Vec<Bytes>,
    /// Where the answer goes, if the client wants one:
    /// [`Handle::ack`](crate::Handle::ack).
    pub ack: Option<Ack<A>>,
}

/// The right to answer one event, once.
pub struct Ack<A: Adapter = LocalAdapter> {
    pub(crate) id: i64,
    pub(crate) sender: AckSender<A>,
}

/// The queue's feeding end, kept by the socket's handlers.
///
/// Open it in a middleware of the namespace, which runs before the answer to
/// CONNECT: handlers that are set later miss what comes at once, be it an event or
/// the end.
pub struct Inbox<A: Adapter = LocalAdapter>(Arc<Feed<A>>);

impl<A: Adapter> Clone for Inbox<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Feed<A: Adapter> {
    state: Mutex<State<A>>,
    /// Something came, or nothing comes any more.
    news: Notify,
}

struct State<A: Adapter> {
    // Bounded by what feeds it: reading stops at PAUSE_AT, so that no more can come
    // than one read of a WebSocket or one body of a polling client held beyond.
    queue: VecDeque<Event<A>>,
    paused: bool,
    closed: Option<DisconnectReason>,
    /// Nobody will take anything any more.
    abandoned: bool,
    // Weak: the socket keeps the inbox, and the handle the socket.
    handle: Weak<Handle<A>>,
    at_close: Option<AtClose>,
}

type AtClose = Box<dyn FnOnce(DisconnectReason) + Send>;

/// The end that one task reads.
pub struct Outlet<A: Adapter = LocalAdapter>(Arc<Feed<A>>);

impl<A: Adapter> Inbox<A> {
    /// Takes the socket's events from now on, and its disconnect handler. They wait
    /// for [`Core::register`].
    pub fn open(core: &Core, socket: &SocketRef<A>) {
        Self::keep(core, socket, None);
    }

    /// The same, with data for [`Core::register_with`]: what a middleware has found
    /// out about the client, say. In the socket's `extensions` it would cost more.
    pub fn open_with<T: Send + 'static>(core: &Core, socket: &SocketRef<A>, data: T) {
        Self::keep(core, socket, Some(Box::new(data)));
    }

    fn keep(core: &Core, socket: &SocketRef<A>, data: Option<Box<dyn Any + Send>>) {
        let inbox = Self::new(socket);
        let feed = Arc::downgrade(&inbox.0);
        core.keep_open(key(socket), OpenInbox { feed, data });
    }

    fn new(socket: &SocketRef<A>) -> Self {
        let state = State {
            queue: VecDeque::new(),
            paused: false,
            closed: None,
            abandoned: false,
            handle: Weak::new(),
            at_close: None,
        };
        let inbox = Self(Arc::new(Feed { state: Mutex::new(state), news: Notify::new() }));
        socket.on_fallback::<Self, Self>(inbox.clone());
        let closing = inbox.clone();
        socket.on_disconnect(async move |reason: DisconnectReason| closing.close(reason));
        inbox
    }

    /// The inbox of a socket; opened now if it is late for that.
    pub(crate) fn of(core: &Core, socket: &SocketRef<A>) -> (Self, Option<Box<dyn Any + Send>>) {
        let Some(OpenInbox { feed, data }) = core.take_open(key(socket)) else {
            return (Self::new(socket), None);
        };
        // The socket keeps its handlers, and they the feed, also when it has ended:
        // so who registers late learns of the end.
        match feed.upgrade().map(Arc::downcast) {
            Some(Ok(feed)) => (Self(feed), data),
            _ => (Self::new(socket), data),
        }
    }

    pub(crate) fn attach(&self, handle: &Arc<Handle<A>>) -> Outlet<A> {
        let closed = {
            let mut state = self.0.state.lock();
            state.handle = Arc::downgrade(handle);
            if state.paused {
                handle.pause(true);
            }
            state.closed
        };
        if let Some(reason) = closed {
            handle.closed(reason);
        }
        Outlet(self.0.clone())
    }

    fn close(&self, reason: DisconnectReason) {
        let (handle, at_close) = {
            let mut state = self.0.state.lock();
            state.closed = Some(reason);
            (std::mem::take(&mut state.handle).upgrade(), state.at_close.take())
        };
        if let Some(handle) = handle {
            handle.closed(reason);
        }
        if let Some(at_close) = at_close {
            at_close(reason);
        }
        self.0.news.notify_one();
    }

    fn push(&self, event: Event<A>) {
        let mut state = self.0.state.lock();
        if state.closed.is_some() || state.abandoned {
            return;
        }
        state.queue.push_back(event);
        if state.queue.len() >= PAUSE_AT && !std::mem::replace(&mut state.paused, true) {
            state.pause(true);
        }
        drop(state);
        self.0.news.notify_one();
    }
}

/// What a socket's open inbox is found by.
fn key<A: Adapter>(socket: &SocketRef<A>) -> (Sid, usize) {
    let socket: &Socket<A> = socket;
    (socket.id, std::ptr::from_ref(socket).addr())
}

impl<A: Adapter> State<A> {
    fn pause(&self, paused: bool) {
        if let Some(handle) = self.handle.upgrade() {
            handle.pause(paused);
        }
    }
}

impl<A: Adapter> Outlet<A> {
    /// The next event; `None` when the socket is closed and all were taken.
    pub async fn next(&mut self) -> Option<Event<A>> {
        loop {
            {
                let mut state = self.0.state.lock();
                let next = state.queue.pop_front();
                if state.queue.len() <= RESUME_AT && std::mem::replace(&mut state.paused, false) {
                    state.pause(false);
                }
                if state.queue.is_empty() {
                    // Given back: an idle socket keeps no buffer.
                    state.queue = VecDeque::new();
                }
                if next.is_some() || state.closed.is_some() {
                    return next;
                }
            }
            self.0.news.notified().await;
        }
    }

    /// Runs something when the socket is disconnected: at once, if it is.
    pub fn at_close(&self, run: impl FnOnce(DisconnectReason) + Send + 'static) {
        let closed = {
            let mut state = self.0.state.lock();
            if state.closed.is_none() {
                state.at_close = Some(Box::new(run));
                return;
            }
            state.closed
        };
        if let Some(reason) = closed {
            run(reason);
        }
    }
}

impl<A: Adapter> Drop for Outlet<A> {
    /// What nobody will take is not collected.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.abandoned = true;
        state.queue = VecDeque::new();
        if std::mem::replace(&mut state.paused, false) {
            state.pause(false);
        }
    }
}

/// The engine calls handlers one after the other in the order of arrival; those that
/// are closures begin a task of their own each time, this one does its work at once.
impl<A: Adapter> MessageHandler<A, Self> for Inbox<A> {
    fn call(&self, socket: Arc<Socket<A>>, mut value: Value, ack_id: Option<i64>) {
        let Ok(sender) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        let ack = ack_id.map(|id| Ack { id, sender });
        let (text, attachments) = match value {
            Value::Str(text, attachments) => (text, attachments.unwrap_or_default()),
            // Of another parser than the common one.
            Value::Bytes(_) => return,
        };
        let mut args: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap_or_default();
        let name = match args.first().map(|name| serde_json::from_str(name.get())) {
            Some(Ok(name)) => name,
            _ => String::new(),
        };
        if !args.is_empty() {
            args.remove(0);
        }
        self.push(Event { name, args, attachments: attachments.into(), ack });
    }
}
