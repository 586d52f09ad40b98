// What a device has to send, kept until the server acknowledged it; sent again with the same clientId.
//
// Style `one`: the next message of a room goes when the one before is acknowledged, so the room must have them in
// the order of the outbox, whatever happens. Style `pipelined`: several are on their way at once, and what was
// sent once on one connection must be stored in the order sent.

import { randomUUID } from 'node:crypto';

/** Messages that wait in one room; more are not made, as a person stops typing into a dead window. */
const WAITING_MAX = 15;
const WINDOW = { one: 1, pipelined: 8 };
/** Without an answer for so long, a message goes again. */
const ANSWER_TIMEOUT = 20_000;
const AGAIN_AFTER = [200, 900];
const TEMPORARY = new Set(['unavailable', 'rate_limited']);
/** How often what is acknowledged is sent once more, at once from the other device, or with another content. */
const CHANCE = { repeat: 0.02, twin: 0.05, conflict: 0.004 };

export class Outbox {
  #member;
  #rooms = new Map();
  #timers = new Set();
  #closed = false;

  constructor(member) {
    this.#member = member;
    for (const room of member.rooms) this.#rooms.set(room, { items: [], count: 0 });
    /** Another device of the user, if there is one. */
    this.twin = undefined;
    this.skipped = 0;
  }

  /** Messages that no acknowledgement came for yet. */
  get waiting() {
    return [...this.#rooms.values()].reduce((sum, { items }) => sum + items.length, 0);
  }

  /** A new message in one of the rooms. */
  say(room) {
    const queue = this.#rooms.get(room);
    if (queue.items.length >= WAITING_MAX) {
      this.skipped += 1;
      return;
    }
    queue.count += 1;
    const { name, random } = this.#member;
    const text = `${name} in ${room}, ${queue.count}${random.chance(0.05) ? ` ${'ü'.repeat(random.integer(1, 300))}` : ''}`;
    const item = { room, clientId: randomUUID(), text, n: queue.count, attempts: 0, conn: undefined, notBefore: 0 };
    queue.items.push(item);
    this.pump();
    if (this.twin?.online && random.chance(CHANCE.twin)) this.twin.outbox.once(item);
  }

  /** Sends what may be sent now. */
  pump() {
    const { socket, style, conn } = this.#member;
    if (this.#closed || conn === undefined || !socket.connected) return;
    for (const { items } of this.#rooms.values()) {
      let flying = items.filter((item) => item.conn).length;
      for (const item of items) {
        if (flying >= WINDOW[style]) break;
        if (item.conn) continue;
        // What waits for its time holds up those behind it: they are later in the order.
        if (item.notBefore > performance.now()) break;
        this.#send(item);
        flying += 1;
      }
    }
  }

  #send(item) {
    const { conn } = this.#member;
    item.conn = conn;
    item.attempts += 1;
    const attempt = item.attempts;
    const timer = this.#later(ANSWER_TIMEOUT, () => {
      if (item.conn === conn && item.attempts === attempt) this.#again(item, 0);
    });
    this.#emit(item, item.text, {}, (answer) => {
      this.#cancel(timer);
      if (answer.ok) this.#done(item);
      else if (item.conn !== conn || item.attempts !== attempt) return;
      else if (TEMPORARY.has(answer.error?.code)) {
        this.#again(item, answer.error.retryAfterMs ?? this.#member.random.between(...AGAIN_AFTER));
      } else this.#done(item, false);
    });
  }

  #again(item, ms) {
    item.conn = undefined;
    item.notBefore = performance.now() + ms;
    this.#later(ms + 5, () => this.pump());
  }

  #done(item, acknowledged = true) {
    const queue = this.#rooms.get(item.room);
    const place = queue.items.indexOf(item);
    if (place < 0) return;
    queue.items.splice(place, 1);
    this.pump();
    const { random } = this.#member;
    if (!acknowledged) return;
    if (random.chance(CHANCE.repeat)) this.#later(random.between(100, 8_000), () => this.once(item));
    if (random.chance(CHANCE.conflict)) this.#later(random.between(100, 3_000), () => this.#conflict(item));
  }

  /** Sends what another attempt cares for, and only records the answer. */
  once(item) {
    if (!this.#closed && this.#member.online) this.#emit(item, item.text, { extra: true });
  }

  #conflict(item) {
    if (!this.#closed && this.#member.online) this.#emit(item, `${item.text}, but not the same`, { conflict: true });
  }

  #emit({ room, clientId, n }, text, more, then = () => {}) {
    const { history, socket, user, name, conn, style } = this.#member;
    const what = { conn, device: name, user: user.id, room, clientId, ...more };
    const { t: sentAt } = history.write('send', { ...what, text, n, style });
    socket.emit('message:send', { roomId: room, content: text, clientId }, (answer) => {
      const { message, error } = answer;
      history.write('ack', {
        ...what, ok: answer.ok, code: error?.code, id: message?.id, seq: message?.seq, text: message?.content, sentAt,
      });
      then(answer);
    });
  }

  /** The connection is gone, and with it every answer that it owed. */
  interrupted() {
    for (const { items } of this.#rooms.values()) items.forEach((item) => { item.conn = undefined; });
  }

  #later(ms, run) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }

  close() {
    this.#closed = true;
    this.#timers.forEach((timer) => clearTimeout(timer));
  }
}
