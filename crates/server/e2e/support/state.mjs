// State + events = freshly read state.
//
// A `State` reads what its user sees over REST once, then follows the recording of the user's client.
// `assertFresh` reads everything again and compares. What no event tells is left out of the comparison:
// presence, profiles, and how far others have read beyond what `message:status` shows.

import assert from 'node:assert/strict';
import { answered, checkMessage, checkRoom } from './expect.mjs';
import { until } from './wait.mjs';

export class State {
  static async read(client) {
    const mark = client.mark();
    return new State(client, mark, await readRooms(client.user));
  }

  constructor(client, mark, rooms) {
    this.client = client;
    this.me = client.user.id;
    this.mark = mark;
    this.rooms = new Map(rooms.map((room) => [room.id, room]));
  }

  /** Compares as soon as the events that are under way have arrived. */
  async assertFresh() {
    await until(async () => {
      const fresh = await readRooms(this.client.user);
      await this.#follow();
      this.#compare(fresh);
      return true;
    }, { ms: 4_000, every: 50 });
  }

  async #follow() {
    const entries = this.client.log.slice(this.mark);
    this.mark += entries.length;
    for (const { event, payload, of, sent } of entries) {
      if (event === 'ack') this.#applyAck(of, sent, payload);
      else await this.#apply(event, payload);
    }
  }

  // A send's own acknowledgement may overtake the message:new of others: the broadcast adds it in order.
  #applyAck(event, sent, answer) {
    if (!answer.ok) return;
    if (event === 'message:edit') this.#replaceMessage(answer.message);
    if (event === 'message:read') this.#readUpTo(sent.roomId, answer.lastReadSeq);
  }

  async #apply(event, payload) {
    switch (event) {
      case 'message:new': return this.#addMessage(payload);
      case 'messages:offline': return payload.messages.forEach((message) => this.#addMessage(message));
      case 'message:updated': return this.#replaceMessage(payload);
      case 'message:status': return this.#applyStatus(payload);
      case 'room:new': return this.#addRoom(payload);
      case 'room:updated': return this.#updateRoom(payload);
      case 'room:removed': return this.rooms.delete(payload.roomId);
      case 'room:read': return this.#readUpTo(payload.roomId, payload.lastReadSeq);
      case 'sync:required': return assert.fail('one instance that is not overloaded needs no sync:required');
      default: return undefined;
    }
  }

  #addMessage(message) {
    const room = this.rooms.get(message.roomId);
    if (!room || message.seq <= room.lastSeq) return;
    assert.equal(message.seq, room.lastSeq + 1, `a gap in room ${room.id}`);
    room.messages.push(message);
    room.lastSeq = message.seq;
    if (message.senderId === this.me) {
      const recipients = room.members.length - 1;
      room.receipts.set(message.id, { recipients, delivered: new Set(), read: new Set(), base: { delivered: 0, read: 0 } });
    }
  }

  #replaceMessage(message) {
    const room = this.rooms.get(message.roomId);
    const place = room?.messages.findIndex(({ id }) => id === message.id) ?? -1;
    if (place >= 0) room.messages[place] = message;
  }

  #applyStatus({ roomId, messageIds, userId, status }) {
    const room = this.rooms.get(roomId);
    if (!room) return;
    for (const id of messageIds) {
      const receipts = room.receipts.get(id);
      assert.ok(receipts, 'message:status goes to the sender');
      receipts.delivered.add(userId);
      if (status === 'read') receipts.read.add(userId);
    }
    if (status === 'read') {
      const member = room.members.find((one) => one.userId === userId);
      const seqs = room.messages.filter(({ id }) => messageIds.includes(id)).map(({ seq }) => seq);
      if (member) member.lastReadSeq = Math.max(member.lastReadSeq, ...seqs);
    }
  }

  async #addRoom(payload) {
    checkRoom(payload, this.me);
    assert.ok(payload.members, 'room:new carries the members');
    // What was said before one came is no event: like any client, read it.
    const [room] = await readRooms(this.client.user, [payload.id]);
    const messages = room.messages.filter(({ seq }) => seq <= payload.lastSeq);
    this.rooms.set(payload.id, { ...room, ...payload, messages });
  }

  #updateRoom({ id, name, members }) {
    const room = this.rooms.get(id);
    assert.ok(room && members, 'room:updated goes to members and carries the members');
    Object.assign(room, { name, members });
  }

  #readUpTo(roomId, lastReadSeq) {
    const me = this.rooms.get(roomId)?.members.find(({ userId }) => userId === this.me);
    if (me) me.lastReadSeq = Math.max(me.lastReadSeq, lastReadSeq);
  }

  #compare(fresh) {
    assert.deepEqual(sorted(fresh.map(({ id }) => id)), sorted([...this.rooms.keys()]), 'the rooms');
    for (const read of fresh) this.#compareRoom(this.rooms.get(read.id), read);
    const activity = fresh.map(({ id }) => {
      const room = this.rooms.get(id);
      return room.messages.at(-1)?.createdAt ?? room.createdAt;
    });
    assert.deepEqual(activity, [...activity].sort().reverse(), 'the rooms come in the order of activity');
  }

  #compareRoom(held, read) {
    const label = `room ${read.id} of ${this.client.user.username}`;
    const mine = held.members.find(({ userId }) => userId === this.me);
    const unread = held.messages.filter(({ seq, senderId }) => seq > mine.lastReadSeq && senderId !== this.me);
    assert.deepEqual(
      { ...roomFacts(read), members: sortedMembers(read).map(memberFacts) },
      { ...roomFacts(held), members: sortedMembers(held).map(memberFacts), unreadCount: unread.length, lastMessage: messageFacts(held.messages.at(-1)) },
      label,
    );
    assert.deepEqual(read.messages.map(messageFacts), held.messages.map(messageFacts), `messages of ${label}`);
    for (const member of held.members) {
      const now = read.members.find(({ userId }) => userId === member.userId);
      if (member === mine) assert.equal(now.lastReadSeq, member.lastReadSeq, `own lastReadSeq in ${label}`);
      else assert.ok(now.lastReadSeq >= member.lastReadSeq, `lastReadSeq of ${member.username} in ${label}`);
    }
    for (const message of read.messages) {
      if (message.senderId === this.me) compareReceipts(held.receipts.get(message.id), message, label);
    }
  }
}

