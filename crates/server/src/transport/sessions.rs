//! Which TCP connection an engine session uses, so that it can be ended without
//! a Socket.IO disconnect: a client comes back after a lost transport, and stays
//! away after a disconnect.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::wire::Wire;

/// Engine sessions by their (secret) id.
#[derive(Default)]
pub struct Sessions {
    map: Mutex<HashMap<String, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// The WebSocket, or the polling request that waits.
    wire: Weak<Wire>,
    /// Ended by us: further polls are refused.
    ended: bool,
}

/// When to look for entries whose connection is gone.
const SWEEP_AT: usize = 1024;

impl Sessions {
    /// The session is served by this connection now. False when the session was
    /// ended and may not go on.
    pub fn served_by(&self, sid: &str, wire: &Arc<Wire>) -> bool {
        let mut map = self.map.lock();
        if map.len() >= SWEEP_AT && map.len().is_power_of_two() {
            map.retain(|_, entry| entry.wire.strong_count() > 0);
        }
        let entry = map.entry(sid.to_owned()).or_default();
        if !entry.ended {
            entry.wire = Arc::downgrade(wire);
        }
        !entry.ended
    }

    /// The connection that serves the session.
    pub fn wire(&self, sid: &str) -> Option<Arc<Wire>> {
        self.map.lock().get(sid).and_then(|entry| entry.wire.upgrade())
    }

    /// Ends the session's transport.
    pub fn end(&self, sid: &str) {
        let mut map = self.map.lock();
        let entry = map.entry(sid.to_owned()).or_default();
        entry.ended = true;
        if let Some(wire) = entry.wire.upgrade() {
            wire.end();
        }
    }

    /// The engine has dropped the session.
    pub fn closed(&self, sid: &str) {
        self.map.lock().remove(sid);
    }
}
