// Sends a second and user, over all servers: a sorted set of the times of what passed within the last second.

import { Failure } from './failure.mjs';

// Answers 0 when it passes, or the milliseconds to wait. Redis's clock is the one that all servers share.
const SCRIPT = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 1000)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return math.max(1, oldest[2] + 1000 - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('PEXPIRE', KEYS[1], 1000)
return 0`;

/** Counts one send of the user, or throws `rate_limited`. Without Redis everything passes. */
export function createMessageLimit(redis, { messageRate, instance }, log) {
  let sends = 0;
  return async (userId) => {
    if (messageRate === 0 || !redis.isReady()) return;
    sends += 1;
    const member = `${instance}:${process.pid}:${sends}`;
    let wait = 0;
    try {
      wait = Number(await redis.eval(SCRIPT, [`message:ratelimit:${userId}`], [String(messageRate), member]));
    } catch (error) {
      log('a send could not be counted:', error.message);
    }
    if (wait > 0) throw new Failure('rate_limited', 'You send too fast. Wait a moment.', wait);
  };
}
