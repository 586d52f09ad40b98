//! What a connection gets that was sent while the user was away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use parking_lot::Mutex;
use starling_protocol::event::{MessageDelivered, MessagesOffline};
use starling_protocol::limits::OFFLINE_BATCH;
use starling_protocol::{Failure, MessageId, RoomId, UserId};
use starling_repository::{Arrival, OfflineCursor, Undelivered};

use crate::{Chat, Identity, storage};

/// Ids held in memory for one delivery; beyond, the next are read when these
/// are sent.
const CHUNK: i64 = 10_000;

/// One connection's delivery: what was undelivered when it began, each message
/// once, oldest first, whatever is read or delivered meanwhile.
pub struct OfflineDelivery {
    user: UserId,
    /// The `lastSeq` of each room when the connection began: what is newer
    /// comes as `message:new`.
    heads: HashMap<RoomId, i64>,
    state: Mutex<State>,
}

struct State {
    /// Still to send.
    waiting: VecDeque<Undelivered>,
    /// Sent and not acknowledged.
    sent: HashMap<RoomId, HashSet<MessageId>>,
    /// Where the next chunk begins; `None` when all was read.
    next: Option<OfflineCursor>,
    /// Undelivered in the database beyond `waiting`.
    beyond: i64,
    batch: u32,
}

impl OfflineDelivery {
    /// What of a chunk is to be sent, and where the next begins.
    fn chunk(&self, found: Vec<Undelivered>) -> (VecDeque<Undelivered>, Option<OfflineCursor>) {
        let full = i64::try_from(found.len()).unwrap_or(CHUNK) >= CHUNK;
        let next = found.last().filter(|_| full).map(OfflineCursor::after);
        let old = |u: &Undelivered| self.heads.get(&u.room_id).is_some_and(|h| u.seq <= *h);
        (found.into_iter().filter(old).collect(), next)
    }

    /// Messages of the room that this delivery has still to send: reading past
    /// them does not mean that they arrived.
    #[must_use]
    pub fn held(&self, room: RoomId) -> Vec<MessageId> {
        let state = self.state.lock();
        let waiting = state.waiting.iter().filter(|w| w.room_id == room).map(|w| w.message_id);
        let sent = state.sent.get(&room).into_iter().flatten().copied();
        waiting.chain(sent).collect()
    }

    /// The client said that these arrived. True when that was all that was sent
    /// and not acknowledged, so the next batch may follow.
    pub fn acknowledge(&self, room: RoomId, ids: &[MessageId]) -> bool {
        let mut state = self.state.lock();
        let Some(sent) = state.sent.get_mut(&room) else { return false };
        for id in ids {
            sent.remove(id);
        }
        if sent.is_empty() {
            state.sent.remove(&room);
        }
        state.sent.is_empty()
    }
}

