//! What this instance knows of each user's sends. No I/O: times come from outside.
//!
//! # Why it is exact
//! Of a user that one instance holds (see [`super`]), let `half` be half of the rate.
//! - The holder lets a send pass here only while what passed here within the last second and
//!   what is still being asked for stay within `half` together with it. All it asks carries
//!   what Redis was not given yet. So at any moment as much of the holder has passed as Redis
//!   knows of, or no more than `half`.
//! - Another instance counts the holder's sends as `half` at least. Nothing of others was in
//!   the set when it was given away, so that all others have `rate - half` at most.
//! - The holder stops counting here *before* it gives up, and gives up with all that Redis
//!   was not given yet.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use starling_protocol::UserId;

pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// A sign of life is believed so long in Redis, counted from when it arrives there …
pub(super) const LEASE: Duration = Duration::from_millis(500);
/// … and here, counted from before it was sent: clocks may run unevenly.
const LEASE_HERE: Duration = Duration::from_millis(400);
/// A user who sent nothing for so long is held no longer: who writes now and then is held all
/// the time, for some two hundred bytes in Redis.
pub(super) const HOLD: Duration = Duration::from_secs(300);
/// The same here, likewise less.
const HOLD_HERE: Duration = Duration::from_secs(240);
/// What Redis was not given yet, of all users: as many as pass in a twentieth of a second
/// of twice the load that one instance bears, and some hundred KiB. Beyond, sends are asked for.
const UNPOSTED_MAX: usize = 8192;
/// Users that are held at once, some 300 bytes each. Beyond, sends are asked for.
const USERS_MAX: usize = 100_000;
/// Users to ask other instances for. What is left out is asked for with another send.
const WISHES_MAX: usize = 1024;
/// Idle users are dropped so often.
const SWEEP: Duration = Duration::from_secs(5);

/// Something that passed: a number of its own, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    pub number: u64,
    pub at: Instant,
}

/// What Redis is to be given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Post {
    pub user: UserId,
    pub entries: Vec<Entry>,
    /// The user is given up if it is held by this serial number or an older one.
    pub release: Option<u64>,
}

/// What Redis is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub number: u64,
    /// Later questions have larger ones.
    pub serial: u64,
    pub generation: u64,
    /// Whether this instance may hold the user.
    pub seek: bool,
    /// What passed here and Redis may not know.
    pub carried: Vec<Entry>,
    pub at: Instant,
}

pub(super) enum Begun {
    /// It passed.
    Here,
    /// To be asked, then ended by [`Ledger::ended`] in any case.
    Ask(Question),
}

/// Redis' answer about a user of this instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    pub passed: bool,
    /// The serial number by which this instance holds the user.
    pub held: Option<u64>,
    /// Somebody else had a send within the last second.
    pub shared: bool,
}

#[derive(Default)]
struct User {
    /// What passed here within the last second, oldest first, at most the rate.
    passed: VecDeque<Instant>,
    /// Questions without an answer.
    asking: usize,
    /// What Redis may not know, of the last second.
    unposted: Vec<Entry>,
    /// Whether the user is in `Ledger::due`.
    due: bool,
    held_until: Option<Instant>,
    /// Answers by this serial number or an older one no longer hold.
    released: u64,
}

impl User {
    fn forget(&mut self, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        while self.passed.front().is_some_and(|first| old(*first)) {
            self.passed.pop_front();
        }
        self.unposted.retain(|entry| !old(entry.at));
    }

    fn pass(&mut self, at: Instant, rate: usize) {
        self.passed.push_back(at);
        if self.passed.len() > rate {
            self.passed.pop_front();
        }
    }
}

/// Whether this instance counts as alive.
struct Session {
    generation: u64,
    /// `None` before the first sign of life of this generation.
    until: Option<Instant>,
}

pub(super) struct Ledger {
    rate: usize,
    users: HashMap<UserId, User>,
    session: Session,
    /// Users with something unposted.
    due: Vec<UserId>,
    releases: Vec<UserId>,
    /// Users whom another instance holds that seems to have no use for it, and its name.
    wishes: HashMap<UserId, String>,
    unposted: usize,
    numbers: u64,
    serials: u64,
    /// Answers by this serial number or an older one are of a generation that ended.
    void: u64,
    swept: Instant,
}

