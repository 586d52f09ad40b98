//! Typing: at most one start a second goes out, and it stops by itself.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use starling_protocol::event::{ServerEvent, TypingUpdate};
use starling_protocol::{RoomId, UserId};

use crate::ports::{Except, Fanout, Target};

/// Between two starts of one user in one room that go out.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// After the last start.
const STOPS_AFTER: Duration = Duration::from_secs(3);
/// How late a stop by itself may be.
const TICK: Duration = Duration::from_millis(100);

/// Who types where. Bounded by the users who typed within the last seconds.
pub(crate) struct Typing {
    fanout: Arc<dyn Fanout>,
    typists: Mutex<HashMap<(UserId, RoomId), Typist>>,
}

struct Typist {
    /// The others were told so.
    shown: bool,
    /// When a start last went out.
    told: Instant,
    /// When the user last said so.
    heard: Instant,
}

impl Typing {
    pub(crate) fn start(fanout: Arc<dyn Fanout>) -> Arc<Self> {
        let typing = Arc::new(Self { fanout, typists: Mutex::default() });
        tokio::spawn(clock(Arc::downgrade(&typing)));
        typing
    }

    pub(crate) fn started(&self, user: UserId, room: RoomId) {
        self.started_at(user, room, Instant::now());
    }

    fn started_at(&self, user: UserId, room: RoomId, now: Instant) {
        // Told under the lock, so that start and stop go out in their order.
        let mut typists = self.typists.lock();
        if let Some(typist) = typists.get_mut(&(user, room)) {
            typist.heard = now;
            if now.duration_since(typist.told) < DEBOUNCE {
                return;
            }
        }
        typists.insert((user, room), Typist { shown: true, told: now, heard: now });
        self.tell(user, room, true);
    }

    /// The user stopped typing in the room, or left it.
    pub(crate) fn left(&self, user: UserId, room: RoomId) {
        let mut typists = self.typists.lock();
        if let Some(typist) = typists.get_mut(&(user, room)).filter(|typist| typist.shown) {
            // Kept for the debounce.
            typist.shown = false;
            self.tell(user, room, false);
        }
    }

    /// The user has no socket left.
    pub(crate) fn gone(&self, user: UserId) {
        let rooms: Vec<RoomId> =
            self.typists.lock().keys().filter(|key| key.0 == user).map(|key| key.1).collect();
        for room in rooms {
            self.left(user, room);
        }
    }

    fn tick(&self, now: Instant) {
        let mut typists = self.typists.lock();
        typists.retain(|(user, room), typist| {
            if typist.shown && now.duration_since(typist.heard) >= STOPS_AFTER {
                typist.shown = false;
                self.tell(*user, *room, false);
            }
            typist.shown || now.duration_since(typist.told) < DEBOUNCE
        });
    }

    fn tell(&self, user: UserId, room: RoomId, is_typing: bool) {
        let event =
            ServerEvent::TypingUpdate(TypingUpdate { room_id: room, user_id: user, is_typing });
        self.fanout.publish(Target::Room(room), Except::User(user), event);
    }
}

async fn clock(typing: Weak<Typing>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let Some(typing) = typing.upgrade() else { return };
        typing.tick(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_protocol::SessionId;

    #[derive(Default)]
    struct Heard(Mutex<Vec<bool>>);

    impl Fanout for Heard {
        fn publish(&self, _: Target, except: Except, event: ServerEvent) {
            assert_eq!(except, Except::User(UserId(1)));
            if let ServerEvent::TypingUpdate(update) = event {
                self.0.lock().push(update.is_typing);
            }
        }
        fn join(&self, _: UserId, _: RoomId) {}
        fn leave(&self, _: UserId, _: RoomId) {}
        fn revoke(&self, _: SessionId, _: &str) {}
    }

    #[test]
    fn starts_are_debounced_and_stop_by_themselves() {
        let heard = Arc::new(Heard::default());
        let typing = Typing { fanout: heard.clone(), typists: Mutex::default() };
        let (user, room, start) = (UserId(1), RoomId(2), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [0, 300, 900] {
            typing.started_at(user, room, at(ms));
        }
        assert_eq!(*heard.0.lock(), [true]);
        typing.started_at(user, room, at(1000));
        assert_eq!(*heard.0.lock(), [true, true]);
        typing.tick(at(3999));
        assert_eq!(*heard.0.lock(), [true, true]);
        typing.tick(at(4000));
        assert_eq!(*heard.0.lock(), [true, true, false]);
        assert!(typing.typists.lock().is_empty());
        // A stop in between lets no second start through within the second.
        typing.started_at(user, room, at(5000));
        typing.left(user, room);
        typing.left(user, room);
        typing.started_at(user, room, at(5500));
        assert_eq!(*heard.0.lock(), [true, true, false, true, false]);
        typing.started_at(user, room, at(6000));
        assert_eq!(heard.0.lock().last(), Some(&true));
    }
}
