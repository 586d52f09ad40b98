// Redis, through either of the clients that Node.js teams use. The adapter takes both.

import { Redis } from 'ioredis';
import { createClient } from 'redis';

const RETRY_MS = (attempt) => Math.min(50 * attempt, 1_000);

/** `{pub, sub, isReady(), ping(), del(key), eval(script, keys, args), close()}` */
export async function connectRedis(config, log) {
  const open = config.redisClient === 'ioredis' ? openIoredis : openRedis;
  const client = await open(config.redisUrl);
  for (const connection of [client.pub, client.sub]) {
    connection.on('error', (error) => log('redis:', error.message));
  }
  await client.connect();
  return {
    ...client,
    /** Fails at once without a connection, where the clients would wait for one. */
    async ping() {
      if (!client.isReady()) throw new Error('no connection to Redis');
      return client.pub.ping();
    },
  };
}

function openRedis(url) {
  const pub = createClient({ url, socket: { reconnectStrategy: RETRY_MS } });
  const sub = pub.duplicate();
  return {
    pub,
    sub,
    connect: () => Promise.all([pub.connect(), sub.connect()]),
    isReady: () => pub.isReady,
    del: (key) => pub.del(key),
    eval: (script, keys, args) => pub.eval(script, { keys, arguments: args }),
    close: () => Promise.all([pub.close(), sub.close()]),
  };
}

function openIoredis(url) {
  // Publications wait for Redis to come back instead of failing after some attempts.
  const pub = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: null, retryStrategy: RETRY_MS });
  const sub = pub.duplicate();
  return {
    pub,
    sub,
    connect: () => Promise.all([pub.connect(), sub.connect()]),
    isReady: () => pub.status === 'ready',
    del: (key) => pub.del(key),
    eval: (script, keys, args) => pub.eval(script, keys.length, ...keys, ...args),
    close: () => Promise.all([pub.quit(), sub.quit()]),
  };
}