function compareReceipts({ recipients, delivered, read, base }, message, label) {
  const what = `receipts of message ${message.seq} in ${label}`;
  assert.equal(message.receipts.recipients, recipients, what);
  assert.equal(message.receipts.read, base.read + read.size, what);
  // Whoever had it before the first reading may be among those of the events.
  if (base.delivered === 0) assert.equal(message.receipts.delivered, delivered.size, what);
}

const sortedMembers = ({ members }) => [...members].sort((a, b) => a.userId - b.userId);

const sorted = (numbers) => [...numbers].sort((a, b) => a - b);

const roomFacts = ({ id, name, roomType, createdBy, createdAt, lastSeq, unreadCount, lastMessage }) => ({
  id, name, roomType, createdBy, createdAt, lastSeq, unreadCount, lastMessage: messageFacts(lastMessage),
});

const memberFacts = ({ userId, role, joinedAt }) => ({ userId, role, joinedAt });

function messageFacts(message) {
  if (!message) return null;
  const { receipts, ...facts } = message;
  return {
    ...facts,
    reactions: facts.reactions.map(({ emoji, userIds }) => ({ emoji, userIds: sorted(userIds) })),
  };
}

/** Everything that REST tells a user, in the order of GET /rooms. */
async function readRooms(user, ids) {
  const { rooms } = answered(await user.api.get('/rooms'));
  return Promise.all(rooms.filter(({ id }) => !ids || ids.includes(id)).map(async (listed) => {
    const [{ room }, messages] = await Promise.all([
      user.api.get(`/rooms/${listed.id}`).then(answered),
      readMessages(user, listed.id),
    ]);
    checkRoom(room, user.id);
    assert.deepEqual(roomFacts(listed), roomFacts(room), 'the list and the single answer tell the same');
    const receipts = new Map(messages.filter(({ senderId }) => senderId === user.id).map((message) => [message.id, {
      recipients: message.receipts.recipients,
      delivered: new Set(),
      read: new Set(),
      base: message.receipts,
    }]));
    return { ...room, messages, receipts };
  }));
}

async function readMessages(user, roomId) {
  const messages = [];
  let after = 0;
  do {
    const page = answered(await user.api.get(`/rooms/${roomId}/messages?after=${after}&limit=100`));
    messages.push(...page.messages);
    after = page.messages.length === 0 ? null : page.nextAfter;
  } while (after !== null);
  messages.forEach((message) => checkMessage(message, user.id));
  return messages;
}
