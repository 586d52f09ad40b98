//! A fixed number of locks that share out many keys.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// So many changes go on at once at the most: more than the pool has
/// connections, so the locks are not what one waits for.
const STRIPES: usize = 256;

/// Held across a commit and its publication, so that two changes of one thing
/// are published in the order in which they were committed.
pub(crate) struct Stripes {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Stripes {
    fn default() -> Self {
        Self {
            locks: std::iter::repeat_with(Mutex::default).take(STRIPES).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Stripes {
    pub(crate) async fn lock(&self, key: impl Hash) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(key) as usize % STRIPES;
        self.locks[index].lock().await
    }
}
