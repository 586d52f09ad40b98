// A user over REST, and a recording client around an unmodified socket.io-client.

import { io as newest } from 'socket.io-client';
import { io as io40 } from 'socket.io-client-4.0';
import { io as io47 } from 'socket.io-client-4.7';
import { accepted, answered, refusedAck } from './expect.mjs';
import { sleep, within } from './wait.mjs';

export const CLIENTS = { newest, '4.7': io47, '4.0': io40 };
export const PASSWORD = 'correct horse battery';

/** REST under `/api`: each method answers `{status, body, headers}`. */
export function api(url, token) {
  const call = (method) => async (path, body, headers = {}) => {
    const answer = await fetch(`${url}/api${path}`, {
      method,
      headers: {
        connection: 'close',
        ...(token && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
    const text = await answer.text();
    const json = answer.headers.get('content-type')?.includes('json');
    return { status: answer.status, body: json ? JSON.parse(text) : text, headers: answer.headers };
  };
  return { get: call('GET'), post: call('POST'), patch: call('PATCH'), del: call('DELETE') };
}

let registered = 0;

/** Registers a user with a name of its own: `{id, username, email, password, token, refreshToken, sid, api}`. */
export async function register(url, fields = {}) {
  registered += 1;
  const username = fields.username ?? `user${registered}.${process.pid}`;
  const email = fields.email ?? `${username}@example.test`;
  const password = fields.password ?? PASSWORD;
  const body = answered(await api(url).post('/auth/register', { username, email, password, ...fields }), 201);
  return asUser(url, { username, email, password }, body);
}

/** Opens another session of a registered user. */
export async function login(url, user) {
  const body = answered(await api(url).post('/auth/login', { username: user.username, password: user.password }));
  return asUser(url, user, body);
}

function asUser(url, { username, email, password }, { user, accessToken, refreshToken }) {
  return {
    id: user.id,
    username,
    email,
    password,
    token: accessToken,
    refreshToken,
    sid: claims(accessToken).sid,
    api: api(url, accessToken),
  };
}

export function claims(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
}

/**
 * Connects and waits for `session:ready`.
 * Options: `io` (a client version), `transports`, `wait: false` to return at once,
 * `offline: 'silent'` to leave offline batches unacknowledged, and any option of socket.io-client.
 */
export async function connect(url, user, options = {}) {
  const {
    io = newest, wait = true, offline = 'acknowledge', ms = 10_000, ...rest
  } = options;
  const socket = io(url, {
    forceNew: true,
    reconnection: false,
    transports: ['websocket'],
    auth: { token: user?.token },
    ...rest,
  });
  const client = new Client(socket, user, offline);
  if (wait) {
    try {
      await client.ready(ms);
    } catch (error) {
      client.close();
      throw error;
    }
  }
  return client;
}

/** Records everything in order from the first moment: events, acknowledgements, and the socket's own life. */
export class Client {
  constructor(socket, user, offline) {
    this.socket = socket;
    this.user = user;
    this.log = [];
    this.unanswered = 0;
    this.watchers = new Set();
    socket.onAny((event, ...args) => {
      const acknowledge = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      this.record(event, args[0], { acknowledge });
      if (event === 'messages:offline' && offline === 'acknowledge') acknowledge();
    });
    for (const event of ['connect', 'disconnect', 'connect_error']) {
      socket.on(event, (detail) => this.record(event, detail));
    }
  }

  record(event, payload, more = {}) {
    this.log.push({ event, payload, at: Date.now(), ...more });
    this.watchers.forEach((watch) => watch());
  }

  /** A place in the recording, for `since` below. */
  mark() {
    return this.log.length;
  }

  /** What was recorded of one event, or of a list of events. */
  entries(event, matches = () => true, since = 0) {
    const events = [event].flat();
    return this.log.slice(since).filter((entry) => events.includes(entry.event) && matches(entry.payload));
  }

  all(event, matches, since) {
    return this.entries(event, matches, since).map((entry) => entry.payload);
  }

  /** The whole recorded entry of the first such event, past or future; with `count`, of that one. */
  async entry(event, matches = () => true, { ms = 5_000, since = 0, count = 1 } = {}) {
    const found = () => this.entries(event, matches, since)[count - 1];
    let watch;
    const seen = new Promise((resolve) => {
      watch = () => {
        const entry = found();
        if (entry) resolve(entry);
      };
      this.watchers.add(watch);
      watch();
    });
    try {
      return await within(ms, `${count} × ${event}`, seen);
    } catch (error) {
      error.message += ` (${this.user?.username ?? 'nobody'} saw: ${this.log.slice(-30).map((e) => e.event).join(', ')})`;
      throw error;
    } finally {
      this.watchers.delete(watch);
    }
  }

  /** The payload of the first such event, past or future. */
  async waitFor(event, matches, options) {
    return (await this.entry(event, matches, options)).payload;
  }

  /** Waits until `count` such events are there, and answers all their payloads. */
  async waitForMany(event, count, matches = () => true, { ms = 15_000, since = 0 } = {}) {
    await this.entry(event, matches, { ms, since, count });
    return this.all(event, matches, since);
  }

  /** Fails when such an event came since the mark, or comes within `ms`. */
  async silence(event, { matches, since = this.mark(), ms = 400 } = {}) {
    await sleep(ms);
    const heard = this.all(event, matches, since);
    if (heard.length > 0) throw new Error(`expected no ${event}, heard ${JSON.stringify(heard)}`);
  }

  async ready(ms) {
    const { event, payload } = await this.entry(['session:ready', 'connect_error'], undefined, { ms });
    if (event === 'connect_error') throw payload;
    return payload;
  }

  /**
   * Emits and answers the acknowledgement, whatever it says. Without a payload none is sent.
   * It may take 5 s, and a little more for each event that waits before it.
   */
  async emitAck(event, ...payload) {
    const ms = 5_000 + 20 * this.unanswered;
    this.unanswered += 1;
    const answer = await within(ms, `the acknowledgement of ${event}`, new Promise((resolve) => {
      this.socket.emit(event, ...payload, resolve);
    }));
    this.unanswered -= 1;
    this.record('ack', answer, { of: event, sent: payload[0] });
    return answer;
  }

  /** Emits and expects `ok: true`. */
  async ask(event, payload) {
    return accepted(await this.emitAck(event, payload));
  }

  /** Emits and expects the error code; answers the error. */
  async refused(code, event, ...payload) {
    return refusedAck(await this.emitAck(event, ...payload), code);
  }

  /** Sends a message and answers it as acknowledged. */
  async send(roomId, content, more = {}) {
    return (await this.ask('message:send', { roomId, content, ...more })).message;
  }

  close() {
    this.socket.disconnect();
  }

  /** Breaks the transport without a Socket.IO disconnect, as a lost network does. */
  drop() {
    this.socket.io.opts.reconnection = false;
    this.socket.io.engine.close();
  }
}
