//! What runs in Redis.

use std::sync::LazyLock;

use fred::types::scripts::Script;

/// `clean(key)` drops what no longer counts in a set and answers the time.
const CLEAN: &str = r"
local function clean(key)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + time[2] / 1000
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.3f', now - 1000))
  redis.call('ZREMRANGEBYSCORE', key, string.format('(%.3f', now + 1000), '+inf')
  return now
end
local function first_free(key, now, count, rate)
  local first = redis.call('ZRANGE', key, count - rate, count - rate, 'WITHSCORES')
  return math.max(1, math.ceil(tonumber(first[2]) + 1000 - now))
end
";

/// `add` puts what passed earlier into a set: ARGV from `at`, `n` pairs of a member and its age
/// in ms. `of` says whether a member or a holder's name is of an instance.
const EARLIER: &str = r"
local function add(key, now, at, n)
  for i = at, at + 2 * n - 2, 2 do
    local age = tonumber(ARGV[i + 1])
    if age < 1000 then
      redis.call('ZADD', key, 'NX', string.format('%.3f', now - age), ARGV[i])
    end
  end
end
local function of(text, instance)
  return string.sub(text, 1, #instance + 1) == instance .. ':'
end
local function serial(holder)
  return tonumber(string.match(holder, ':(%d+)$'))
end
";

fn script(parts: &[&str]) -> Script {
    Script::from_lua(parts.concat())
}

/// KEYS: the set. ARGV: rate, member. Answers 0, or the milliseconds to wait.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        CLEAN,
        r"
local key, rate = KEYS[1], tonumber(ARGV[1])
local now = clean(key)
local count = redis.call('ZCARD', key)
if count >= rate then return first_free(key, now, count, rate) end
redis.call('ZADD', key, string.format('%.3f', now), ARGV[2])
redis.call('PEXPIRE', key, 2000)
return 0
",
    ])
});

/// One send of a user. KEYS: the set, its holder. ARGV: rate, half, instance, generation,
/// serial number, how long a holder holds or 0 to hold nothing, member, what passed earlier.
/// Answers 0, the milliseconds to wait, or -1 when that depends on the holder; the holder;
/// how many members are not of this instance, and how many are of the holder.
pub(super) static SEND: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        CLEAN,
        EARLIER,
        r"
local key, rate, me = KEYS[1], tonumber(ARGV[1]), ARGV[3]
local now = clean(key)
add(key, now, 8, (#ARGV - 7) / 2)
local holder = redis.call('GET', KEYS[2]) or ''
local mine = of(holder, me)
local its = string.match(holder, '^[^:]+') or me
local members = redis.call('ZRANGE', key, 0, -1)
local count, others, theirs = #members, 0, 0
for _, member in ipairs(members) do
  if not of(member, me) then others = others + 1 end
  if of(member, its) then theirs = theirs + 1 end
end
local counted = count
if holder ~= '' and not mine then
  counted = count + math.max(0, tonumber(ARGV[2]) - theirs)
end
local wait = 0
if counted < rate then
  redis.call('ZADD', key, string.format('%.3f', now), ARGV[7])
elseif count < rate then
  wait = -1
else
  wait = first_free(key, now, count, rate)
end
redis.call('PEXPIRE', key, 2000)
if ARGV[6] ~= '0' and wait == 0 and others == 0
  and (holder == '' or (mine and serial(holder) < tonumber(ARGV[5]))) then
  holder = me .. ':' .. ARGV[4] .. ':' .. ARGV[5]
  redis.call('SET', KEYS[2], holder, 'PX', ARGV[6])
elseif mine and ARGV[6] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return { wait, holder, others, theirs }
",
    ])
});

/// What passed earlier of many users. KEYS: for each its set and holder. ARGV: instance, how
/// long a holder holds; for each the serial number up to which the user is given up or -1, how
/// many entries, and these. Answers for each whether this instance holds it and nobody else
/// had a send.
pub(super) static POST: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        CLEAN,
        EARLIER,
        r"
local me, at, answer = ARGV[1], 3, {}
for i = 1, #KEYS, 2 do
  local key, own, release, n = KEYS[i], KEYS[i + 1], tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local now = clean(key)
  add(key, now, at + 2, n)
  at = at + 2 + 2 * n
  redis.call('PEXPIRE', key, 2000)
  local holder = redis.call('GET', own) or ''
  local alone = of(holder, me)
  if alone and release >= 0 then
    if serial(holder) <= release then redis.call('DEL', own) end
    alone = false
  elseif alone then
    redis.call('PEXPIRE', own, ARGV[2])
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if not of(member, me) then alone = false end
    end
  end
  answer[#answer + 1] = alone and 1 or 0
end
return answer
",
    ])
});

/// This instance lives. KEYS: its sign of life, users wanted by others. ARGV: how long it is
/// believed, whether this is the first one. Answers whether it counted as alive, and users.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    script(&[r"
if ARGV[2] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return { 0, {} } end
redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
return { 1, redis.call('SPOP', KEYS[2], 256) }
"])
});

/// Asks an instance to give a user up. KEYS: as for `BEAT`. ARGV: the user. Answers
/// whether the instance lives.
pub(super) static ASK: LazyLock<Script> = LazyLock::new(|| {
    script(&[r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 10000)
return 1
"])
});

/// Takes a user from an instance that is dead. KEYS: the holder. ARGV: its name.
pub(super) static CLEAR: LazyLock<Script> = LazyLock::new(|| {
    script(&[r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"])
});
