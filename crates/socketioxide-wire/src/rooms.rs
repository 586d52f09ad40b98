//! Rooms as lists: going through one touches nothing but its members.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What can be in rooms.
pub trait Member {
    /// A number that no other member has, such as
    /// [`Handle::number`](crate::Handle::number).
    fn number(&self) -> u64;
}

/// Who is in which room. A room exists while somebody is in it.
///
/// Only members that were [added](Self::add) can enter, so that none stays behind
/// that entered after it was [removed](Self::remove).
pub struct Rooms<K, M> {
    rooms: HashMap<K, Vec<Arc<M>>>,
    /// Where each member stands in its rooms' lists.
    places: HashMap<u64, Vec<(K, u32)>>,
}

impl<K: Hash + Eq + Clone, M: Member> Default for Rooms<K, M> {
    fn default() -> Self {
        Self { rooms: HashMap::new(), places: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, M: Member> Rooms<K, M> {
    /// A member may enter rooms from now on.
    pub fn add(&mut self, member: &M) {
        self.places.entry(member.number()).or_default();
    }

    /// A member leaves all rooms, and can't enter any more.
    pub fn remove(&mut self, member: &M) {
        for (room, place) in self.places.remove(&member.number()).unwrap_or_default() {
            self.take(&room, place);
        }
    }

    /// Enters a room. False if it is in there already, or was not added.
    pub fn enter(&mut self, member: &Arc<M>, room: &K) -> bool {
        let Some(places) = self.places.get_mut(&member.number()) else { return false };
        if places.iter().any(|(other, _)| other == room) {
            return false;
        }
        let list = self.rooms.entry(room.clone()).or_default();
        if list.is_empty() {
            // Many rooms stay rooms of one.
            list.reserve_exact(1);
        }
        // Nobody has four billion sockets.
        let Ok(place) = u32::try_from(list.len()) else { return false };
        places.push((room.clone(), place));
        list.push(member.clone());
        true
    }

    /// Leaves a room. False if it was not in there.
    pub fn leave(&mut self, member: &M, room: &K) -> bool {
        let Some(places) = self.places.get_mut(&member.number()) else { return false };
        let Some(at) = places.iter().position(|(other, _)| other == room) else { return false };
        let (room, place) = places.swap_remove(at);
        self.take(&room, place);
        true
    }

    fn take(&mut self, room: &K, at: u32) {
        let Some(list) = self.rooms.get_mut(room) else { return };
        let place = at as usize;
        list.swap_remove(place);
        if let Some(moved) = list.get(place) {
            if let Some(places) = self.places.get_mut(&moved.number()) {
                for (_, moved) in places.iter_mut().filter(|(other, _)| other == room) {
                    *moved = at;
                }
            }
        } else if list.is_empty() {
            self.rooms.remove(room);
        }
        // Otherwise it was the last of the list: nobody moved.
    }

    /// Who is in a room.
    #[must_use]
    pub fn members(&self, room: &K) -> &[Arc<M>] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }

    /// The rooms of a member.
    pub fn of(&self, member: &M) -> impl Iterator<Item = &K> {
        self.places.get(&member.number()).into_iter().flatten().map(|(room, _)| room)
    }

    /// How many rooms there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    struct Number(u64);

    impl Member for Number {
        fn number(&self) -> u64 {
            self.0
        }
    }

    proptest! {
        #[test]
        fn rooms_hold_who_entered_and_did_not_leave(
            steps in proptest::collection::vec((0..4_u8, 0..6_u64, 0..4_u8), 0..200),
        ) {
            let members: Vec<_> = (0..6).map(|n| Arc::new(Number(n))).collect();
            let mut rooms = Rooms::default();
            let mut added = BTreeSet::new();
            let mut model = BTreeSet::new();
            for (step, who, room) in steps {
                let member = &members[usize::try_from(who).unwrap()];
                match step {
                    0 => { rooms.add(&**member); added.insert(who); }
                    1 => {
                        rooms.remove(member);
                        added.remove(&who);
                        model.retain(|(_, other)| *other != who);
                    }
                    2 => prop_assert_eq!(
                        rooms.enter(member, &room),
                        added.contains(&who) && model.insert((room, who)),
                    ),
                    _ => prop_assert_eq!(rooms.leave(member, &room), model.remove(&(room, who))),
                }
                for room in 0..4 {
                    let inside: BTreeSet<_> = rooms.members(&room).iter().map(|m| m.0).collect();
                    prop_assert_eq!(rooms.members(&room).len(), inside.len());
                    let expected: BTreeSet<_> =
                        model.iter().filter(|(r, _)| *r == room).map(|(_, m)| *m).collect();
                    prop_assert_eq!(inside, expected);
                }
                for member in &members {
                    let theirs: BTreeSet<u8> = rooms.of(member).copied().collect();
                    let expected: BTreeSet<u8> =
                        model.iter().filter(|(_, m)| *m == member.0).map(|(r, _)| *r).collect();
                    prop_assert_eq!(theirs, expected);
                }
                prop_assert_eq!(rooms.is_empty(), model.is_empty());
            }
        }
    }
}
