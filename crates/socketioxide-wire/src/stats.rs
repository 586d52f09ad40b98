//! What has happened, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats { $($(#[$doc])* pub $name: u64),* }

        /// The counters while they run.
        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),* }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

stats! {
    /// Messages written straight to the socket.
    direct_frames,
    /// Messages given to the engine, since the socket polls.
    engine_frames,
    /// System calls that wrote the direct ones.
    writes,
    /// Direct messages that shared a write with an earlier one.
    merged_frames,
    /// Droppable messages that were dropped.
    dropped,
    /// Sockets ended because too much waited.
    ended_by_limit,
    /// Sockets ended because the peer took nothing for too long.
    ended_by_timeout,
    /// WebSockets that took over from polling.
    upgrades,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
