//! Presence over all instances.
//!
//! # In Redis
//! | key | what | lives |
//! | --- | --- | --- |
//! | `presence:{chat}:user:<id>` | hash: `i:<instance>` for each instance with a socket of the user; `status`; `at`, when it was set | an hour, renewed every quarter |
//! | `presence:{chat}:instances` | sorted set: instances by the time in ms until which they count as alive | an hour, renewed by every beat |
//! | `presence:{chat}:of:<instance>` | set: the users with a socket there | likewise |
//! | `presence:{chat}:epoch` | a random word that is new when Redis lost everything | likewise |
//!
//! An instance is a process: its name with a random part, so that one that comes
//! back by the same name has nothing of its predecessor. Only a user's first and
//! last socket of an instance reach Redis.
//!
//! # Death
//! Every [`PresenceTimes::beat`] an instance says that it lives, which is believed
//! for [`PresenceTimes::lease`]. What an instance said that is past its lease no
//! longer counts. The others look for such with every beat and claim its users one by
//! one: the one whose claim succeeds tells the user's rooms. With beats of 4 s and a lease
//! of 25 s that is 29 s after the death at most. If the teller dies between the claim and
//! the telling, nobody is told; whoever asks gets the right answer all the same.
//!
//! # Without Redis
//! Each instance goes by its own sockets: nothing fails and nobody waits longer than
//! half a second, once a second. Users who came, went or changed meanwhile are looked
//! up when Redis is back, and their state is told again, whatever it is by then.
//! Redis may come back empty: every instance then says again whom it has, without
//! telling the rooms, since nothing changed. For two beats after that nobody is believed
//! to be gone before a second look.
//!
//! An instance that was stopped for longer than its lease finds that out with its next beat and says again
//! whom it has; the rooms, which were told `offline`, are told.
//!
//! Node.js peers take no part: their sockets don't count.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fred::types::scripts::Script;
use fred::types::{FromValue, Value};
use futures_util::future::join_all;
use parking_lot::Mutex;
use starling_chat::{ConnectionId, PresenceStore};
use starling_protocol::{Presence, PresenceStatus, Timestamp, UserId};
use uuid::Uuid;

use crate::client::{Redis, Trouble};

/// A call waits so long, then this instance goes by what it knows.
const WITHIN: Duration = Duration::from_millis(500);
/// Users in one batch of commands.
const SLICE: usize = 256;
/// Users whose state is to be looked up again, at most: beyond, what was missed is
/// told with the user's next change.
const UNSURE_MAX: usize = 100_000;
/// Claims of one call of `refresh`: what they give is told before the next.
const CLAIMS: usize = 1024;
/// Users are locked by so many locks.
const STRIPES: usize = 256;

const INSTANCES: &str = "presence:{chat}:instances";
const EPOCH: &str = "presence:{chat}:epoch";

fn user_key(user: UserId) -> String {
    format!("presence:{{chat}}:user:{user}")
}

fn of_key(instance: &str) -> String {
    format!("presence:{{chat}}:of:{instance}")
}

/// Of the user in KEYS[1]: whether others than `own` that live by KEYS[2] have a
/// socket. Entries of the dead are removed.
const OTHERS: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function others(own)
  local found = false
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'i:' and field ~= own then
      local alive = redis.call('ZSCORE', KEYS[2], string.sub(field, 3))
      if alive and tonumber(alive) > now then
        found = true
      else
        redis.call('HDEL', KEYS[1], field)
      end
    end
  end
  return found
end
";

fn with_others(text: &str) -> Script {
    Script::from_lua(format!("{OTHERS}{text}"))
}

/// This instance has the user. KEYS: user, instances, of. ARGV: instance, user,
/// life, status, when it was set. Answers whether nobody had the user, and the status.
static HERE: LazyLock<Script> = LazyLock::new(|| {
    with_others(
        r"
local own = 'i:' .. ARGV[1]
local there = others(own)
if redis.call('HEXISTS', KEYS[1], own) == 1 then there = true end
redis.call('HSET', KEYS[1], own, 1)
redis.call('SADD', KEYS[3], ARGV[2])
local at = tonumber(redis.call('HGET', KEYS[1], 'at'))
if not there or not at or tonumber(ARGV[5]) > at then
  redis.call('HSET', KEYS[1], 'status', ARGV[4], 'at', ARGV[5])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return { there and 0 or 1, redis.call('HGET', KEYS[1], 'status') }
",
    )
});

