//! A room's messages in the order of their `seq`, whatever order they come in.
//!
//! Two instances that store messages of one room publish them to each other, and
//! nothing orders what comes from two sides. So what is ahead of its turn is held
//! here until what is missing has come, or was read from PostgreSQL.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use starling_protocol::RoomId;

/// Messages that are held for one room. What is beyond is read from PostgreSQL when
/// its turn comes.
const HELD: usize = 256;

/// Where the rooms that this instance has sockets in have got to.
pub struct Order<T> {
    rooms: HashMap<RoomId, Place<T>>,
    /// Those in which something is missing.
    holes: HashSet<RoomId>,
}

struct Place<T> {
    /// The `seq` whose turn it is; unknown until somebody says where the room was.
    next: Option<i64>,
    /// The highest `seq` that is known to exist.
    highest: i64,
    held: BTreeMap<i64, T>,
    /// Since when something has been missing.
    since: Option<Instant>,
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { next: None, highest: 0, held: BTreeMap::new(), since: None }
    }
}

/// What is missing in a room: messages above `after`, up to `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The room.
    pub room: RoomId,
    /// The last that was delivered; unknown for a room that nobody placed.
    pub after: Option<i64>,
    /// The highest that is known to exist.
    pub through: i64,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { rooms: HashMap::new(), holes: HashSet::new() }
    }
}

impl<T> Place<T> {
    /// Delivers whatever has its turn now.
    fn release(&mut self, deliver: &mut impl FnMut(T)) {
        let Some(mut next) = self.next else { return };
        while let Some(entry) = self.held.first_entry() {
            match entry.key().cmp(&next) {
                std::cmp::Ordering::Greater => break,
                std::cmp::Ordering::Equal => {
                    deliver(entry.remove());
                    next += 1;
                }
                std::cmp::Ordering::Less => drop(entry.remove()),
            }
        }
        self.next = Some(next);
    }

    fn is_whole(&self) -> bool {
        self.next.map_or(self.held.is_empty(), |next| next > self.highest)
    }
}

impl<T> Order<T> {
    fn settle(&mut self, room: RoomId, now: Instant) {
        let Some(place) = self.rooms.get_mut(&room) else { return };
        if place.is_whole() {
            place.since = None;
            self.holes.remove(&room);
        } else {
            place.since.get_or_insert(now);
            self.holes.insert(room);
        }
    }

    /// A message came: it is delivered if it has its turn, with those behind it;
    /// held if it is early; dropped if it was there before.
    pub fn arrive(
        &mut self,
        room: RoomId,
        seq: i64,
        item: T,
        now: Instant,
        mut deliver: impl FnMut(T),
    ) {
        let place = self.rooms.entry(room).or_default();
        place.highest = place.highest.max(seq);
        match place.next {
            Some(next) if seq < next => return,
            Some(next) if seq == next => {
                deliver(item);
                place.next = Some(next + 1);
                place.release(&mut deliver);
            }
            _ => {
                if place.held.len() < HELD {
                    place.held.entry(seq).or_insert(item);
                }
            }
        }
        self.settle(room, now);
    }

    /// Those who are in the room know of all up to `last`. Changes nothing when it
    /// is known where the room is.
    pub fn begin(&mut self, room: RoomId, last: i64, now: Instant, mut deliver: impl FnMut(T)) {
        let place = self.rooms.entry(room).or_default();
        if place.next.is_none() {
            place.next = Some(last + 1);
            place.highest = place.highest.max(last);
            place.release(&mut deliver);
            self.settle(room, now);
        }
    }

    /// The `seq` whose turn it is.
    #[must_use]
    pub fn next(&self, room: RoomId) -> Option<i64> {
        self.rooms.get(&room)?.next
    }

    /// A message of this `seq` exists.
    pub fn exists(&mut self, room: RoomId, seq: i64, now: Instant) {
        let Some(place) = self.rooms.get_mut(&room) else { return };
        place.highest = place.highest.max(seq);
        self.settle(room, now);
    }

    /// Nobody is in the room any more.
    pub fn forget(&mut self, room: RoomId) {
        self.rooms.remove(&room);
        self.holes.remove(&room);
    }

    /// What has been missing for so long.
    #[must_use]
    pub fn holes(&self, now: Instant, patience: Duration) -> Vec<Hole> {
        let late = |place: &&Place<T>| {
            place.since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
        };
        self.holes
            .iter()
            .filter_map(|room| Some((room, self.rooms.get(room).filter(late)?)))
            .map(|(room, place)| Hole {
                room: *room,
                after: place.next.map(|next| next - 1),
                through: place.highest,
            })
            .collect()
    }

    /// What was read for a hole, in ascending order. `whole` says that there is
    /// nothing else up to `hole.through`: what is still missing then is no more.
    pub fn mend(
        &mut self,
        hole: Hole,
        found: impl IntoIterator<Item = (i64, T)>,
        whole: bool,
        now: Instant,
        mut deliver: impl FnMut(T),
    ) {
        // Everybody may have left meanwhile.
        if !self.rooms.contains_key(&hole.room) {
            return;
        }
        for (seq, item) in found {
            self.arrive(hole.room, seq, item, now, &mut deliver);
        }
        let Some(place) = self.rooms.get_mut(&hole.room) else { return };
        match place.next {
            Some(next) if whole && next <= hole.through => {
                place.next = Some(
                    place
                        .held
                        .keys()
                        .next()
                        .map_or(hole.through + 1, |first| (*first).min(hole.through + 1)),
                );
            }
            // Nobody knows where it was: it begins with what came.
            None => place.next = place.held.keys().next().copied(),
            _ => {}
        }
        place.release(&mut deliver);
        // What is missing still is given the same time again.
        place.since = None;
        self.settle(hole.room, now);
    }

