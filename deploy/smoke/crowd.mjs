// Members who talk all the time, over every transport, and what they agree on at the end.

import { readFileSync } from 'node:fs';
import { sleep } from '../../crates/server/e2e/support/wait.mjs';
import { Member } from './member.mjs';

const TRANSPORTS = ['websocket', 'polling', 'upgrade'];

export class Crowd {
  #history;
  #talking = [];
  #stop = false;
  #count = 0;

  /** The users of a tokens file, with transports in turn. */
  static async gather(history, url, tokens, options) {
    const users = readFileSync(tokens, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const crowd = new Crowd(history, url, users, options);
    try {
      await Promise.all(crowd.members.map((member) => member.whenReady()));
    } catch (error) {
      crowd.close();
      throw error;
    }
    return crowd;
  }

  constructor(history, url, users, options) {
    this.#history = history;
    this.url = url;
    this.users = users;
    const rooms = new Map();
    for (const { userId, roomIds } of users) {
      for (const room of roomIds) rooms.set(room, [...(rooms.get(room) ?? []), userId]);
    }
    this.rooms = [...rooms.keys()];
    for (const [room, members] of rooms) history.record('room', { room, members });
    this.members = users.map((user, i) => new Member(history, user, { url, transport: TRANSPORTS[i % 3], options }));
  }

  /** Everybody sends about every `ms`, to their rooms in turn, until `hush`. */
  talk(ms = 400) {
    this.#stop = false;
    this.#talking = this.members.map(async (member, place) => {
      await sleep((place * ms) / this.members.length);
      for (let n = 0; !this.#stop; n += 1) {
        this.#count += 1;
        const room = member.user.roomIds[n % member.user.roomIds.length];
        await Promise.all([member.send(room, `${member.id} says ${this.#count}`), sleep(ms)]);
      }
    });
  }

  async hush() {
    this.#stop = true;
    await Promise.all(this.#talking);
  }

  /** So many messages are acknowledged from now on: traffic flows. */
  async flows(messages, until) {
    const acked = () => this.#history.events.filter(({ kind }) => kind === 'acked').length;
    const goal = acked() + messages;
    await until(() => acked() >= goal, { ms: 30_000, every: 50, what: `${messages} more acknowledgements` });
  }

  /** Reads what is stored, waits until everybody has it, and writes it down. */
  async settle() {
    const lastSeqs = new Map();
    const messages = [];
    for (const room of this.rooms) {
      const reader = this.users.find(({ roomIds }) => roomIds.includes(room));
      let after = 0;
      while (after !== null) {
        const answer = await fetch(`${this.url}/api/rooms/${room}/messages?after=${after}&limit=100`, {
          headers: { authorization: `Bearer ${reader.token}` }, signal: AbortSignal.timeout(20_000),
        });
        if (!answer.ok) throw new Error(`the history of room ${room}: ${answer.status}`);
        const page = await answer.json();
        messages.push(...page.messages);
        after = page.nextAfter;
      }
      lastSeqs.set(room, messages.at(-1)?.roomId === room ? messages.at(-1).seq : 0);
    }
    const mine = (member) => [...lastSeqs].filter(([room]) => member.user.roomIds.includes(room));
    await Promise.all(this.members.map((member) => member.settle(mine(member))));
    for (const { roomId: room, seq, id, clientId, senderId: sender, content } of messages) {
      this.#history.record('stored', { room, seq, id, clientId, sender, content });
    }
    this.#history.flush();
  }

  close() {
    this.members.forEach((member) => member.close());
  }
}
