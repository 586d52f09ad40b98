// One device of a user: an unmodified socket.io-client that reconnects by itself, and records what it sees.
//
// The one thing that a real client has outside of itself is the load balancer: after a failure the next attempt
// goes to any of `urls`, which are the instances, or the one address of a balancer.

import { randomUUID } from 'node:crypto';
import { io, sleep } from './deps.mjs';
import { now } from './history.mjs';
import { Outbox } from './outbox.mjs';
import { Receipts } from './receipts.mjs';

/** An attempt to connect to a process that is stopped ends after this. */
const CONNECT_TIMEOUT = 4_000;
/** Pages of one room:sync round; beyond, the next round goes on. */
const SYNC_PAGES = 50;
/** A sync that failed or had no answer is asked again after this. */
const SYNC_AGAIN = 1_000;

/** What the checker compares of a message. */
const facts = ({ id, roomId, seq, senderId, clientId, content }) => ({
  room: roomId, seq, id, sender: senderId, clientId, text: content,
});

export class Member {
  #connections = 0;
  #syncing = false;
  #wanted = new Map();
  #attemptAt = 0;

  /** `reads: false` is a device that never says what was read. */
  constructor({ name, user, rooms, urls, history, random, style, transports, reads = random.chance(0.7) }) {
    Object.assign(this, { name, user, rooms, urls, history, random, style, transports, reads });
    this.conn = undefined;
    this.instance = undefined;
    this.away = false;
    /** By room: the highest seq of which, and of all below it, this device knows. */
    this.heads = new Map(rooms.map((room) => [room, 0]));
    /** By room: how far the server has come by itself on this connection. */
    this.live = new Map();
    this.seen = new Map(rooms.map((room) => [room, new Set()]));
    this.outbox = new Outbox(this);
    this.receipts = new Receipts(this);
    this.socket = io(random.pick(urls), {
      autoConnect: false,
      forceNew: true,
      transports,
      auth: { token: user.token },
      // Node.js keeps no cookies: a balancer keeps a polling session together by this.
      query: { affinity: randomUUID() },
      timeout: CONNECT_TIMEOUT,
      reconnectionDelay: 100,
      reconnectionDelayMax: 1_000,
    });
    this.#listen();
  }

  get online() {
    return this.conn !== undefined && this.socket.connected;
  }

  connect() {
    this.#attemptAt = now();
    this.socket.connect();
  }

