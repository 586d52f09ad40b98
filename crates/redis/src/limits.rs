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
//! Handshakes cost a round trip each, nothing where the rate is 0.
//!
//! # Sends
//! A user whose sends of the last second were all at one instance is *held* by it from
//! the next one on. What such a user sends below half of the rate passes at once, without
//! a round trip, and is put into the set within 50 ms, together with that of all other users.
//! Beyond half, and of a user who is not held, each send is asked for; what Redis
//! was not given yet goes along, so its count is exact, and so is the wait that is told.
//!
//! An instance that meets a user whom another one holds counts that as half of
//! the rate, whatever was sent: with so much less it passes at once. When that is too
//! much, or when the holder seems to have no use for it, the holder is asked to
//! give the user up, which it does within 50 ms; a send that hangs on it waits so long.
//! A user who sends here and there is held by nobody, and each send is asked for.
//! It makes no difference whether a send comes by a socket or by REST, so
//! presence has no part in this.
//!
//! | key | what | lives |
//! | --- | --- | --- |
//! | `message:ratelimit:<userId>` | the set | 2 s |
//! | `{message:ratelimit:<userId>}:holder` | `<instance>:<generation>:<serial number>` | 5 minutes, renewed by sends |
//! | `limits:{<instance>}:alive:<generation>` | a sign of life | 500 ms, renewed every 50 (every 200 while it holds nobody) |
//! | `limits:{<instance>}:wanted` | the users that others ask for | 10 s |
//!
//! An instance is a process, by a random name. What it holds counts as long as Redis
//! confirmed its last sign of life, which it believes a tenth of a second less than Redis does. One that
//! comes too late begins a new generation, which holds nobody. Who is asked and has no
//! sign of life loses the user. So nothing hangs on messages between instances that
//! could get lost.
//!
//! # What is not exact
//! - Node.js peers know nothing of holders. Of a user who is held here and
//!   sends there too, up to half of the rate more may pass in the second in which that
//!   begins: the set is up to 50 ms late for them. Their first send that the set shows when this
//!   instance adds to it ends the holding.
//! - When an instance dies, up to half of the rate of each of its users, of its last 50 ms, is missing
//!   in the sets.
//! - Times of sends that passed here are later in the set by what the way to Redis
//!   takes, as if each had been asked for.
//!
//! # Without Redis
//! Each instance counts for itself: then a user of two instances may send at twice the
//! rate. What passes is noted in memory all the time, so a loss of Redis gives nobody
//! a fresh second, and the set is given it when Redis comes back within that. A Redis that
//! comes back empty has forgotten the last second and who holds whom: for the
//! first 50 ms after that, half of the rate more may pass.

mod ledger;
mod scripts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fred::interfaces::KeysInterface;
use fred::types::Value;
use futures_util::future::{join_all, join3};
use parking_lot::Mutex;
use starling_chat::Limits;
use starling_chat::memory::{MemoryLimits, Rates};
use starling_chat::ports::Limited;
use starling_protocol::UserId;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::client::{Redis, Trouble};
use ledger::{Answer, Begun, Entry, HOLD, LEASE, Ledger, Post, Question};
use scripts::{ASK, BEAT, CLEAR, POST, SEND, TAKE};

/// A send waits so long for its count, then it is counted here alone.
const WITHIN: Duration = Duration::from_millis(250);
/// What passed here is posted so often, and others' wishes are looked for: the second is
/// still the same one for those who read the set, and twenty commands a second are nothing
/// to Redis.
const TICK: Duration = Duration::from_millis(50);
/// Ticks for one sign of life while nothing is held.
const IDLE_TICKS: u32 = 4;
/// Users in one script: Redis does nothing else for a millisecond or so.
const SLICE: usize = 128;
/// Between two looks whether a user was given up.
const LOOK: Duration = Duration::from_millis(10);
/// A send waits so long for that: the dead are taken from after half of it.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(1);

fn set_key(user: UserId) -> String {
    format!("message:ratelimit:{user}")
}

/// In the slot of the set.
fn holder_key(user: UserId) -> String {
    format!("{{message:ratelimit:{user}}}:holder")
}

fn alive_key(instance: &str, generation: &str) -> String {
    format!("limits:{{{instance}}}:alive:{generation}")
}

fn wanted_key(instance: &str) -> String {
    format!("limits:{{{instance}}}:wanted")
}

fn number(value: impl TryInto<i64>) -> Value {
    Value::from(value.try_into().unwrap_or(i64::MAX))
}

fn milliseconds(time: Duration) -> Value {
    number(time.as_millis())
}

/// Limits over Redis; see the module.
pub struct RedisLimits {
    redis: Redis,
    /// The name of this instance.
    instance: String,
    rates: Rates,
    handshakes: MemoryLimits,
    count: AtomicU64,
    sends: Arc<Sends>,
}

