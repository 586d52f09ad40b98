//! What a session needs while it polls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use crate::frame;

/// Packets in one polling answer: some clients give up above.
const PACKETS: usize = 16;
/// Between the packets of a polling answer (Engine.IO 4). JSON escapes it.
pub(crate) const SEPARATOR: u8 = 0x1e;

pub(crate) struct Polling {
    /// Bytes that the engine holds, about: its own packets aren't counted.
    pub(crate) waiting: usize,
    /// The last request of the client.
    pub(crate) heard: Instant,
    /// Packets for the next polls, or for the WebSocket if there are none.
    kept: VecDeque<Bytes>,
    paused: bool,
    resumed: Arc<Notify>,
    /// One body of the client at a time, so that pausing holds back the next.
    pub(crate) posting: Arc<Semaphore>,
}

impl Polling {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            waiting: 0,
            heard: now,
            kept: VecDeque::new(),
            paused: false,
            resumed: Arc::default(),
            posting: Arc::new(Semaphore::new(1)),
        }
    }

    /// The first packets of an answer; the rest is kept for the next polls.
    pub(crate) fn first_packets(&mut self, answer: Bytes) -> Bytes {
        let few = answer.iter().filter(|byte| **byte == SEPARATOR).count() < PACKETS;
        let answer = if few {
            answer
        } else {
            self.kept.extend(answer.split(|byte| *byte == SEPARATOR).map(|p| answer.slice_ref(p)));
            self.kept_packets().unwrap_or_default()
        };
        self.waiting = self.waiting.saturating_sub(answer.len());
        answer
    }

    /// What an earlier poll left for this one.
    pub(crate) fn kept_packets(&mut self) -> Option<Bytes> {
        let count = self.kept.len().min(PACKETS);
        let packets: Vec<Bytes> = self.kept.drain(..count).collect();
        (count > 0).then(|| packets.join(&SEPARATOR).into())
    }

    /// The same, as an answer.
    pub(crate) fn next_answer(&mut self) -> Option<Bytes> {
        let answer = self.kept_packets()?;
        self.waiting = self.waiting.saturating_sub(answer.len());
        Some(answer)
    }

    /// What no poll has fetched and none will, since a WebSocket has taken over: as
    /// its frames. Older than all that the engine holds.
    pub(crate) fn rest_as_frames(&mut self) -> Vec<Bytes> {
        self.kept.drain(..).filter_map(|packet| frame::from_packet(&packet)).collect()
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            self.resumed.notify_waiters();
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// What to wait for before a body of the client may be looked at.
    pub(crate) fn resumption(&self) -> Option<Arc<Notify>> {
        self.paused.then(|| self.resumed.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_split_and_nothing_is_lost() {
        let mut polling = Polling::new(Instant::now());
        let packets: Vec<String> = (0..40).map(|n| format!("4{n}")).collect();
        let answer = Bytes::from(packets.join("\u{1e}"));
        polling.waiting = answer.len();
        let mut got = Vec::new();
        let mut next = Some(polling.first_packets(answer.clone()));
        while let Some(part) = next {
            let text = String::from_utf8(part.to_vec()).unwrap();
            let part: Vec<String> = text.split('\u{1e}').map(str::to_owned).collect();
            assert!(part.len() <= PACKETS);
            got.extend(part);
            next = polling.next_answer();
        }
        assert_eq!(got, packets);
        assert!(polling.waiting < PACKETS, "only separators are left over");
        polling.first_packets(answer);
        let rest = polling.rest_as_frames();
        assert_eq!(rest.len(), packets.len() - PACKETS);
        assert_eq!(&rest[0][..], b"\x81\x03416");
    }
}
