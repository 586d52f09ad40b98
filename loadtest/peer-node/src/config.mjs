// The environment, checked once.

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';

export function readConfig(env) {
  const required = (name) => {
    if (!env[name]) throw new Error(`${name} is not set`);
    return env[name];
  };
  const integer = (name, fallback) => {
    const value = Number(env[name] ?? fallback);
    if (!Number.isInteger(value) || value < 0) throw new Error(`${name} must be a whole number from 0`);
    return value;
  };
  const address = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(env.BIND_ADDR ?? '127.0.0.1:3000');
  if (!address) throw new Error('BIND_ADDR must be host:port');
  const redisClient = env.REDIS_CLIENT ?? 'redis';
  if (!['redis', 'ioredis'].includes(redisClient)) throw new Error('REDIS_CLIENT must be redis or ioredis');
  return {
    databaseUrl: required('DATABASE_URL'),
    databaseConnections: integer('DB_MAX_CONNECTIONS', 50),
    redisUrl: required('REDIS_URL'),
    redisClient,
    jwtSecret: required('JWT_SECRET'),
    host: address[1] ?? address[2],
    port: Number(address[3]),
    instance: env.INSTANCE_ID ?? `${hostname()}-${randomBytes(3).toString('hex')}`,
    messageRate: integer('MESSAGE_RATE_PER_USER', 10),
    receiptRowsMaxMembers: integer('RECEIPT_ROWS_MAX_MEMBERS', 64),
    maxPayloadBytes: integer('MAX_PAYLOAD_BYTES', 65_536),
    drainSeconds: integer('DRAIN_TIMEOUT_SECONDS', 25),
  };
}
