// A member of rooms with an unmodified socket.io-client, which does what a good client does: it comes back, repeats
// what was not acknowledged, notices gaps and asks for what is missing, and says what it has.

import { randomUUID } from 'node:crypto';
import { io } from 'socket.io-client';
import { sleep, until } from '../../crates/server/e2e/support/wait.mjs';

const TRANSPORTS = {
  websocket: ['websocket'],
  polling: ['polling'],
  upgrade: ['polling', 'websocket'],
};
const ACK_MS = 5_000;

export class Member {
  #history;
  #rooms = new Map();
  #syncing = false;
  #sending = Promise.resolve();
  #delivered = new Map();
  #closed = false;
  #connection;

  /** `user` is a line of the tokens file; `options` are laid over those of socket.io-client. */
  constructor(history, user, { url, transport = 'websocket', options = {} }) {
    this.#history = history;
    this.user = user;
    this.id = user.userId;
    this.transport = transport;
    this.connects = 0;
    this.ready = false;
    for (const room of user.roomIds) this.#rooms.set(room, { last: 0, held: new Map() });
    this.socket = io(url, {
      forceNew: true,
      transports: TRANSPORTS[transport],
      auth: { token: user.token },
      // Node.js keeps no cookies: a polling session sticks by this.
      query: { affinity: randomUUID() },
      reconnectionDelay: 200,
      reconnectionDelayMax: 2_000,
      timeout: 5_000,
      ...options,
    });
    this.#listen();
  }

  #listen() {
    const { socket } = this;
    socket.on('session:ready', ({ instance, rooms }) => {
      this.connects += 1;
      this.ready = true;
      this.instance = instance;
      this.#connection = `${this.id}.${this.connects}`;
      this.#history.record('connected', { user: this.id, connection: this.#connection, instance, transport: this.transport });
      for (const { roomId, lastSeq } of rooms) this.#expect(roomId, lastSeq);
      this.#sync();
    });
    socket.on('disconnect', (reason) => {
      this.ready = false;
      if (!this.#closed) this.#history.record('disconnected', { user: this.id, connection: this.#connection, reason });
    });
    // Messages that come before `session:ready` have no connection yet: the contract says there are none.
    socket.on('message:new', (message) => this.#hear(message, 'live'));
    socket.on('messages:offline', ({ messages }, acknowledge) => {
      messages.forEach((message) => this.#hear(message, 'offline'));
      acknowledge?.();
    });
    socket.on('sync:required', ({ rooms }) => {
      rooms.forEach(({ roomId, lastSeq }) => this.#expect(roomId, lastSeq));
      this.#sync();
    });
  }

  /** A place in the room that the member knows of. */
  #expect(roomId, lastSeq) {
    const room = this.#rooms.get(roomId);
    if (room) room.known = Math.max(room.known ?? 0, lastSeq);
  }

  #hear(message, by) {
    const { roomId: room, seq, id, clientId, senderId: sender, content } = message;
    this.#history.record('heard', { user: this.id, connection: this.#connection, by, room, seq, id, clientId, sender, content });
    const state = this.#rooms.get(room);
    if (!state) return;
    this.#expect(room, seq);
    if (seq > state.last) state.held.set(seq, message);
    for (let next; (next = state.held.get(state.last + 1)); state.last += 1) {
      state.held.delete(next.seq);
      this.#history.record('applied', { user: this.id, room, seq: next.seq, id: next.id });
      if (next.senderId !== this.id) this.#tell(room, next.id);
    }
    if (state.held.size > 0) this.#sync();
  }

  /** Says what has come, many in one event. */
  #tell(room, id) {
    const waiting = this.#delivered.get(room);
    if (waiting) {
      waiting.push(id);
      return;
    }
    this.#delivered.set(room, [id]);
    setTimeout(() => {
      const messageIds = this.#delivered.get(room);
      this.#delivered.delete(room);
      if (this.ready) {
        for (let i = 0; i < messageIds.length; i += 100) {
          this.socket.emit('message:delivered', { roomId: room, messageIds: messageIds.slice(i, i + 100) }, () => {});
        }
      }
    }, 100).unref();
  }

  get #behind() {
    return [...this.#rooms].filter(([, { last, known = 0 }]) => last < known);
  }

  /** Asks for what is missing until nothing is, as long as there is a connection. */
  async #sync() {
    if (this.#syncing) return;
    this.#syncing = true;
    try {
      while (this.ready && this.#behind.length > 0) {
        const rooms = this.#behind.map(([roomId, { last }]) => ({ roomId, afterSeq: last }));
        const answer = await this.#ask('room:sync', { rooms: rooms.slice(0, 50) });
        if (answer?.ok) {
          for (const { roomId, messages, lastSeq } of answer.rooms) {
            this.#expect(roomId, lastSeq);
            messages.forEach((message) => this.#hear(message, 'sync'));
          }
        } else {
          await sleep(answer?.error?.retryAfterMs ?? 200);
        }
      }
    } finally {
      this.#syncing = false;
    }
  }

  async #ask(event, payload) {
    try {
      return await this.socket.timeout(ACK_MS).emitWithAck(event, payload);
    } catch {
      return undefined;
    }
  }

  /** Sends, and repeats until there is an answer for good. Messages of one member go one after the other. */
  send(room, content) {
    const clientId = randomUUID();
    this.#history.record('send', { user: this.id, room, clientId, content });
    this.#sending = this.#sending.then(() => this.#deliver({ roomId: room, content, clientId }));
    return this.#sending;
  }

  async #deliver(message) {
    const known = { user: this.id, room: message.roomId, clientId: message.clientId };
    while (!this.#closed) {
      if (!this.ready) {
        await sleep(50);
        continue;
      }
      const answer = await this.#ask('message:send', message);
      if (answer?.ok) {
        const { id, seq } = answer.message;
        this.#expect(message.roomId, seq);
        this.#history.record('acked', { ...known, id, seq });
        return;
      }
      const code = answer?.error?.code;
      if (code && !['rate_limited', 'unavailable', 'internal'].includes(code)) {
        this.#history.record('refused', { ...known, code });
        return;
      }
      await sleep(answer?.error?.retryAfterMs ?? 100);
    }
  }

  whenReady(ms = 30_000) {
    return until(() => this.ready, { ms, what: `user ${this.id} (${this.transport}) to be connected` });
  }

  /** Waits until everything sent is answered and everything known has come. */
  async settle(lastSeqs, ms = 60_000) {
    await this.#sending;
    for (const [room, lastSeq] of lastSeqs) this.#expect(room, lastSeq);
    await until(() => {
      this.#sync();
      return this.#behind.length === 0;
    }, { ms, every: 50, what: `user ${this.id} (${this.transport}) to have everything` });
  }

  close() {
    this.#closed = true;
    this.socket.disconnect();
  }
}
