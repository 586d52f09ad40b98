//! Starling over Redis: what several instances have to know in common.
//!
//! | module | what it gives | keys |
//! | --- | --- | --- |
//! | [`client`] | one connection that heals itself and never makes anybody wait | |
//! | [`limits`] | [`Limits`](starling_chat::Limits) that hold over all instances | `message:ratelimit:<userId>`, `connection:ratelimit:<instance>`, `connection:ratelimit:ip:<ip>`, `{message:ratelimit:<userId>}:holder`, `limits:{<instance>}:…` |
//! | [`presence`] | [`PresenceStore`](starling_chat::PresenceStore) over all instances | `presence:{chat}:…` |
//! | [`cache`] | [`RoomCache`](starling_chat::RoomCache): the newest page of a room | `room:<id>:cache` |
//!
//! Redis is a help, never a condition: each part goes on with what this process
//! knows when Redis is away, slow or full of nonsense, and no client sees an
//! error for it. Each module's front page says what that means for it.
//!
//! # Cluster
//! Every script has its keys in one slot. Limits have the set of a user and its holder
//! in one, and post many users in one script only where there are no slots. The cache has one
//! key a script. Presence has the hash tag `{chat}` in all of its keys, so one node of
//! a cluster carries the presence of all: some microseconds a connect.

pub mod cache;
pub mod client;
pub mod limits;
pub mod presence;

pub use cache::RedisCache;
pub use client::{AddressError, Redis, settings};
pub use limits::RedisLimits;
pub use presence::{PresenceTimes, RedisPresence};
