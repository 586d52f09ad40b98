//! The ports for a single instance: everything in this process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use starling_protocol::{Presence, PresenceStatus, Timestamp, UserId};

use crate::ports::{ConnectionId, Limited, Limits, PresenceStore};

/// Presence of the users of this process.
#[derive(Default)]
pub struct MemoryPresence {
    // Guards a map that is touched for microseconds and never across an await.
    users: Mutex<HashMap<UserId, Here>>,
}

struct Here {
    connections: HashSet<ConnectionId>,
    status: PresenceStatus,
}

#[async_trait]
impl PresenceStore for MemoryPresence {
    async fn opened(&self, user: UserId, connection: ConnectionId) -> Option<Presence> {
        let mut users = self.users.lock();
        let first = !users.contains_key(&user);
        users
            .entry(user)
            .or_insert_with(|| Here { connections: HashSet::new(), status: PresenceStatus::Online })
            .connections
            .insert(connection);
        first.then_some(Presence { user_id: user, status: PresenceStatus::Online, last_seen: None })
    }

    async fn closed(
        &self,
        user: UserId,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Presence> {
        let mut users = self.users.lock();
        let here = users.get_mut(&user)?;
        here.connections.remove(&connection);
        if !here.connections.is_empty() {
            return None;
        }
        users.remove(&user);
        let last_seen = Some(now);
        Some(Presence { user_id: user, status: PresenceStatus::Offline, last_seen })
    }

    async fn set(&self, user: UserId, status: PresenceStatus) -> Option<Presence> {
        let mut users = self.users.lock();
        let here = users.get_mut(&user)?;
        let news = here.status != status;
        here.status = status;
        news.then_some(Presence { user_id: user, status, last_seen: None })
    }

    async fn query(&self, ids: &[UserId]) -> Vec<(UserId, PresenceStatus)> {
        let users = self.users.lock();
        ids.iter()
            .map(|id| (*id, users.get(id).map_or(PresenceStatus::Offline, |here| here.status)))
            .collect()
    }
}

/// How many of each may happen within any second; 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Sends a user.
    pub messages: u32,
    /// Handshakes at this instance.
    pub connects: u32,
    /// Handshakes from one address.
    pub connects_from: u32,
}

/// Exact limits: within any window of one second no more than the rate pass.
pub struct MemoryLimits {
    rates: Rates,
    log: Mutex<Log>,
}

struct Log {
    /// The times of what passed within the last second, oldest first.
    passed: HashMap<Limited, VecDeque<Instant>>,
    swept: Instant,
}

impl Log {
    /// The times within the last second; now and then what is idle is dropped.
    fn recent(&mut self, what: Limited, now: Instant) -> &mut VecDeque<Instant> {
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.passed.retain(|_, times| {
                times.back().is_some_and(|last| now.duration_since(*last) < WINDOW)
            });
        }
        let times = self.passed.entry(what).or_default();
        while times.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            times.pop_front();
        }
        times
    }
}

const WINDOW: Duration = Duration::from_secs(1);
/// Idle keys are dropped so often, so the map holds what was active lately.
const SWEEP: Duration = Duration::from_secs(5);

impl MemoryLimits {
    /// With these rates.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        let log = Log { passed: HashMap::new(), swept: Instant::now() };
        Self { rates, log: Mutex::new(log) }
    }

    fn rate(&self, what: Limited) -> usize {
        let rate = match what {
            Limited::Messages(_) => self.rates.messages,
            Limited::Connects => self.rates.connects,
            Limited::ConnectsFrom(_) => self.rates.connects_from,
        };
        rate as usize
    }

    /// Counts one that passed elsewhere, so that what follows here is counted from
    /// there on.
    pub fn note(&self, what: Limited) {
        let rate = self.rate(what);
        if rate == 0 {
            return;
        }
        let now = Instant::now();
        let mut log = self.log.lock();
        let times = log.recent(what, now);
        times.push_back(now);
        if times.len() > rate {
            times.pop_front();
        }
    }

    fn take_at(&self, what: Limited, now: Instant) -> Result<(), u64> {
        let rate = self.rate(what);
        if rate == 0 {
            return Ok(());
        }
        let mut log = self.log.lock();
        let times = log.recent(what, now);
        match times.front() {
            Some(first) if times.len() >= rate => {
                let wait = WINDOW.saturating_sub(now.duration_since(*first));
                // Rounded up: who waits exactly so long passes.
                Err(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(1000).max(1))
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Limits for MemoryLimits {
    async fn take(&self, what: Limited) -> Result<(), u64> {
        self.take_at(what, Instant::now())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_window_of_a_second_lets_more_than_the_rate_pass() {
        let limits = MemoryLimits::new(Rates { messages: 10, connects: 0, connects_from: 0 });
        let what = Limited::Messages(UserId(1));
        let start = Instant::now();
        let mut passed = Vec::new();
        for ms in 0..5000 {
            let now = start + Duration::from_millis(ms);
            if limits.take_at(what, now).is_ok() {
                passed.push(ms);
            }
        }
        assert_eq!(passed.len(), 50);
        assert!(passed.windows(11).all(|w| w[10] - w[0] >= 1000));
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_refusals_cost_nothing() {
        let limits = MemoryLimits::new(Rates { messages: 2, connects: 0, connects_from: 0 });
        let what = Limited::Messages(UserId(1));
        let start = Instant::now();
        limits.take_at(what, start).unwrap();
        limits.take_at(what, start + Duration::from_millis(400)).unwrap();
        let now = start + Duration::from_millis(700);
        let wait = limits.take_at(what, now).unwrap_err();
        assert_eq!(wait, 300);
        assert!(limits.take_at(what, now).is_err());
        assert!(limits.take_at(what, now + Duration::from_millis(wait)).is_ok());
        assert!(limits.take_at(Limited::Messages(UserId(2)), now).is_ok());
    }

    #[tokio::test]
    async fn presence_changes_with_the_first_and_the_last_socket() {
        let presence = MemoryPresence::default();
        let (user, now) = (UserId(1), Timestamp::now());
        let [a, b] = [1, 2].map(|n| ConnectionId(uuid::Uuid::from_u128(n)));
        assert!(presence.opened(user, a).await.is_some());
        assert!(presence.opened(user, b).await.is_none());
        assert!(presence.set(user, PresenceStatus::Away).await.is_some());
        assert!(presence.set(user, PresenceStatus::Away).await.is_none());
        assert!(presence.closed(user, a, now).await.is_none());
        let gone = presence.closed(user, b, now).await.unwrap();
        assert_eq!((gone.status, gone.last_seen), (PresenceStatus::Offline, Some(now)));
        assert!(presence.set(user, PresenceStatus::Online).await.is_none());
    }
}
