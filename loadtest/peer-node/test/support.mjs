// Peers as processes, people through plain SQL, and clients that record what they hear.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import jwt from 'jsonwebtoken';
import pg from 'pg';
import { io } from 'socket.io-client';

export const { DATABASE_URL, REDIS_URL } = process.env;
if (!DATABASE_URL || !REDIS_URL) {
  throw new Error("DATABASE_URL (a database with Starling's schema) and REDIS_URL must be set: see README.md");
}

const SERVER = fileURLToPath(new URL('../server.mjs', import.meta.url));
const JWT_SECRET = 'a-secret-for-tests-of-forty-characters..';
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

export const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 4 });

/** Starts a peer: `{url, child, stop(signal)}`. */
export async function startPeer(env = {}) {
  const child = spawn(process.execPath, [SERVER], {
    env: {
      PATH: process.env.PATH,
      DATABASE_URL,
      REDIS_URL,
      JWT_SECRET,
      BIND_ADDR: '127.0.0.1:0',
      DB_MAX_CONNECTIONS: '8',
      MESSAGE_RATE_PER_USER: '0',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  const closed = once(child, 'close').then(([code, signal]) => ({ code, signal }));
  closed.then(() => children.delete(child));
  let log = '';
  child.stderr.on('data', (chunk) => { log += chunk; });
  const ready = new Promise((resolve) => {
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const url = /^listening on (\S+)$/m.exec(output)?.[1];
      if (url) resolve(url);
    });
  });
  const url = await Promise.race([ready, closed.then(() => { throw new Error(`the peer did not start\n${log}`); })]);
  return {
    url,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return closed;
    },
  };
}

/** A user with a live session: `{id, username, sessionId, token}`. */
export async function person() {
  const username = `peer.${randomUUID().slice(0, 8)}`;
  const { rows: [{ id }] } = await pool.query(
    `INSERT INTO users (username, email, password_hash, display_name, created_at)
     VALUES ($1, $1 || '@example.test', '-', $1, now())
     RETURNING id`,
    [username],
  );
  const sessionId = randomUUID();
  await pool.query(
    `INSERT INTO login_sessions (id, user_id, created_at, refreshed_at, expires_at)
     VALUES ($1, $2, now(), now(), now() + interval '1 day')`,
    [sessionId, id],
  );
  return { id, username, sessionId, token: token({ sub: String(id), sid: sessionId }) };
}

export const token = (claims, options = { expiresIn: 900 }) => jwt.sign(claims, JWT_SECRET, options);
export const people = (count) => Promise.all(Array.from({ length: count }, person));

/** A group that the first one owns. */
export async function group(owner, ...members) {
  const { rows: [{ id }] } = await pool.query(
    `INSERT INTO rooms (name, room_type, created_by, created_at, last_activity_at)
     VALUES ('A group', 'group', $1, now(), now())
     RETURNING id`,
    [owner.id],
  );
  await pool.query(
    `INSERT INTO room_members (room_id, user_id, role, joined_at, joined_seq, last_delivered_seq, last_read_seq)
     SELECT $1, m.id, CASE WHEN m.id = $3 THEN 'owner' ELSE 'member' END, now(), 0, 0, 0
     FROM unnest($2::int[]) AS m (id)`,
    [id, [owner, ...members].map((user) => user.id), owner.id],
  );
  return id;
}

const clients = new Set();

/** Connects and waits for `session:ready`; `offline: false` leaves batches unacknowledged. */
export async function connect(peer, user, { wait = true, offline = true, ...options } = {}) {
  const client = new Client(io(peer.url, {
    forceNew: true,
    reconnection: false,
    transports: ['websocket'],
    auth: { token: user?.token },
    ...options,
  }), offline);
  clients.add(client);
  if (wait) await client.waitFor('session:ready');
  return client;
}

export function closeClients() {
  clients.forEach((client) => client.socket.disconnect());
  clients.clear();
}

class Client {
  constructor(socket, offline) {
    this.socket = socket;
    this.heard = [];
    this.watchers = new Set();
    socket.onAny((event, ...args) => {
      const acknowledge = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      this.record(event, args[0], acknowledge);
      if (event === 'messages:offline' && offline) acknowledge();
    });
    for (const event of ['connect_error', 'disconnect']) socket.on(event, (detail) => this.record(event, detail));
  }

  record(event, payload, acknowledge) {
    this.heard.push({ event, payload, acknowledge });
    this.watchers.forEach((watch) => watch());
  }

  entries(event, matches = () => true) {
    return this.heard.filter((entry) => entry.event === event && matches(entry.payload));
  }

  all(event, matches) {
    return this.entries(event, matches).map(({ payload }) => payload);
  }

  /** The recorded entry of the `count`-th such event, past or future. The test's time limit bounds the wait. */
  async entry(event, matches, count = 1) {
    let watch;
    try {
      return await new Promise((resolve) => {
        watch = () => {
          const found = this.entries(event, matches)[count - 1];
          if (found) resolve(found);
        };
        this.watchers.add(watch);
        watch();
      });
    } finally {
      this.watchers.delete(watch);
    }
  }

  async waitFor(event, matches, count) {
    return (await this.entry(event, matches, count)).payload;
  }

  emitAck(event, payload) {
    return new Promise((resolve) => { this.socket.emit(event, payload, resolve); });
  }

  async ask(event, payload) {
    const answer = await this.emitAck(event, payload);
    assert.equal(answer.ok, true, `${event} was refused: ${JSON.stringify(answer)}`);
    return answer;
  }

  async refused(code, event, payload) {
    const answer = await this.emitAck(event, payload);
    assert.equal(answer.ok, false, `${event} was not refused: ${JSON.stringify(answer)}`);
    assert.equal(answer.error.code, code, JSON.stringify(answer));
    assert.equal(typeof answer.error.message, 'string');
    return answer.error;
  }

  async send(roomId, content, more) {
    return (await this.ask('message:send', { roomId, content, ...more })).message;
  }
}