/// This instance no longer has the user. KEYS: user, instances, of. ARGV: instance,
/// user. Answers whether Redis knew that it had, and the status.
static GONE: LazyLock<Script> = LazyLock::new(|| {
    with_others(
        r"
local own = 'i:' .. ARGV[1]
local had = redis.call('HDEL', KEYS[1], own)
redis.call('SREM', KEYS[3], ARGV[2])
if others(own) then
  return { had, redis.call('HGET', KEYS[1], 'status') or 'online' }
end
redis.call('DEL', KEYS[1])
return { had, 'offline' }
",
    )
});

/// The user says how it is. KEYS: user, instances, of. ARGV: instance, user, life,
/// status. Answers whether that is news, and the time.
static SET: LazyLock<Script> = LazyLock::new(|| {
    with_others(
        r"
local old = redis.call('HGET', KEYS[1], 'status')
redis.call('HSET', KEYS[1], 'i:' .. ARGV[1], 1, 'status', ARGV[4], 'at', now)
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return { old ~= ARGV[4] and 1 or 0, now }
",
    )
});

/// The status of each. KEYS: instances, users.
static QUERY: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known, answer = {}, {}
local function alive(instance)
  if known[instance] == nil then
    local lease = redis.call('ZSCORE', KEYS[1], instance)
    known[instance] = lease and tonumber(lease) > now or false
  end
  return known[instance]
end
for i = 2, #KEYS do
  local status, here = 'online', false
  local all = redis.call('HGETALL', KEYS[i])
  for j = 1, #all, 2 do
    if all[j] == 'status' then
      status = all[j + 1]
    elseif string.sub(all[j], 1, 2) == 'i:' and alive(string.sub(all[j], 3)) then
      here = true
    end
  end
  answer[i - 1] = here and status or 'offline'
end
return answer
",
    )
});

/// This instance lives. KEYS: instances, of, epoch. ARGV: instance, lease, a new
/// epoch, life. Answers whether it counted as alive until now, the epoch, and up to
/// four instances that no longer do, each with the end of its lease.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[3], ARGV[3], 'NX')
redis.call('PEXPIRE', KEYS[3], ARGV[4])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 4)
return { lease and tonumber(lease) > now and 1 or 0, redis.call('GET', KEYS[3]), dead }
",
    )
});

/// Some users of a dead instance; one without any is struck off. KEYS: instances,
/// of. ARGV: instance, how many.
static LEFT: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
local users = redis.call('SRANDMEMBER', KEYS[2], ARGV[2])
if #users == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if lease and tonumber(lease) <= now then redis.call('ZREM', KEYS[1], ARGV[1]) end
end
return users
",
    )
});

/// Takes a user from a dead instance. KEYS: user, instances, of. ARGV: instance, user.
/// Answers 1 to the one who has to tell that the user is offline.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    with_others(
        r"
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
if lease and tonumber(lease) > now then return 0 end
if redis.call('SREM', KEYS[3], ARGV[2]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 or others('') then return 0 end
redis.call('DEL', KEYS[1])
return 1
",
    )
});

/// Removes keys of another type than this module's. KEYS: any. ARGV: their types.
static REPAIR: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        r"
for i, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key)['ok']
  if is ~= ARGV[i] and is ~= 'none' then redis.call('DEL', key) end
end
return 0
",
    )
});

/// How fast death is noticed.
#[derive(Debug, Clone, Copy)]
pub struct PresenceTimes {
    /// Between two signs of life; [`PresenceStore::refresh`] is called so often.
    pub beat: Duration,
    /// How long a sign of life is believed.
    pub lease: Duration,
    /// How long keys outlive the last who cared for them.
    pub life: Duration,
}

impl Default for PresenceTimes {
    fn default() -> Self {
        Self {
            beat: starling_chat::presence::BEAT,
            lease: Duration::from_secs(25),
            life: Duration::from_secs(3600),
        }
    }
}

/// Presence over Redis; see the module.
pub struct RedisPresence {
    redis: Redis,
    /// This process, not only its name.
    instance: String,
    times: PresenceTimes,
    // Guards maps that are touched for microseconds and never across an await.
    local: Mutex<Local>,
    /// What reaches Redis about one user does so in the order in which it happened.
    turns: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
    /// One beat at a time.
    beat: tokio::sync::Mutex<Beat>,
}

