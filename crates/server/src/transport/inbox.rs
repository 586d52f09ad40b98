//! The one way in: a socket's events, in the order in which they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessage, FromMessageParts};
use socketioxide::socket::Socket;
use socketioxide_core::Value;
use starling_protocol::Failure;
use starling_protocol::event::{EventError, ServerEvent};
use tokio::sync::mpsc;

use super::hub::Link;
use super::sessions::Sessions;

/// Events that may wait for one socket: what one polling body of 64 KiB holds.
const CAPACITY: usize = 4096;
/// A WebSocket with so many is not read further …
const PAUSE_AT: usize = 256;
/// … until so few are left.
const RESUME_AT: usize = 64;

/// One event of a client.
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its first argument as JSON, `null` without one.
    pub payload: String,
    /// Where the answer goes.
    pub reply: Reply,
}

/// The answer to one event: an acknowledgement if the client wants one, an
/// `error` event if it doesn't and the event failed.
pub struct Reply {
    ack: Option<AckSender>,
}

impl Reply {
    /// It went well: `body` begins with `{"ok":true`.
    pub fn ok(self, link: &Link, body: &impl serde::Serialize) {
        if let Some(ack) = self.ack
            && ack.send(body).is_err()
            && link.connected()
        {
            // An acknowledgement that can't be sent must not be missing silently.
            link.end();
        }
    }

    /// It failed.
    pub fn failed(self, link: &Link, event: &str, failure: Failure) {
        if self.ack.is_some() {
            let body = serde_json::json!({ "ok": false, "error": failure });
            self.ok(link, &body);
        } else {
            link.emit(&ServerEvent::Error(EventError {
                event: event.chars().take(64).collect(),
                code: failure.code,
                message: failure.message,
                retry_after_ms: failure.retry_after_ms,
            }));
        }
    }
}

/// The queue's feeding end, kept with the socket.
#[derive(Clone)]
pub struct Inbox {
    feed: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    link: Arc<Link>,
    sessions: Arc<Sessions>,
    paused: Arc<AtomicBool>,
}

/// The end that one task reads.
pub struct Outlet {
    queue: mpsc::Receiver<Event>,
    inbox: Inbox,
    sid: String,
}

impl Inbox {
    /// A queue for a socket with this engine session.
    #[must_use]
    pub fn new(link: Arc<Link>, sessions: Arc<Sessions>, sid: String) -> (Self, Outlet) {
        let (feed, queue) = mpsc::channel(CAPACITY);
        let feed = Arc::new(Mutex::new(Some(feed)));
        let inbox = Self { feed, link, sessions, paused: Arc::default() };
        (inbox.clone(), Outlet { queue, inbox, sid })
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.feed.lock().take();
    }

    fn push(&self, sid: &str, event: Event) {
        let feed = self.feed.lock();
        let Some(feed) = feed.as_ref() else { return };
        if let Err(mpsc::error::TrySendError::Full(event)) = feed.try_send(event) {
            let failure = Failure::rate_limited("Too many of your events wait already.", 1000);
            let name = event.name.clone();
            event.reply.failed(&self.link, &name, failure);
        }
        let waiting = CAPACITY - feed.capacity();
        if waiting >= PAUSE_AT && !self.paused.swap(true, Ordering::AcqRel) {
            self.set_paused(sid, true);
        }
    }

    fn set_paused(&self, sid: &str, paused: bool) {
        if let Some(wire) = self.sessions.wire(sid) {
            wire.pause(paused);
        }
    }
}

impl Outlet {
    /// The next event; `None` when the socket is closed and all were taken.
    pub async fn next(&mut self) -> Option<Event> {
        if self.queue.len() <= RESUME_AT && self.inbox.paused.swap(false, Ordering::AcqRel) {
            self.inbox.set_paused(&self.sid, false);
        }
        self.queue.recv().await
    }
}

/// Takes an event into the inbox. The engine runs extractors one after the other
/// in the order of arrival, and handlers each in a task of its own: so the work
/// is done here, and the "error" only keeps that task from being made.
pub struct Taken;

/// The event is in the inbox.
#[derive(Debug, thiserror::Error)]
#[error("taken into the inbox")]
pub struct InInbox;

impl FromMessage<LocalAdapter> for Taken {
    type Error = InInbox;

    fn from_message(
        socket: Arc<Socket>,
        mut value: Value,
        ack_id: Option<i64>,
    ) -> Result<Self, InInbox> {
        let Some(inbox) = socket.extensions.get::<Inbox>() else { return Err(InInbox) };
        let Ok(sender) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        let reply = Reply { ack: ack_id.is_some().then_some(sender) };
        let args: Option<Vec<&RawValue>> = match &value {
            Value::Str(text, _) => serde_json::from_str(text).ok(),
            Value::Bytes(_) => None,
        };
        let mut args = args.unwrap_or_default().into_iter();
        let name = args.next().and_then(|name| serde_json::from_str(name.get()).ok());
        let payload = args.next().map_or_else(|| "null".to_owned(), |first| first.get().to_owned());
        let name = name.unwrap_or_default();
        inbox.push(socket.id.as_str(), Event { name, payload, reply });
        Err(InInbox)
    }
}
