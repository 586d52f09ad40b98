//! Changes of one message that two instances made at about the same time.
//!
//! Each instance tells its own sockets of its change at once, and those of the other when
//! that arrives: so what comes last, and stays on the screen, may be the older one. Where
//! changes from here and from elsewhere meet, the message is read again from PostgreSQL a
//! moment later, and its sockets here are told how it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use starling_protocol::MessageId;

/// How long a publication may be on its way.
const WINDOW: Duration = Duration::from_secs(30);
/// Changes that are remembered: more than 500 a second for all of the window. Beyond, the
/// oldest are forgotten, and what meets them is not noticed.
const REMEMBERED: usize = 16_384;

/// Which messages were changed lately, and which have to be looked at.
#[derive(Default)]
pub struct Crossing {
    recent: HashMap<MessageId, Change>,
    /// Since when.
    crossed: HashMap<MessageId, Instant>,
}

struct Change {
    at: Instant,
    /// Another instance made it.
    elsewhere: bool,
}

impl Crossing {
    /// A change of the message is published here now.
    pub fn note(&mut self, id: MessageId, elsewhere: bool, now: Instant) {
        if self.recent.len() >= REMEMBERED && !self.recent.contains_key(&id) {
            self.forget(now);
        }
        let before = self.recent.insert(id, Change { at: now, elsewhere });
        if before.is_some_and(|before| {
            now.duration_since(before.at) < WINDOW && (elsewhere || before.elsewhere)
        }) {
            self.crossed.entry(id).or_insert(now);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.recent.retain(|_, change| now.duration_since(change.at) < WINDOW);
        if self.recent.len() >= REMEMBERED {
            let mut times: Vec<_> = self.recent.values().map(|change| change.at).collect();
            let (_, middle, _) = times.select_nth_unstable(REMEMBERED / 2);
            let middle = *middle;
            self.recent.retain(|_, change| change.at > middle);
        }
    }

    /// Takes at most so many that changes met at for so long already.
    pub fn take(&mut self, most: usize, patience: Duration, now: Instant) -> Vec<MessageId> {
        let due = self.crossed.iter().filter(|(_, since)| now.duration_since(**since) >= patience);
        let due: Vec<_> = due.map(|(id, _)| *id).take(most).collect();
        for id in &due {
            self.crossed.remove(id);
        }
        due
    }

    /// Whether what was read from `since` on is how the message is. If it was changed
    /// meanwhile, it has to be looked at again.
    pub fn settles(&mut self, id: MessageId, since: Instant) -> bool {
        let changed = self.recent.get(&id).is_some_and(|change| change.at >= since);
        if changed {
            self.crossed.entry(id).or_insert(since);
        }
        !changed
    }

    /// It could not be read: it has to be looked at again.
    pub fn again(&mut self, ids: &[MessageId], now: Instant) {
        for id in ids {
            self.crossed.entry(*id).or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn id(number: u128) -> MessageId {
        MessageId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn only_what_meets_a_change_from_elsewhere_is_looked_at() {
        let (mut crossing, now) = (Crossing::default(), Instant::now());
        // One's own alone, and one from elsewhere alone.
        crossing.note(id(1), false, now);
        crossing.note(id(1), false, now);
        crossing.note(id(2), true, now);
        // Either after the other.
        crossing.note(id(3), false, now);
        crossing.note(id(3), true, now);
        crossing.note(id(4), true, now);
        crossing.note(id(4), false, now);
        assert!(crossing.take(10, PATIENCE, now).is_empty());
        let mut due = crossing.take(10, PATIENCE, now + PATIENCE);
        due.sort();
        assert_eq!(due, [id(3), id(4)]);
        assert!(crossing.take(10, PATIENCE, now + PATIENCE).is_empty());
        // Long after, they have nothing to do with each other.
        crossing.note(id(2), false, now + WINDOW);
        assert!(crossing.take(10, PATIENCE, now + WINDOW + PATIENCE).is_empty());
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        let (mut crossing, now) = (Crossing::default(), Instant::now());
        crossing.note(id(1), false, now);
        crossing.note(id(1), true, now);
        let later = now + PATIENCE;
        assert_eq!(crossing.take(10, PATIENCE, later), [id(1)]);
        assert!(crossing.settles(id(1), later));
        crossing.note(id(1), false, later);
        assert!(!crossing.settles(id(1), later));
        assert_eq!(crossing.take(10, PATIENCE, later + PATIENCE), [id(1)]);
    }

    #[test]
    fn no_more_than_a_bound_is_remembered() {
        let (mut crossing, start) = (Crossing::default(), Instant::now());
        for number in 0..(REMEMBERED as u64 * 2) {
            crossing.note(id(number.into()), false, start + Duration::from_micros(number));
        }
        assert!(crossing.recent.len() <= REMEMBERED);
        // The newest are there.
        let newest = id(u128::from(REMEMBERED as u64 * 2 - 1));
        crossing.note(newest, true, start + Duration::from_secs(1));
        assert_eq!(crossing.take(10, Duration::ZERO, start + Duration::from_secs(1)), [newest]);
    }
}
