// A chat server on Starling's database and Redis: see README.md.

import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { Server } from 'socket.io';
import { createAdapter } from '@socket.io/redis-adapter';
import { authenticate } from './src/auth.mjs';
import { readConfig } from './src/config.mjs';
import { openDatabase } from './src/database.mjs';
import { serveSocket } from './src/events.mjs';
import { createMessages } from './src/messages.mjs';
import { createMessageLimit } from './src/rate-limit.mjs';
import { createReceipts } from './src/receipts.mjs';
import { connectRedis } from './src/redis.mjs';
import { createRooms } from './src/rooms.mjs';
import { createSessions } from './src/sessions.mjs';
import { createTyping } from './src/typing.mjs';

/** A client that does not take its last answers in this time does without them. */
const FLUSH_MS = 2_000;

const config = readConfig(process.env);
const log = (...words) => console.error(`[${config.instance}]`, ...words);

// The adapter publishes without waiting: what Redis did not take while it was away is lost, not fatal.
process.on('unhandledRejection', (error) => log('unhandled rejection:', error));

const db = openDatabase(config, log);
const redis = await connectRedis(config, log);

const app = express().disable('x-powered-by');
const server = http.createServer(app);
const io = new Server(server, {
  adapter: createAdapter(redis.pub, redis.sub),
  maxHttpBufferSize: config.maxPayloadBytes,
  serveClient: false,
});

const sessions = createSessions(db, config.instance, log);
const rooms = createRooms(db);
const typing = createTyping(io);
const receipts = createReceipts(io, db, config);
const messages = createMessages(io, db, redis, config);
const chat = {
  db,
  io,
  log,
  instance: config.instance,
  sessions,
  rooms,
  typing,
  receipts,
  messages,
  takeSend: createMessageLimit(redis, config, log),
  /** Events that are being served. */
  busy: new Set(),
  draining: false,
};

io.use(authenticate(db, config.jwtSecret, log));
io.on('connection', (socket) => serveSocket(chat, socket));

app.get(['/health/live', '/healthz'], (request, response) => response.json({ status: 'ok' }));
app.get(['/health/ready', '/readyz'], async (request, response) => {
  const checks = await Promise.allSettled([db.pool.query('SELECT 1'), redis.ping()]);
  const ready = !chat.draining && checks.every(({ status }) => status === 'fulfilled');
  response.status(ready ? 200 : 503).json({ status: ready ? 'ok' : 'unavailable' });
});
app.get('/metrics', (request, response) => {
  response.type('text/plain; version=0.0.4').send([
    '# TYPE peer_connected_sockets gauge',
    `peer_connected_sockets ${io.of('/').sockets.size}`,
    '# TYPE peer_messages_stored_total counter',
    `peer_messages_stored_total ${messages.stored()}`,
    '',
  ].join('\n'));
});

/** Tells clients to come back elsewhere, finishes what was begun, and closes the transports. */
async function stop(signal) {
  if (chat.draining) return;
  chat.draining = true;
  log(`${signal}: draining`);
  setTimeout(() => process.exit(1), config.drainSeconds * 1_000).unref();
  for (const socket of io.of('/').sockets.values()) {
    socket.emit('server:draining', { reconnectInMs: Math.floor(Math.random() * 5_000) });
  }
  await Promise.allSettled(chat.busy);
  // One by one, because io.close() would throw away answers that are still in their buffers.
  const closed = [...io.of('/').sockets.values()].map(async (socket) => {
    const disconnected = once(socket, 'disconnect');
    socket.conn.close();
    await disconnected;
  });
  await Promise.race([Promise.all(closed), sleep(FLUSH_MS)]);
  await io.close();
  typing.close();
  await sessions.close();
  await Promise.allSettled([db.pool.end(), redis.close()]);
  process.exit(0);
}
process.once('SIGTERM', stop);
process.once('SIGINT', stop);

await sessions.open();
// The adapter subscribes without waiting; on this connection the answer comes after that.
await redis.sub.ping();
server.listen(config.port, config.host, () => {
  const { address, family, port } = server.address();
  console.log(`listening on http://${family === 'IPv6' ? `[${address}]` : address}:${port}`);
});