impl Chat {
    /// Looks up how things stand for a user who connects; `None` when the session
    /// has ended.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn arrival(&self, who: Identity) -> Result<Option<Arrival>, Failure> {
        let asked = Instant::now();
        let found = self.repository.arrival(who.user, who.session, CHUNK).await.map_err(storage)?;
        Ok(self.auth.judge(who.session, found.alive, asked).then_some(found))
    }

    /// The delivery of what an arrival found undelivered; `None` when that is
    /// nothing.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn offline_delivery(
        &self,
        user: UserId,
        arrival: Arrival,
    ) -> Result<Option<OfflineDelivery>, Failure> {
        let Arrival { rooms, undelivered, .. } = arrival;
        if undelivered.is_empty() {
            return Ok(None);
        }
        let heads = rooms.iter().map(|room| (room.room_id, room.last_seq)).collect();
        let mut delivery = OfflineDelivery {
            user,
            heads,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                sent: HashMap::new(),
                next: None,
                beyond: 0,
                batch: 0,
            }),
        };
        let (waiting, next) = delivery.chunk(undelivered);
        if waiting.is_empty() {
            return Ok(None);
        }
        let state = delivery.state.get_mut();
        if next.is_some() {
            let all = self.repository.count_undelivered(user).await.map_err(storage)?;
            state.beyond = (all - i64::try_from(waiting.len()).unwrap_or(all)).max(0);
        }
        state.waiting = waiting;
        state.next = next;
        Ok(Some(delivery))
    }

    async fn next_chunk(
        &self,
        delivery: &OfflineDelivery,
        after: OfflineCursor,
    ) -> Result<(VecDeque<Undelivered>, Option<OfflineCursor>), Failure> {
        let after = Some(after);
        let found =
            self.repository.undelivered(delivery.user, after, CHUNK).await.map_err(storage)?;
        Ok(delivery.chunk(found))
    }

    /// The next batch, or `None` at the end. Messages of rooms that the user has
    /// left meanwhile are left out.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn next_offline_batch(
        &self,
        delivery: &OfflineDelivery,
    ) -> Result<Option<MessagesOffline>, Failure> {
        loop {
            let (taken, next) = {
                let mut state = delivery.state.lock();
                let count = state.waiting.len().min(OFFLINE_BATCH);
                let taken: Vec<Undelivered> = state.waiting.drain(..count).collect();
                // Held from here on by being among the sent.
                for item in &taken {
                    state.sent.entry(item.room_id).or_default().insert(item.message_id);
                }
                (taken, if count == 0 { state.next.take() } else { None })
            };
            if taken.is_empty() {
                let Some(cursor) = next else { return Ok(None) };
                let (waiting, next) = self.next_chunk(delivery, cursor).await?;
                let mut state = delivery.state.lock();
                state.beyond = match next {
                    Some(_) => (state.beyond - CHUNK).max(0),
                    None => 0,
                };
                state.waiting = waiting;
                state.next = next;
                continue;
            }
            let ids: Vec<MessageId> = taken.iter().map(|item| item.message_id).collect();
            let messages =
                self.repository.messages_for(delivery.user, &ids).await.map_err(storage)?;
            let mut state = delivery.state.lock();
            if messages.len() < taken.len() {
                let got: HashSet<MessageId> = messages.iter().map(|m| m.id).collect();
                for item in taken.iter().filter(|item| !got.contains(&item.message_id)) {
                    if let Some(sent) = state.sent.get_mut(&item.room_id) {
                        sent.remove(&item.message_id);
                    }
                }
                state.sent.retain(|_, ids| !ids.is_empty());
            }
            if messages.is_empty() {
                continue;
            }
            state.batch += 1;
            let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
            let remaining = waiting.saturating_add(state.beyond);
            return Ok(Some(MessagesOffline { messages, batch: state.batch, remaining }));
        }
    }

    /// The client acknowledged a batch: its messages are delivered.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn offline_batch_delivered(
        &self,
        delivery: &OfflineDelivery,
        batch: &MessagesOffline,
    ) -> Result<(), Failure> {
        let mut by_room: HashMap<RoomId, Vec<MessageId>> = HashMap::new();
        for message in &batch.messages {
            by_room.entry(message.room_id).or_default().push(message.id);
        }
        // All are on their way before the first is awaited, so they go together.
        let mut waiting = Vec::with_capacity(by_room.len());
        for (room_id, message_ids) in by_room {
            let request = MessageDelivered { room_id, message_ids: message_ids.clone() };
            let delivering = self.enqueue_delivered(delivery.user, request)?;
            waiting.push((room_id, message_ids, delivering));
        }
        for (room_id, ids, delivering) in waiting {
            match delivering.stored().await {
                // Left the room since: nothing to mark.
                Ok(()) => {}
                Err(failure) if failure.code == starling_protocol::Code::NotFound => {}
                Err(failure) => return Err(failure),
            }
            delivery.acknowledge(room_id, &ids);
        }
        Ok(())
    }
}
