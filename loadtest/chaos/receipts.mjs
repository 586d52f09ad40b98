// What a device says about what arrived: `message:delivered` in batches, acknowledged offline batches, `message:read`.
//
// Only what the server sent by itself is said to be delivered, never what room:sync brought: so all that it owes
// must come by itself, and the checker sees whether it did.

const DELIVERED_EVERY = [700, 1_500];
const READ_EVERY = [2_000, 5_000];
const BATCH = 100;
/** The rest at the end is said so often at most, if it is not acknowledged. */
const LAST_TRIES = 5;

export class Receipts {
  #member;
  #undelivered = new Map();
  #pushed = new Map();
  #timers = [];
  #running = new Set();
  #closed = false;

  constructor(member) {
    this.#member = member;
    for (const room of member.rooms) {
      this.#undelivered.set(room, new Set());
      this.#pushed.set(room, { through: 0, seqs: new Map() });
    }
    this.#every(DELIVERED_EVERY, () => this.#sayDelivered());
    if (member.reads) this.#every(READ_EVERY, () => this.#sayRead());
  }

  #every(range, run) {
    const slot = this.#timers.length;
    const next = () => {
      if (this.#closed) return;
      // The next one when this one is answered: a slow server is not asked ever more.
      this.#timers[slot] = setTimeout(() => {
        const saying = run().finally(() => { this.#running.delete(saying); next(); });
        this.#running.add(saying);
      }, this.#member.random.between(...range));
    };
    this.#timers.push(undefined);
    next();
  }

  #mine = ({ senderId }) => senderId === this.#member.user.id;

  #came({ roomId, seq, id }) {
    this.#pushed.get(roomId)?.seqs.set(seq, id);
  }

  arrived(message) {
    this.#came(message);
    if (!this.#mine(message)) this.#undelivered.get(message.roomId)?.add(message.id);
  }

  /** Nobody owes a sender its own messages: it may read past those that room:sync brought. */
  own(messages) {
    messages.filter(this.#mine).forEach((message) => this.#came(message));
  }

  offline(messages, acknowledge) {
    messages.forEach((message) => this.#came(message));
    this.#write('say', { what: 'offline', ids: messages.map(({ id }) => id) });
    acknowledge?.();
  }

  #write(kind, fields) {
    const { history, conn, name, user } = this.#member;
    return history.write(kind, { conn, device: name, user: user.id, ...fields });
  }

  async #sayDelivered() {
    const { conn } = this.#member;
    for (const [room, waiting] of this.#undelivered) {
      const ids = [...waiting].slice(0, BATCH);
      if (ids.length === 0 || !this.#member.online || this.#member.conn !== conn) continue;
      ids.forEach((id) => waiting.delete(id));
      this.#write('say', { what: 'delivered', ids });
      const answer = await this.#member.ask('message:delivered', { roomId: room, messageIds: ids });
      if (answer?.ok) this.#write('said', { conn, what: 'delivered', ids });
      // Said again on this connection or the next: it may be known or not.
      else ids.forEach((id) => waiting.add(id));
    }
  }

  /** Reads a room as far as the server brought everything by itself. */
  async #sayRead() {
    const { random, rooms, conn } = this.#member;
    const room = random.pick(rooms);
    const pushed = this.#pushed.get(room);
    while (pushed.seqs.has(pushed.through + 1)) pushed.through += 1;
    if (pushed.through === 0 || !this.#member.online) return;
    // Sometimes an old one: that changes nothing.
    const seq = random.chance(0.15) ? random.integer(1, pushed.through) : pushed.through;
    const { t: askedAt } = this.#write('say', { what: 'read', room, seq });
    const answer = await this.#member.ask('message:read', { roomId: room, messageId: pushed.seqs.get(seq) });
    if (answer?.ok) this.#write('said', { conn, what: 'read', room, seq: answer.lastReadSeq, asked: seq, askedAt });
  }

  get #waiting() {
    return [...this.#undelivered.values()].some((ids) => ids.size > 0);
  }

  /** Says what is left, and then nothing any more; answers when all of it is acknowledged. */
  async finish() {
    this.close();
    await Promise.all(this.#running);
    for (let tries = 0; tries < LAST_TRIES && this.#waiting && this.#member.online; tries += 1) await this.#sayDelivered();
  }

  close() {
    this.#closed = true;
    this.#timers.forEach((timer) => clearTimeout(timer));
  }
}
