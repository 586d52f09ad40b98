//! The one way in: a socket's events, in the order in which they came, each with
//! the place for its answer.

use serde_json::value::RawValue;
use starling_protocol::Failure;
use starling_protocol::event::{EventError, ServerEvent};

use super::hub::Link;

/// One event of a client.
pub struct Event {
    /// Its name.
    pub name: String,
    payload: Option<Box<RawValue>>,
    /// Where the answer goes.
    pub reply: Reply,
}

impl Event {
    /// Its first argument as JSON, `null` without one.
    #[must_use]
    pub fn payload(&self) -> &str {
        self.payload.as_deref().map_or("null", RawValue::get)
    }
}

impl From<socketioxide_wire::Event> for Event {
    fn from(event: socketioxide_wire::Event) -> Self {
        let payload = event.args.into_iter().next();
        Self { name: event.name, payload, reply: Reply { ack: event.ack } }
    }
}

/// The answer to one event: an acknowledgement if the client wants one, an
/// `error` event if it doesn't and the event failed.
pub struct Reply {
    ack: Option<socketioxide_wire::Ack>,
}

impl Reply {
    /// It went well: `body` begins with `{"ok":true`.
    pub fn ok(self, link: &Link, body: &impl serde::Serialize) {
        if let Some(ack) = self.ack {
            link.ack(ack, body);
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