impl Ledger {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: rate as usize,
            users: HashMap::new(),
            session: Session { generation: 1, until: None },
            due: Vec::new(),
            releases: Vec::new(),
            wishes: HashMap::new(),
            unposted: 0,
            numbers: 0,
            serials: 0,
            void: 0,
            swept: now,
        }
    }

    /// As much of a second as may pass here alone.
    pub(super) fn half(&self) -> usize {
        self.rate / 2
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A user's entry without what is old.
    fn user(&mut self, user: UserId, now: Instant) -> &mut User {
        let known = self.users.entry(user).or_default();
        let before = known.unposted.len();
        known.forget(now);
        self.unposted -= before - known.unposted.len();
        known
    }

    fn unposted(&mut self, user: UserId, entry: Entry) {
        if self.unposted >= UNPOSTED_MAX {
            return;
        }
        if let Some(known) = self.users.get_mut(&user) {
            known.unposted.push(entry);
            self.unposted += 1;
            if !std::mem::replace(&mut known.due, true) {
                self.due.push(user);
            }
        }
    }

    /// A send wants to pass.
    pub(super) fn begin(&mut self, user: UserId, now: Instant) -> Begun {
        let alive = self.session.until.is_some_and(|until| now < until);
        let (rate, half) = (self.rate, self.half());
        let (room, crowded) = (self.unposted < UNPOSTED_MAX, self.users.len() > USERS_MAX);
        let number = self.number();
        let serial = self.serials + 1;
        let generation = self.session.generation;
        let known = self.user(user, now);
        let held = alive && known.held_until.is_some_and(|until| now < until);
        if held && room && known.passed.len() + known.asking < half {
            known.pass(now, rate);
            self.unposted(user, Entry { number, at: now });
            return Begun::Here;
        }
        known.asking += 1;
        let (seek, carried) = (alive && !crowded && half > 0, known.unposted.clone());
        self.serials = serial;
        Begun::Ask(Question { number, serial, generation, seek, carried, at: now })
    }

    /// Redis answered.
    pub(super) fn answered(
        &mut self,
        user: UserId,
        question: &Question,
        answer: Answer,
        now: Instant,
    ) {
        let (rate, void) = (self.rate, self.void);
        self.posted_entries(user, &question.carried);
        let known = self.user(user, now);
        if answer.passed {
            known.pass(now, rate);
        }
        match answer.held {
            Some(serial) if !answer.shared => {
                if serial > void.max(known.released) {
                    known.held_until = Some(question.at + HOLD_HERE);
                }
            }
            _ => self.lost(user),
        }
    }

    /// Redis did not answer: counts here alone. As [`starling_chat::Limits::take`].
    pub(super) fn alone(
        &mut self,
        user: UserId,
        question: &Question,
        now: Instant,
    ) -> Result<(), u64> {
        let rate = self.rate;
        let known = self.user(user, now);
        match known.passed.front() {
            Some(first) if known.passed.len() >= rate => {
                let wait = WINDOW.saturating_sub(now.saturating_duration_since(*first));
                // Rounded up: who waits exactly so long passes.
                Err(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(1000).max(1))
            }
            _ => {
                known.pass(now, rate);
                // By the number of the question: Redis may have heard it, and counts it once.
                self.unposted(user, Entry { number: question.number, at: now });
                Ok(())
            }
        }
    }

    /// A question is over, with or without an answer.
    pub(super) fn ended(&mut self, user: UserId) {
        if let Some(known) = self.users.get_mut(&user) {
            known.asking = known.asking.saturating_sub(1);
        }
    }

    /// The user is to be given up.
    fn lost(&mut self, user: UserId) {
        if let Some(known) = self.users.get_mut(&user)
            && known.held_until.take().is_some()
        {
            self.releases.push(user);
        }
    }

    // ---- what goes to Redis by itself ----

    /// Whether nothing is held or waits, so that nobody is in a hurry.
    pub(super) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.users.is_empty() && self.wishes.is_empty()
    }

    /// What Redis was not given yet.
    pub(super) fn posts(&mut self, now: Instant) -> Vec<Post> {
        let mut posts = Vec::new();
        for user in std::mem::take(&mut self.due) {
            let known = self.user(user, now);
            known.due = false;
            if !known.unposted.is_empty() {
                posts.push(Post { user, entries: known.unposted.clone(), release: None });
            }
        }
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.sweep(now);
        }
        posts
    }

    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        let unposted = &mut self.unposted;
        self.users.retain(|_, known| {
            let before = known.unposted.len();
            known.forget(now);
            *unposted -= before - known.unposted.len();
            known.asking > 0
                || !known.passed.is_empty()
                || !known.unposted.is_empty()
                || known.held_until.is_some_and(|until| now < until)
        });
    }

    /// Users to be given up, and `asked` for by others: none of them is counted here
    /// from now on.
    pub(super) fn releases(&mut self, asked: Vec<UserId>, now: Instant) -> Vec<Post> {
        let mut users = std::mem::take(&mut self.releases);
        users.extend(asked);
        users.sort_unstable_by_key(|user| user.0);
        users.dedup();
        let serial = self.serials;
        let mut posts = Vec::new();
        for user in users {
            let mut entries = Vec::new();
            if self.users.contains_key(&user) {
                let known = self.user(user, now);
                known.held_until = None;
                known.released = serial;
                entries.clone_from(&known.unposted);
            }
            posts.push(Post { user, entries, release: Some(serial) });
        }
        posts
    }

    fn posted_entries(&mut self, user: UserId, entries: &[Entry]) {
        if let Some(known) = self.users.get_mut(&user) {
            let before = known.unposted.len();
            known.unposted.retain(|entry| entries.iter().all(|e| e.number != entry.number));
            self.unposted -= before - known.unposted.len();
        }
    }

    /// Redis took a post that was `sent` then. `alone`: this instance holds the user, and
    /// nobody else had a send.
    pub(super) fn posted(&mut self, post: &Post, alone: bool, sent: Instant) {
        self.posted_entries(post.user, &post.entries);
        if post.release.is_some() {
            return;
        }
        if !alone {
            self.lost(post.user);
        } else if let Some(known) = self.users.get_mut(&post.user) {
            let until = sent + HOLD_HERE;
            known.held_until = known.held_until.map(|known| known.max(until));
        }
    }

    /// Redis did not take it: it is tried again while it matters.
    pub(super) fn not_posted(&mut self, post: &Post) {
        if let Some(known) = self.users.get_mut(&post.user)
            && !known.unposted.is_empty()
            && !std::mem::replace(&mut known.due, true)
        {
            self.due.push(post.user);
        }
    }

    /// This instance should hold the user; `holder` does.
    pub(super) fn wish(&mut self, user: UserId, holder: String) {
        if self.wishes.len() < WISHES_MAX {
            self.wishes.insert(user, holder);
        }
    }

    pub(super) fn wishes(&mut self) -> HashMap<UserId, String> {
        std::mem::take(&mut self.wishes)
    }

    // ---- life ----

    /// A sign of life goes out. Answers its generation and whether it is the first that
    /// arrives there.
    pub(super) fn beat(&mut self, now: Instant) -> (u64, bool) {
        if self.session.until.is_some_and(|until| now >= until) {
            self.lapse();
        }
        (self.session.generation, self.session.until.is_none())
    }

    /// The answer to one of a generation, `sent` then: whether Redis still knew of it.
    pub(super) fn beaten(&mut self, generation: u64, lived: bool, sent: Instant) {
        if generation != self.session.generation {
            return;
        }
        if lived {
            self.session.until = Some(sent + LEASE_HERE);
        } else {
            self.lapse();
        }
    }

    /// Others may have taken all that this instance held: nothing of it counts any more.
    fn lapse(&mut self) {
        self.session = Session { generation: self.session.generation + 1, until: None };
        self.void = self.serials;
        for known in self.users.values_mut() {
            known.held_until = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
