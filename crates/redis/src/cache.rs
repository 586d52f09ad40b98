//! The newest 50 messages of rooms, in `room:<id>:cache`.
//!
//! A sorted set: a member for each message, its JSON as in the contract without
//! `receipts`, by `seq`. The newest member also says to which version of the room the set belongs
//! (`cacheVersion`, its first field). Readers compare both with the database
//! ([`starling_chat::RoomCache`]), so nothing here has to be right; what is wrong
//! is overwritten by the next page that is read.
//!
//! - A page read from the database is written whole.
//! - Stored messages are appended, if the set ends with the one before; else it is
//!   dropped. Rooms that nobody reads are left alone: one that is not cached is not
//!   asked for again for 30 s.
//! - A change of a message drops the set.
//!
//! A page that comes from here saves the database two of three statements, of four with
//! own messages among them, whose receipts are read in any case; the cache is asked while the
//! database says where the room stands. With all three on one machine of two cores a page took
//! 0.16 ms instead of 0.27 ms, and 0.25 ms instead of 0.32 ms with 25 own messages
//! (`what_the_cache_saves` in `tests/cache.rs`, 8 readers). A miss costs one statement more
//! than without a cache, and one more that nobody waits for.
//!
//! All of that waits in one bounded queue and is done by one task. What does not fit
//! into the queue is forgotten, which costs one miss.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use fred::interfaces::{KeysInterface, SortedSetsInterface};
use fred::types::Value;
use fred::types::scripts::Script;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value as Json;
use starling_chat::ports::CACHED_MESSAGES;
use starling_chat::{CachedPage, RoomCache};
use starling_protocol::{Message, RoomId};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::client::{Redis, Trouble};

/// A page waits so long for the cache, then it is read from the database: reading there
/// takes a few milliseconds.
const WITHIN: Duration = Duration::from_millis(50);
/// Nobody waits for a write.
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// Sets that nobody writes or reads afresh are gone after this time.
const LIFE: Duration = Duration::from_secs(600);
/// How long a room that was not cached is left alone.
const COLD_FOR: Duration = Duration::from_secs(30);
/// Rooms remembered as not cached; beyond, Redis is asked more often.
const COLD_MAX: u64 = 100_000;
/// Writes that may wait: a second of a full load.
const QUEUE: usize = 4096;
/// Writes done at once.
const BATCH: usize = 256;
/// A larger page costs more on the way than it saves.
const PAGE_BYTES: usize = 256 * 1024;

/// KEYS: the set. ARGV: seq and JSON of each, ascending, then the life in ms.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
redis.call('DEL', KEYS[1])
for i = 1, #ARGV - 1, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[#ARGV])
return 1
",
    )
});

/// KEYS: the set. ARGV: seq and JSON of each, ascending without a gap, then the
/// life in ms and how many to keep. Answers whether the set goes on to be.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r#"
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if not newest[1] then return 0 end
local count = #ARGV - 2
local head, last = tonumber(newest[2]), tonumber(ARGV[count - 1])
if head >= last then return 1 end
local version = string.match(newest[1], '^{"cacheVersion":"[%x%-]+",')
if not version or head ~= tonumber(ARGV[1]) - 1 then
  redis.call('DEL', KEYS[1])
  return 0
end
for i = 1, count, 2 do
  local json = ARGV[i + 1]
  if i == count - 1 then json = version .. string.sub(json, 2) end
  redis.call('ZADD', KEYS[1], ARGV[i], json)
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[#ARGV]))
redis.call('PEXPIRE', KEYS[1], ARGV[#ARGV - 1])
return 1
"#,
    )
});

/// The cache over Redis; see the module.
pub struct RedisCache {
    redis: Redis,
    queue: mpsc::Sender<Write>,
    cold: moka::sync::Cache<RoomId, ()>,
}

enum Write {
    Keep(RoomId, CachedPage),
    Stored(Vec<Message>),
    Changed(RoomId),
}

fn key(room: RoomId) -> String {
    format!("room:{room}:cache")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    cache_version: Uuid,
}

impl RedisCache {
    /// Starts the task that writes; it ends when this is dropped.
    #[must_use]
    pub fn start(redis: Redis) -> Self {
        let (queue, writes) = mpsc::channel(QUEUE);
        let cold =
            moka::sync::Cache::builder().max_capacity(COLD_MAX).time_to_live(COLD_FOR).build();
        tokio::spawn(write(redis.clone(), cold.clone(), writes));
        Self { redis, queue, cold }
    }

    fn queue(&self, write: Write) {
        if self.queue.try_send(write).is_err() {
            metrics::counter!("starling_room_cache_dropped_total").increment(1);
        }
    }
}

#[async_trait]
impl RoomCache for RedisCache {
    async fn newest(&self, room: RoomId, limit: usize) -> Option<CachedPage> {
        if limit == 0 {
            return None;
        }
        let last = i64::try_from(limit).ok()? - 1;
        let members: Result<Vec<String>, Trouble> = self
            .redis
            .call(WITHIN, async move |c| c.zrevrange(key(room), 0, last, false).await)
            .await;
        match members {
            Ok(members) => page(room, limit, &members),
            Err(trouble) => {
                if trouble.is_wrong_type() {
                    self.changed(room);
                }
                None
            }
        }
    }

    fn keep(&self, room: RoomId, page: CachedPage) {
        self.cold.invalidate(&room);
        self.queue(Write::Keep(room, page));
    }

    fn stored(&self, mut messages: Vec<Message>) {
        messages.retain(|message| !self.cold.contains_key(&message.room_id));
        if !messages.is_empty() {
            self.queue(Write::Stored(messages));
        }
    }