  #write(kind, fields) {
    return this.history.write(kind, { conn: this.conn, device: this.name, user: this.user.id, ...fields });
  }

  #elsewhere() {
    this.socket.io.uri = this.random.pick(this.urls);
    this.#attemptAt = now();
  }

  #listen() {
    const { socket } = this;
    socket.on('connect', () => {
      this.#connections += 1;
      this.conn = `${this.name}#${this.#connections}`;
      this.#write('connect', { sid: socket.id, url: socket.io.uri, transports: this.transports.join('+'), attemptAt: this.#attemptAt });
      this.outbox.pump();
    });
    socket.on('disconnect', (reason) => {
      this.#write('disconnect', { reason });
      this.conn = undefined;
      this.instance = undefined;
      this.outbox.interrupted();
      this.#elsewhere();
      // The server ends nobody's session here: the client would not come back from that by itself.
      if (reason === 'io server disconnect' && !this.away) this.#stranded(reason);
    });
    socket.on('connect_error', (error) => {
      this.#elsewhere();
      if (!socket.active && !this.away) this.#stranded(error.message);
    });
    socket.io.on('reconnect_attempt', () => { this.#attemptAt = now(); });
    socket.onAny((event, payload, answer) => this.#hear(event, payload, answer));
  }

  /** An unmodified client would stay away for ever now. That is a violation, and the run goes on without it. */
  async #stranded(reason) {
    this.#write('stranded', { reason });
    await sleep(500);
    if (!this.away && !this.socket.active) this.connect();
  }

  #hear(event, payload, answer) {
    switch (event) {
      case 'session:ready': return this.#ready(payload);
      case 'message:new':
        this.#write('new', facts(payload));
        this.live.set(payload.roomId, payload.seq);
        this.#know(payload);
        return this.receipts.arrived(payload);
      case 'messages:offline':
        this.#write('offline', { batch: payload.batch, remaining: payload.remaining, messages: payload.messages.map(facts) });
        payload.messages.forEach((message) => this.#know(message));
        return this.receipts.offline(payload.messages, answer);
      case 'message:status': {
        const { roomId, messageIds, userId, status } = payload;
        return this.#write('status', { room: roomId, ids: messageIds, by: userId, status });
      }
      case 'sync:required':
        this.#write('sync:required', { rooms: payload.rooms });
        return payload.rooms.forEach(({ roomId }) => this.#sync(roomId, 'required'));
      case 'server:draining': return this.#write('draining', payload);
      case 'session:revoked': return this.#write('revoked', payload);
      case 'presence:update': return this.#write('presence', { of: payload.userId, status: payload.status });
      case 'error': return this.#write('error', payload);
      default: return undefined;
    }
  }

  #ready({ instance, rooms }) {
    this.instance = instance;
    const places = Object.fromEntries(rooms.map(({ roomId, lastSeq, lastReadSeq }) => [roomId, { lastSeq, lastReadSeq }]));
    this.#write('ready', { instance, rooms: places });
    this.live = new Map(rooms.map(({ roomId, lastSeq }) => [roomId, lastSeq]));
    for (const { roomId, lastSeq } of rooms) {
      if (lastSeq > this.heads.get(roomId)) this.#sync(roomId, 'reconnect');
    }
    this.outbox.pump();
  }

  #know({ roomId, seq }) {
    const seen = this.seen.get(roomId);
    seen?.add(seq);
    let head = this.heads.get(roomId);
    while (seen?.has(head + 1)) head += 1;
    this.heads.set(roomId, head);
    if (seq > head + 1) this.#sync(roomId, 'gap');
  }

  /** Asks for what is missing in a room; rooms that want it meanwhile go with the next request. */
  async #sync(room, why) {
    this.#wanted.set(room, why);
    if (this.#syncing) return;
    this.#syncing = true;
    try {
      for (let page = 0; page < SYNC_PAGES && this.#wanted.size > 0 && this.online; page += 1) {
        // What comes by itself at this moment need not be asked for.
        await sleep(50);
        await this.#syncPage();
      }
    } finally {
      this.#syncing = false;
    }
  }

  async #syncPage() {
    const { conn } = this;
    const asked = [...this.#wanted];
    this.#wanted.clear();
    const rooms = asked.map(([roomId]) => ({ roomId, afterSeq: this.heads.get(roomId) }));
    const answer = await this.ask('room:sync', { rooms });
    if (this.conn !== conn) return;
    if (!answer?.ok) {
      await sleep(SYNC_AGAIN);
      if (this.conn === conn) asked.forEach(([roomId, why]) => this.#wanted.set(roomId, why));
      return;
    }
    for (const { roomId, messages, more } of answer.rooms) {
      const why = new Map(asked).get(roomId);
      this.#write('sync', { why, room: roomId, messages: messages.map(facts) });
      messages.forEach((message) => this.#know(message));
      this.receipts.own(messages);
      if (more) this.#wanted.set(roomId, why);
    }
  }

  /** The acknowledgement; nothing when the connection ended before, or after so many ms. */
  async ask(event, payload, ms = 10_000) {
    if (!this.online) return undefined;
    try {
      return await this.socket.timeout(ms).emitWithAck(event, payload);
    } catch {
      return undefined;
    }
  }

  /** The connection breaks without a word, as a lost network does. */
  cut() {
    const transport = this.socket.io.engine?.transport;
    this.history.write('cut', { device: this.name });
    if (transport?.ws?.terminate) transport.ws.terminate();
    else this.socket.io.engine?.close();
  }

  leave() {
    this.away = true;
    this.#write('leave', {});
    this.socket.disconnect();
  }

  comeBack() {
    this.away = false;
    this.connect();
  }

  close() {
    this.away = true;
    this.outbox.close();
    this.receipts.close();
    this.socket.disconnect();
  }
}
