//! Limits that hold over all instances.
//!
//! A limit is a sorted set: a member for each thing that passed within the last
//! second, its score the time in milliseconds by Redis' clock, with a fraction.
//! Within any second no more than the rate pass, on all instances and Node.js
//! peers together that keep the same form (`message:ratelimit:<userId>`: score =
//! milliseconds since 1970, any unique member, what is older than 1000 ms is
//! removed before counting, a refusal adds nothing). A peer's clock that is more
//! than a second ahead is not believed.
//!
//! One round trip for each `take`, none where the rate is 0.
//!
//! Without Redis, each instance counts for itself: then a user of two instances
//! may send at twice the rate. What passes is noted in memory all the time, so a
//! loss of Redis gives nobody a fresh second.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fred::interfaces::KeysInterface;
use fred::types::Value;
use fred::types::scripts::Script;
use starling_chat::Limits;
use starling_chat::memory::{MemoryLimits, Rates};
use starling_chat::ports::Limited;
use uuid::Uuid;

use crate::client::{Redis, Trouble};

/// A send waits so long for its count, then it is counted here alone.
const WITHIN: Duration = Duration::from_millis(250);

/// KEYS: the set. ARGV: rate, member. Answers 0, or the milliseconds to wait.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
local key, rate = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.3f', now - 1000))
redis.call('ZREMRANGEBYSCORE', key, string.format('(%.3f', now + 1000), '+inf')
local count = redis.call('ZCARD', key)
if count < rate then
  redis.call('ZADD', key, string.format('%.3f', now), ARGV[2])
  redis.call('PEXPIRE', key, 2000)
  return 0
end
local first = redis.call('ZRANGE', key, count - rate, count - rate, 'WITHSCORES')
return math.max(1, math.ceil(tonumber(first[2]) + 1000 - now))
",
    )
});

/// Limits over Redis; see the module.
pub struct RedisLimits {
    redis: Redis,
    /// The name of this instance.
    instance: String,
    rates: Rates,
    here: MemoryLimits,
    /// Makes members unique over all instances.
    me: Uuid,
    count: AtomicU64,
}

impl RedisLimits {
    /// With these rates, for an instance of this name.
    #[must_use]
    pub fn new(redis: Redis, instance: &str, rates: Rates) -> Self {
        let (instance, here) = (instance.to_owned(), MemoryLimits::new(rates));
        Self { redis, instance, rates, here, me: Uuid::new_v4(), count: AtomicU64::new(0) }
    }

    async fn take_from(&self, key: String, rate: u32) -> Result<u64, Trouble> {
        let member = format!("{}:{}", self.me.simple(), self.count.fetch_add(1, Ordering::Relaxed));
        let args = vec![Value::from(i64::from(rate)), Value::from(member)];
        let taken = self.redis.script(&TAKE, vec![key.clone()], args, WITHIN).await;
        if taken.as_ref().is_err_and(Trouble::is_wrong_type) {
            tracing::warn!(key, "a key held something else than a limit; it is dropped");
            self.redis.call::<Value, _>(WITHIN, async move |c| c.unlink(key).await).await?;
        }
        taken
    }
}

#[async_trait]
impl Limits for RedisLimits {
    async fn take(&self, what: Limited) -> Result<(), u64> {
        let (key, rate) = match what {
            Limited::Messages(user) => (format!("message:ratelimit:{user}"), self.rates.messages),
            Limited::ConnectsFrom(ip) => {
                (format!("connection:ratelimit:ip:{ip}"), self.rates.connects_from)
            }
            Limited::Connects => {
                (format!("connection:ratelimit:{}", self.instance), self.rates.connects)
            }
        };
        if rate == 0 {
            return Ok(());
        }
        match self.take_from(key, rate).await {
            Ok(0) => {
                self.here.note(what);
                Ok(())
            }
            Ok(wait) => Err(wait),
            Err(trouble) => {
                tracing::debug!(%trouble, "a limit is counted here alone");
                self.here.take(what).await
            }
        }
    }
}