    fn changed(&self, room: RoomId) {
        // Also of a room that seems not to be cached: an old text must not stay where
        // others than Starling may read it.
        self.queue(Write::Changed(room));
    }
}

/// Members, the newest first, as a page; `None` unless they are one.
fn page(room: RoomId, limit: usize, members: &[String]) -> Option<CachedPage> {
    let mark: Mark = serde_json::from_str(members.first()?).ok()?;
    let mut messages: Vec<Message> = Vec::with_capacity(members.len());
    for member in members {
        let message: Message = serde_json::from_str(member).ok()?;
        let follows = messages.last().is_none_or(|newer| newer.seq == message.seq + 1);
        if message.room_id != room || !follows {
            return None;
        }
        messages.push(message);
    }
    // Fewer than asked for only if there are no more.
    if messages.len() < limit && messages.last()?.seq != 1 {
        return None;
    }
    messages.reverse();
    Some(CachedPage { version: mark.cache_version, messages })
}

async fn write(
    redis: Redis,
    cold: moka::sync::Cache<RoomId, ()>,
    mut writes: mpsc::Receiver<Write>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while writes.recv_many(&mut batch, BATCH).await > 0 {
        let done = plan(batch.drain(..));
        join_all(done.into_iter().map(async |(room, plan)| {
            // A set that could not be written is not at the room's head for long.
            match carry_out(&redis, room, plan).await {
                Ok(true) => {}
                Ok(false) => cold.insert(room, ()),
                Err(trouble) => tracing::debug!(%trouble, %room, "a room was not cached"),
            }
        }))
        .await;
    }
}

/// What becomes of a room's set.
enum Plan {
    Drop,
    Write(CachedPage),
    Append(Vec<Message>),
}

/// One step a room: what comes later goes on from what came before.
fn plan(writes: impl Iterator<Item = Write>) -> HashMap<RoomId, Plan> {
    let mut plans = HashMap::new();
    for write in writes {
        match write {
            Write::Keep(room, page) => {
                plans.insert(room, Plan::Write(page));
            }
            Write::Changed(room) => {
                plans.insert(room, Plan::Drop);
            }
            Write::Stored(messages) => {
                for message in messages {
                    let room = message.room_id;
                    let plan = plans.entry(room).or_insert_with(|| Plan::Append(Vec::new()));
                    if !plan.add(message) {
                        *plan = Plan::Drop;
                    }
                }
            }
        }
    }
    plans
}

impl Plan {
    /// False when the set can't go on with the message.
    fn add(&mut self, message: Message) -> bool {
        if !reads_as_written(&message) {
            return false;
        }
        let messages = match self {
            Self::Drop => return false,
            Self::Write(page) => &mut page.messages,
            Self::Append(messages) => messages,
        };
        match messages.last().map(|last| last.seq) {
            Some(last) if last >= message.seq => {}
            Some(last) if last + 1 < message.seq => return false,
            _ => messages.push(message),
        }
        true
    }
}

/// Whether the database gives the message back as it was given: it keeps numbers
/// as decimals, so 1e2 comes back as 100.
fn reads_as_written(message: &Message) -> bool {
    fn plain(value: &Json) -> bool {
        match value {
            Json::Number(number) => number.is_i64() || number.is_u64(),
            Json::Array(values) => values.iter().all(plain),
            Json::Object(fields) => fields.values().all(plain),
            _ => true,
        }
    }
    message.metadata.values().all(plain)
}

/// Answers whether the room has a set now.
async fn carry_out(redis: &Redis, room: RoomId, plan: Plan) -> Result<bool, Trouble> {
    let life = Value::from(LIFE.as_millis() as i64);
    let kept = Value::from(CACHED_MESSAGES as i64);
    let keys = vec![key(room)];
    let done = match plan {
        Plan::Drop => None,
        Plan::Write(page) => match arguments(&page.messages, Some(page.version)) {
            Some(mut args) => {
                args.push(life);
                Some(redis.script::<bool>(&WRITE, keys, args, WRITE_WITHIN).await)
            }
            None => None,
        },
        Plan::Append(messages) => match arguments(&messages, None) {
            Some(mut args) => {
                args.extend([life, kept]);
                Some(redis.script::<bool>(&APPEND, keys, args, WRITE_WITHIN).await)
            }
            None => None,
        },
    };
    match done {
        Some(Ok(there)) => Ok(there),
        Some(Err(trouble)) if !trouble.is_wrong_type() => Err(trouble),
        _ => {
            redis.call::<Value, _>(WRITE_WITHIN, async move |c| c.unlink(key(room)).await).await?;
            Ok(false)
        }
    }
}

/// `seq` and JSON of the newest of these, the newest with its mark. `None` when that is
/// nothing or too much.
fn arguments(messages: &[Message], version: Option<Uuid>) -> Option<Vec<Value>> {
    let messages = &messages[messages.len().saturating_sub(CACHED_MESSAGES)..];
    let mut bytes = 0;
    let mut args = Vec::with_capacity(2 * messages.len() + 2);
    for (place, message) in messages.iter().enumerate() {
        let mut json = serde_json::to_string(message).ok()?;
        if let (Some(version), true) = (version, place + 1 == messages.len()) {
            json = format!("{{\"cacheVersion\":\"{version}\",{}", json.get(1..)?);
        }
        bytes += json.len();
        args.extend([Value::from(message.seq), Value::from(json)]);
    }
    (!args.is_empty() && bytes <= PAGE_BYTES).then_some(args)
}