#[derive(Default)]
struct Local {
    users: HashMap<UserId, Here>,
    /// Whose state others may have wrong, and when to look.
    unsure: HashMap<UserId, Instant>,
    /// Until then nobody is believed to be gone at first sight.
    doubtful_until: Option<Instant>,
}

#[derive(Clone)]
struct Here {
    connections: HashSet<ConnectionId>,
    status: PresenceStatus,
    /// When it was set here, in ms; 0 when it never was.
    at: i64,
}

#[derive(Default)]
struct Beat {
    epoch: Option<String>,
    /// When all users were last told to Redis.
    renewed: Option<Instant>,
}

fn status_text(status: PresenceStatus) -> &'static str {
    match status {
        PresenceStatus::Online => "online",
        PresenceStatus::Away => "away",
        PresenceStatus::Offline => "offline",
    }
}

fn status(text: &str) -> PresenceStatus {
    match text {
        "away" => PresenceStatus::Away,
        "offline" => PresenceStatus::Offline,
        _ => PresenceStatus::Online,
    }
}

fn milliseconds(time: Duration) -> Value {
    Value::from(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn online(user_id: UserId, status: PresenceStatus) -> Presence {
    Presence { user_id, status, last_seen: None }
}

impl RedisPresence {
    /// For an instance of this name.
    #[must_use]
    pub fn new(redis: Redis, instance: &str, times: PresenceTimes) -> Self {
        let random = Uuid::new_v4().simple().to_string();
        Self {
            redis,
            instance: format!("{instance}:{}", &random[..12]),
            times,
            local: Mutex::default(),
            turns: std::iter::repeat_with(Default::default).take(STRIPES).collect(),
            hasher: RandomState::new(),
            beat: tokio::sync::Mutex::default(),
        }
    }

    async fn turn(&self, user: UserId) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[self.hasher.hash_one(user) as usize % STRIPES].lock().await
    }

    /// Runs a script; what is of another type in its keys is removed, and it is run again.
    async fn run<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        types: &[&'static str],
        args: Vec<Value>,
    ) -> Result<R, Trouble> {
        let answer = self.redis.script(script, keys.clone(), args.clone(), WITHIN).await;
        if !answer.as_ref().is_err_and(Trouble::is_wrong_type) {
            return answer;
        }
        tracing::warn!("a key of presence held something else; it is dropped");
        let last = types.last().copied().unwrap_or("hash");
        let types =
            (0..keys.len()).map(|i| Value::from(types.get(i).copied().unwrap_or(last))).collect();
        self.redis.script::<Value>(&REPAIR, keys.clone(), types, WITHIN).await?;
        self.redis.script(script, keys, args, WITHIN).await
    }

    /// Runs a script about one user of an instance.
    async fn about<R: FromValue>(
        &self,
        script: &Script,
        user: UserId,
        instance: &str,
        more: Vec<Value>,
    ) -> Result<R, Trouble> {
        let keys = vec![user_key(user), INSTANCES.to_owned(), of_key(instance)];
        let mut args = vec![Value::from(instance), Value::from(i64::from(user.0))];
        args.extend(more);
        self.run(script, keys, &["hash", "zset", "set"], args).await
    }

    /// Says that this instance has the user. Answers whether nobody had, and the status.
    async fn here(&self, user: UserId, here: &Here) -> Result<(bool, PresenceStatus), Trouble> {
        let more = vec![
            milliseconds(self.times.life),
            Value::from(status_text(here.status)),
            Value::from(here.at),
        ];
        let (first, text): (bool, String) = self.about(&HERE, user, &self.instance, more).await?;
        Ok((first, status(&text)))
    }

    /// Looks at the user again soon.
    fn doubt(&self, user: UserId, when: Instant) {
        let mut local = self.local.lock();
        if local.unsure.len() < UNSURE_MAX {
            local.unsure.insert(user, when);
        }
    }

    /// Says that this instance lives. Answers the instances that don't.
    async fn live(&self, told: &mut Vec<Presence>) -> Result<Vec<(String, i64)>, Trouble> {
        let mut beat = self.beat.lock().await;
        let keys = vec![INSTANCES.to_owned(), of_key(&self.instance), EPOCH.to_owned()];
        let args = vec![
            Value::from(self.instance.as_str()),
            milliseconds(self.times.lease),
            Value::from(Uuid::new_v4().to_string()),
            milliseconds(self.times.life),
        ];
        let (alive, epoch, dead): (bool, String, Vec<Value>) =
            self.run(&BEAT, keys, &["zset", "set", "string"], args).await?;
        let lost = beat.epoch.as_ref().is_some_and(|known| *known != epoch);
        if lost {
            tracing::warn!("Redis lost what it knew of presence; it is told again");
            self.local.lock().doubtful_until = Some(Instant::now() + self.times.beat * 2);
        } else if !alive && beat.epoch.is_some() {
            tracing::warn!("this instance was taken for dead; its users are told again");
        }
        let stale = beat.renewed.is_none_or(|at| at.elapsed() > self.times.life / 4);
        if lost || !alive || stale {
            let news = self.renew().await?;
            if !lost {
                told.extend(news);
            }
            beat.renewed = Some(Instant::now());
        }
        // Only now: what failed on the way is done again.
        beat.epoch = Some(epoch);
        let mut dead = dead.into_iter();
        let mut found = Vec::new();
        while let (Some(name), Some(lease)) = (dead.next(), dead.next()) {
            if let (Some(name), Some(lease)) = (name.into_string(), lease.as_f64()) {
                found.push((name, lease as i64));
            }
        }
        Ok(found)
    }

    /// Says again whom this instance has. Answers those of whom nobody knew.
    async fn renew(&self) -> Result<Vec<Presence>, Trouble> {
        let users: Vec<UserId> = self.local.lock().users.keys().copied().collect();
        let mut news = Vec::new();
        for slice in users.chunks(SLICE) {
            let all = join_all(slice.iter().map(async |user| {
                let _turn = self.turn(*user).await;
                let here = self.local.lock().users.get(user).cloned();
                let Some(here) = here else { return Ok(None) };
                let (first, status) = self.here(*user, &here).await?;
                Ok::<_, Trouble>(first.then(|| online(*user, status)))
            }));
            for one in all.await {
                news.extend(one?);
            }
        }
        Ok(news)
    }

    /// Looks at those whose state others may have wrong; they are told in any case.
    async fn look_again(&self, told: &mut Vec<Presence>) -> Result<(), Trouble> {
        let now = Instant::now();
        let due: Vec<UserId> = {
            let local = self.local.lock();
            let due = local.unsure.iter().filter(|(_, when)| **when <= now);
            due.map(|(user, _)| *user).take(CLAIMS).collect()
        };
        for slice in due.chunks(SLICE) {
            let all = join_all(slice.iter().map(async |user| {
                let _turn = self.turn(*user).await;
                let here = self.local.lock().users.get(user).cloned();
                let presence = match here {
                    Some(here) => online(*user, self.here(*user, &here).await?.1),
                    None => {
                        let (_, text): (Value, String) =
                            self.about(&GONE, *user, &self.instance, Vec::new()).await?;
                        let status = status(&text);
                        let gone = status == PresenceStatus::Offline;
                        let last_seen = gone.then(Timestamp::now);
                        Presence { user_id: *user, status, last_seen }
                    }
                };
                self.local.lock().unsure.remove(user);
                Ok::<_, Trouble>(presence)
            }));
            for one in all.await {
                told.push(one?);
            }
        }
        Ok(())
    }

    /// Takes the users of a dead instance over. Those whom nobody else has are offline.
    async fn bury(&self, dead: &str, lease: i64, told: &mut Vec<Presence>) -> Result<(), Trouble> {
        // When it was last heard of.
        let last = Timestamp::from_milliseconds(
            lease.saturating_sub(i64::try_from(self.times.lease.as_millis()).unwrap_or(0)),
        );
        while told.len() < CLAIMS {
            let keys = vec![INSTANCES.to_owned(), of_key(dead)];
            let args = vec![Value::from(dead), Value::from(SLICE as i64)];
            let users: Vec<i32> = self.run(&LEFT, keys, &["zset", "set"], args).await?;
            if users.is_empty() {
                tracing::info!(instance = dead, "an instance died; its users are taken over");
                return Ok(());
            }
            let claims = users.iter().map(async |user| {
                let user = UserId(*user);
                let claimed: bool = self.about(&CLAIM, user, dead, Vec::new()).await?;
                let status = PresenceStatus::Offline;
                let gone = Presence { user_id: user, status, last_seen: last };
                Ok::<_, Trouble>(claimed.then_some(gone))
            });
            let mut failed = None;
            // What was claimed has to be told, also when a later claim fails.
            for one in join_all(claims).await {
                match one {
                    Ok(claimed) => told.extend(claimed),
                    Err(trouble) => failed = Some(trouble),
                }
            }
            if let Some(trouble) = failed {
                return Err(trouble);
            }
        }
        Ok(())
    }

    async fn refreshed(&self, told: &mut Vec<Presence>) -> Result<(), Trouble> {
        let dead = self.live(told).await?;
        self.look_again(told).await?;
        for (instance, lease) in dead {
            self.bury(&instance, lease, told).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl PresenceStore for RedisPresence {
    async fn opened(&self, user: UserId, connection: ConnectionId) -> Option<Presence> {
        let _turn = self.turn(user).await;
        let here = {
            let mut local = self.local.lock();
            let first = !local.users.contains_key(&user);
            let here = local.users.entry(user).or_insert_with(|| Here {
                connections: HashSet::new(),
                status: PresenceStatus::Online,
                at: 0,
            });
            here.connections.insert(connection);
            if !first {
                return None;
            }
            here.clone()
        };
        match self.here(user, &here).await {
            Ok((first, status)) => first.then(|| online(user, status)),
            Err(_) => {
                self.doubt(user, Instant::now());
                Some(online(user, PresenceStatus::Online))
            }
        }
    }

    async fn closed(
        &self,
        user: UserId,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Presence> {
        let _turn = self.turn(user).await;
        let doubtful = {
            let mut local = self.local.lock();
            let here = local.users.get_mut(&user)?;
            here.connections.remove(&connection);
            if !here.connections.is_empty() {
                return None;
            }
            local.users.remove(&user);
            local.doubtful_until.is_some_and(|until| Instant::now() < until)
        };
        let status = PresenceStatus::Offline;
        let gone = Presence { user_id: user, status, last_seen: Some(now) };
        match self.about::<(bool, String)>(&GONE, user, &self.instance, Vec::new()).await {
            Ok((_, text)) if text != "offline" => None,
            Ok((true, _)) if !doubtful => Some(gone),
            // Redis has forgotten: others may have the user and not have said so again.
            Ok(_) => {
                self.doubt(user, Instant::now() + self.times.beat * 3 / 2);
                None
            }
            Err(_) => {
                self.doubt(user, Instant::now());
                Some(gone)
            }
        }
    }

    async fn set(&self, user: UserId, status: PresenceStatus) -> Option<Presence> {
        let _turn = self.turn(user).await;
        let known = self.local.lock().users.get(&user)?.status;
        let more = vec![milliseconds(self.times.life), Value::from(status_text(status))];
        let (news, at) = match self.about::<(bool, i64)>(&SET, user, &self.instance, more).await {
            Ok(answer) => answer,
            Err(_) => {
                self.doubt(user, Instant::now());
                (known != status, Timestamp::now().milliseconds())
            }
        };
        if let Some(here) = self.local.lock().users.get_mut(&user) {
            (here.status, here.at) = (status, at);
        }
        news.then(|| online(user, status))
    }

    async fn query(&self, users: &[UserId]) -> Vec<(UserId, PresenceStatus)> {
        if users.is_empty() {
            return Vec::new();
        }
        let keys = std::iter::once(INSTANCES.to_owned())
            .chain(users.iter().map(|user| user_key(*user)))
            .collect();
        let known: Result<Vec<String>, _> =
            self.run(&QUERY, keys, &["zset", "hash"], Vec::new()).await;
        let known = known.unwrap_or_default();
        let local = self.local.lock();
        let of = |(place, user): (usize, &UserId)| {
            let there = known.get(place).map_or(PresenceStatus::Offline, |text| status(text));
            let here = local.users.get(user).map(|here| here.status);
            // Who has a socket here is there, whatever Redis has forgotten.
            let status = if there == PresenceStatus::Offline { here } else { None };
            (*user, status.unwrap_or(there))
        };
        users.iter().enumerate().map(of).collect()
    }

    async fn refresh(&self) -> Vec<Presence> {
        let mut told = Vec::new();
        if let Err(trouble) = self.refreshed(&mut told).await {
            tracing::debug!(%trouble, "presence goes by this instance alone");
        }
        told
    }

    async fn stirred(&self) {
        self.redis.returned().await;
    }
}