impl RedisLimits {
    /// With these rates, for an instance of this name. Starts the task that posts what
    /// passed here; it ends when this is dropped. Call it inside a Tokio runtime.
    #[must_use]
    pub fn start(redis: Redis, instance: &str, rates: Rates) -> Self {
        let sends = Arc::new(Sends {
            redis: redis.clone(),
            me: Uuid::new_v4().simple().to_string(),
            rate: rates.messages,
            ledger: Mutex::new(Ledger::new(rates.messages, Instant::now())),
        });
        if rates.messages > 0 {
            tokio::spawn(tick(Arc::downgrade(&sends)));
        }
        Self {
            redis,
            instance: instance.to_owned(),
            rates,
            handshakes: MemoryLimits::new(rates),
            count: AtomicU64::new(0),
            sends,
        }
    }

    async fn handshake(&self, what: Limited, key: String, rate: u32) -> Result<(), u64> {
        if rate == 0 {
            return Ok(());
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let args = vec![number(rate), Value::from(format!("{}:{count}", self.sends.me))];
        let taken = self.redis.script(&TAKE, vec![key.clone()], args, WITHIN).await;
        let taken = match taken {
            Err(trouble) if trouble.is_wrong_type() => {
                Err(drop_junk(&self.redis, vec![key]).await.err().unwrap_or(trouble))
            }
            taken => taken,
        };
        match taken {
            Ok(0) => {
                self.handshakes.note(what);
                Ok(())
            }
            Ok(wait) => Err(wait),
            Err(trouble) => {
                tracing::debug!(%trouble, "a limit is counted here alone");
                self.handshakes.take(what).await
            }
        }
    }
}

#[async_trait]
impl Limits for RedisLimits {
    async fn take(&self, what: Limited) -> Result<(), u64> {
        match what {
            Limited::Messages(_) if self.rates.messages == 0 => Ok(()),
            Limited::Messages(user) => self.sends.take(user).await,
            Limited::ConnectsFrom(ip) => {
                let key = format!("connection:ratelimit:ip:{ip}");
                self.handshake(what, key, self.rates.connects_from).await
            }
            Limited::Connects => {
                let key = format!("connection:ratelimit:{}", self.instance);
                self.handshake(what, key, self.rates.connects).await
            }
        }
    }
}

async fn drop_junk(redis: &Redis, keys: Vec<String>) -> Result<(), Trouble> {
    tracing::warn!(?keys, "a key held something else than a limit; it is dropped");
    redis.call::<Value, _>(WITHIN, async move |c| c.unlink(keys).await).await?;
    Ok(())
}

/// The sends of all users of this instance.
struct Sends {
    redis: Redis,
    /// This process.
    me: String,
    rate: u32,
    // Held for microseconds and never across an await.
    ledger: Mutex<Ledger>,
}

/// A question that is under way, also one that nobody waits for any more.
struct Asking<'a> {
    ledger: &'a Mutex<Ledger>,
    user: UserId,
    question: Question,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.ledger.lock().ended(self.user);
    }
}

impl Sends {
    async fn take(&self, user: UserId) -> Result<(), u64> {
        let begun = self.ledger.lock().begin(user, Instant::now());
        let Begun::Ask(question) = begun else { return Ok(()) };
        let asking = Asking { ledger: &self.ledger, user, question };
        match self.counted(&asking).await {
            Ok(0) => Ok(()),
            Ok(wait) => Err(wait),
            Err(trouble) => {
                tracing::debug!(%trouble, "a send is counted here alone");
                self.ledger.lock().alone(user, &asking.question, Instant::now())
            }
        }
    }