    /// All rooms whose place is known, with the last `seq` that was delivered.
    pub fn places(&self) -> impl Iterator<Item = (RoomId, i64)> {
        self.rooms.iter().filter_map(|(room, place)| Some((*room, place.next? - 1)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: RoomId = RoomId(7);

    struct Probe {
        order: Order<i64>,
        heard: Vec<i64>,
        now: Instant,
    }

    impl Probe {
        fn new(last: i64) -> Self {
            let mut probe =
                Self { order: Order::default(), heard: Vec::new(), now: Instant::now() };
            probe.order.begin(ROOM, last, probe.now, |_| {});
            probe
        }

        fn arrive(&mut self, seq: i64) {
            self.order.arrive(ROOM, seq, seq, self.now, |seq| self.heard.push(seq));
        }

        fn holes(&self, after: u64) -> Vec<Hole> {
            self.order.holes(self.now + Duration::from_millis(after), Duration::from_millis(100))
        }

        fn mend(&mut self, hole: Hole, found: &[i64], whole: bool) {
            let found: Vec<_> = found.iter().map(|seq| (*seq, *seq)).collect();
            self.order.mend(hole, found, whole, self.now, |seq| self.heard.push(seq));
        }
    }

    #[test]
    fn what_is_early_waits_and_what_was_there_is_dropped() {
        let mut probe = Probe::new(10);
        for seq in [11, 13, 14, 11, 10, 12, 13, 15] {
            probe.arrive(seq);
        }
        assert_eq!(probe.heard, [11, 12, 13, 14, 15]);
        assert_eq!(probe.holes(1000), []);
    }

    #[test]
    fn a_hole_is_told_after_a_moment_and_mended_in_order() {
        let mut probe = Probe::new(0);
        for seq in [1, 4, 6] {
            probe.arrive(seq);
        }
        assert_eq!(probe.holes(99), []);
        let hole = Hole { room: ROOM, after: Some(1), through: 6 };
        assert_eq!(probe.holes(100), [hole]);
        probe.mend(hole, &[2, 3, 4, 5], false);
        assert_eq!(probe.heard, [1, 2, 3, 4, 5, 6]);
        assert_eq!(probe.holes(1000), []);
    }

    #[test]
    fn what_does_not_exist_is_not_waited_for() {
        let mut probe = Probe::new(0);
        probe.arrive(3);
        probe.mend(probe.holes(100)[0], &[], true);
        assert_eq!(probe.heard, [3]);
        probe.order.exists(ROOM, 9, probe.now);
        let hole = probe.holes(100)[0];
        assert_eq!((hole.after, hole.through), (Some(3), 9));
        probe.mend(hole, &[], true);
        probe.arrive(10);
        assert_eq!(probe.heard, [3, 10]);
    }

    #[test]
    fn a_room_that_nobody_placed_begins_with_what_came_first() {
        let mut probe = Probe::new(0);
        probe.order.forget(ROOM);
        probe.arrive(6);
        probe.arrive(5);
        assert!(probe.heard.is_empty());
        let hole = probe.holes(100)[0];
        assert_eq!(hole.after, None);
        probe.mend(hole, &[], false);
        assert_eq!(probe.heard, [5, 6]);
        probe.order.forget(ROOM);
        probe.arrive(8);
        probe.order.begin(ROOM, 7, probe.now, |seq| probe.heard.push(seq));
        assert_eq!(probe.heard, [5, 6, 8]);
    }

    #[test]
    fn what_is_held_is_bounded_and_the_rest_is_read() {
        let mut probe = Probe::new(0);
        let last = i64::try_from(HELD).unwrap() * 3;
        for seq in 2..=last {
            probe.arrive(seq);
        }
        let mut reads = 0;
        while let Some(hole) = probe.holes(100).first().copied() {
            let from = hole.after.unwrap() + 1;
            let found: Vec<i64> = (from..=hole.through).take(100).collect();
            let whole = found.last() == Some(&hole.through);
            probe.mend(hole, &found, whole);
            reads += 1;
        }
        assert_eq!(probe.heard, (1..=last).collect::<Vec<_>>());
        assert!(reads < 10);
    }

    proptest! {
        #[test]
        fn any_order_with_losses_and_repeats_is_heard_in_order(
            seqs in proptest::collection::vec(1..40_i64, 0..120),
        ) {
            let mut probe = Probe::new(0);
            for seq in &seqs {
                probe.arrive(*seq);
            }
            let highest = seqs.iter().copied().max().unwrap_or(0);
            while let Some(hole) = probe.holes(100).first().copied() {
                let found: Vec<i64> = (hole.after.unwrap() + 1..=hole.through).collect();
                probe.mend(hole, &found, true);
            }
            prop_assert_eq!(probe.heard, (1..=highest).collect::<Vec<_>>());
        }
    }
}
