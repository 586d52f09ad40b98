//! Which TCP connection an engine session uses, so that it can be ended without
//! a Socket.IO disconnect (a client comes back after a lost transport, and stays
//! away after a disconnect); and what of a long polling answer is kept for the
//! next poll.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
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
    /// A WebSocket is about to take over: polls end soon.
    upgrading: bool,
    /// Packets for the next polls.
    kept: VecDeque<Bytes>,
}

/// When to look for entries whose connection is gone.
const SWEEP_AT: usize = 1024;
/// Packets in one polling answer: some clients give up above.
const PACKETS: usize = 16;
/// Between the packets of a polling answer (Engine.IO 4). JSON escapes it.
const SEPARATOR: u8 = 0x1e;

impl Sessions {
    /// The session is served by this connection now. False when the session was
    /// ended and may not go on.
    pub fn served_by(&self, sid: &str, wire: &Arc<Wire>) -> bool {
        let mut map = self.map.lock();
        if map.len() >= SWEEP_AT && map.len().is_power_of_two() {
            map.retain(|_, entry| entry.wire.strong_count() > 0 || !entry.kept.is_empty());
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

    /// The first packets of a polling answer; the rest is kept for the next poll.
    pub fn first_packets(&self, sid: &str, answer: Bytes) -> Bytes {
        if answer.iter().filter(|byte| **byte == SEPARATOR).count() < PACKETS {
            return answer;
        }
        let mut map = self.map.lock();
        // A session that closed or is upgrading is not polled again: now or never.
        let Some(entry) = map.get_mut(sid).filter(|entry| !entry.upgrading) else {
            return answer;
        };
        entry.kept.extend(answer.split(|byte| *byte == SEPARATOR).map(|p| answer.slice_ref(p)));
        take(entry).unwrap_or_default()
    }

    /// What an earlier poll left for this one.
    pub fn kept_packets(&self, sid: &str) -> Option<Bytes> {
        take(self.map.lock().get_mut(sid)?)
    }

    /// A WebSocket asks to take over. True when nothing is kept for polls any
    /// more: the client stops polling as soon as the WebSocket answers.
    pub fn may_upgrade(&self, sid: &str) -> bool {
        let mut map = self.map.lock();
        let entry = map.entry(sid.to_owned()).or_default();
        entry.upgrading = true;
        entry.kept.is_empty()
    }
}

fn take(entry: &mut Entry) -> Option<Bytes> {
    let count = entry.kept.len().min(PACKETS);
    let packets: Vec<Bytes> = entry.kept.drain(..count).collect();
    (count > 0).then(|| packets.join(&SEPARATOR).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_split_and_nothing_is_lost() {
        let sessions = Sessions::default();
        let packets: Vec<String> = (0..40).map(|n| format!("4{n}")).collect();
        let answer = Bytes::from(packets.join("\u{1e}"));
        assert_eq!(sessions.first_packets("closed", answer.clone()), answer);
        assert!(sessions.map.lock().is_empty());
        sessions.map.lock().insert("s".to_owned(), Entry::default());
        let mut got = Vec::new();
        let mut next = Some(sessions.first_packets("s", answer));
        assert!(!sessions.map.lock()["s"].upgrading);
        while let Some(part) = next {
            let text = String::from_utf8(part.to_vec()).unwrap();
            let part: Vec<String> = text.split('\u{1e}').map(str::to_owned).collect();
            assert!(part.len() <= 16);
            got.extend(part);
            next = sessions.kept_packets("s");
        }
        assert_eq!(got, packets);
        assert!(sessions.may_upgrade("s"));
        let answer = Bytes::from(packets.join("\u{1e}"));
        assert_eq!(sessions.first_packets("s", answer.clone()), answer);
    }
}