    /// Answers 0 for a send that passed, or the milliseconds to wait.
    async fn counted(&self, asking: &Asking<'_>) -> Result<u64, Trouble> {
        let (user, until) = (asking.user, asking.question.at + GIVEN_UP_WITHIN);
        loop {
            let (wait, holder, others, theirs) = self.ask(asking).await?;
            let mine = holder.strip_prefix(&self.me).and_then(|rest| rest.strip_prefix(':'));
            let elsewhere = mine.is_none() && !holder.is_empty();
            let answer = Answer {
                passed: wait == 0,
                held: mine.and_then(|rest| rest.split(':').nth(1)?.parse().ok()),
                shared: others > 0,
            };
            {
                let mut ledger = self.ledger.lock();
                ledger.answered(user, &asking.question, answer, Instant::now());
                if elsewhere && wait == 0 && theirs == 0 {
                    ledger.wish(user, holder.clone());
                }
            }
            if let Ok(wait) = u64::try_from(wait) {
                return Ok(wait);
            }
            if Instant::now() >= until {
                tracing::debug!(%user, "a user was not given up in time");
                return Err(Trouble::Away);
            }
            self.want(user, &holder).await?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask(&self, asking: &Asking<'_>) -> Result<(i64, String, i64, i64), Trouble> {
        let (user, question) = (asking.user, &asking.question);
        let keys = vec![set_key(user), holder_key(user)];
        let mut args = vec![
            number(self.rate),
            number(self.rate / 2),
            Value::from(self.me.as_str()),
            number(question.generation),
            number(question.serial),
            if question.seek { milliseconds(HOLD) } else { number(0) },
            Value::from(self.member(question.number)),
        ];
        self.earlier(&question.carried, &mut args);
        let answer = self.redis.script(&SEND, keys.clone(), args.clone(), WITHIN).await;
        if !answer.as_ref().is_err_and(Trouble::is_wrong_type) {
            return answer;
        }
        drop_junk(&self.redis, keys.clone()).await?;
        self.redis.script(&SEND, keys, args, WITHIN).await
    }

    fn member(&self, number: u64) -> String {
        format!("{}:{number}", self.me)
    }

    /// Entries with their age by now, in ms.
    fn earlier(&self, entries: &[Entry], args: &mut Vec<Value>) {
        for entry in entries {
            let age = entry.at.elapsed().as_secs_f64() * 1000.0;
            args.push(Value::from(self.member(entry.number)));
            args.push(Value::from(format!("{age:.3}")));
        }
    }

    /// Asks the holder to give the user up; a dead one is not asked.
    async fn want(&self, user: UserId, holder: &str) -> Result<(), Trouble> {
        let mut parts = holder.split(':');
        let (instance, generation) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let keys = vec![alive_key(instance, generation), wanted_key(instance)];
        let args = vec![number(user.0)];
        if self.redis.script::<bool>(&ASK, keys, args, WITHIN).await? {
            return Ok(());
        }
        let (keys, args) = (vec![holder_key(user)], vec![Value::from(holder)]);
        self.redis.script::<Value>(&CLEAR, keys, args, WITHIN).await?;
        Ok(())
    }

    // ---- every tick ----

    async fn tick(&self) {
        let (posts, wishes) = {
            let mut ledger = self.ledger.lock();
            (ledger.posts(Instant::now()), ledger.wishes())
        };
        let wishes = wishes.iter().map(|(user, holder)| self.want(*user, holder));
        let (wanted, (), _) = join3(self.beat(), self.post(posts), join_all(wishes)).await;
        let releases = self.ledger.lock().releases(wanted, Instant::now());
        self.post(releases).await;
    }

    /// Says that this instance lives. Answers the users that others ask for.
    async fn beat(&self) -> Vec<UserId> {
        let sent = Instant::now();
        let (generation, first) = self.ledger.lock().beat(sent);
        let keys = vec![alive_key(&self.me, &generation.to_string()), wanted_key(&self.me)];
        let args = vec![milliseconds(LEASE), number(i64::from(first))];
        let answer = self.redis.script::<(bool, Vec<i32>)>(&BEAT, keys, args, WITHIN).await;
        let Ok((lived, wanted)) = answer else { return Vec::new() };
        self.ledger.lock().beaten(generation, lived, sent);
        wanted.into_iter().map(UserId).collect()
    }

    async fn post(&self, posts: Vec<Post>) {
        // One command for many users; in a cluster one for each, as their slots differ.
        let slice = if self.redis.is_cluster() { 1 } else { SLICE };
        join_all(posts.chunks(slice).map(|slice| self.post_slice(slice))).await;
    }

    async fn post_slice(&self, posts: &[Post]) {
        let Err(trouble) = self.post_some(posts).await else { return };
        if !trouble.is_wrong_type() {
            return;
        }
        // One user's key holds something else: that of the others is not held up.
        for post in posts.chunks(1) {
            if self.post_some(post).await.is_err_and(|trouble| trouble.is_wrong_type()) {
                let user = post[0].user;
                drop_junk(&self.redis, vec![set_key(user), holder_key(user)]).await.ok();
            }
        }
    }

    async fn post_some(&self, posts: &[Post]) -> Result<(), Trouble> {
        let sent = Instant::now();
        let keys =
            posts.iter().flat_map(|post| [set_key(post.user), holder_key(post.user)]).collect();
        let mut args = vec![Value::from(self.me.as_str()), milliseconds(HOLD)];
        for post in posts {
            args.push(post.release.map_or(Value::from(-1), number));
            args.push(number(post.entries.len()));
            self.earlier(&post.entries, &mut args);
        }
        let answer = self.redis.script::<Vec<bool>>(&POST, keys, args, WITHIN).await;
        let mut ledger = self.ledger.lock();
        match answer {
            Ok(alone) => {
                for (post, alone) in posts.iter().zip(alone) {
                    ledger.posted(post, alone, sent);
                }
                Ok(())
            }
            Err(trouble) => {
                for post in posts {
                    ledger.not_posted(post);
                }
                Err(trouble)
            }
        }
    }
}

async fn tick(sends: Weak<Sends>) {
    let mut every = tokio::time::interval(TICK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = 0;
    loop {
        every.tick().await;
        let Some(sends) = sends.upgrade() else { return };
        idle = if sends.ledger.lock().is_idle() { idle + 1 } else { 0 };
        if idle % IDLE_TICKS == 0 {
            sends.tick().await;
        }
    }
}
