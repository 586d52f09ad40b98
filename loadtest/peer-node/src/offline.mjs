// `messages:offline`: what was undelivered when the connection began, each message once, oldest first.

import { setTimeout as sleep } from 'node:timers/promises';
import { loadMessages } from './message-rows.mjs';

const BATCH = 50;
/** Between two batches, at least. */
const PACE_MS = 100;
/** A client that never acknowledges gets the next batch after this. */
const PATIENCE_MS = 2_000;
/** An acknowledgement counts so long, though the next batch went out. */
const LATE_MS = 60_000;
/** Ids held in memory for one delivery; beyond, the next are read when these are sent. */
const CHUNK = 10_000;

const UNDELIVERED = `
  SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at) AS at
  FROM message_receipts r
  JOIN messages m ON m.id = r.message_id
  JOIN room_members rm ON rm.room_id = m.room_id AND rm.user_id = r.user_id AND rm.left_at IS NULL
  WHERE r.user_id = $1 AND r.delivered_at IS NULL
  UNION ALL
  SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at) AS at
  FROM room_members rm
  JOIN messages m
    ON m.room_id = rm.room_id
   AND m.seq > rm.last_delivered_seq
   AND m.sender_id <> rm.user_id
   AND NOT m.receipt_rows
  WHERE rm.user_id = $1 AND rm.left_at IS NULL`;

/** The delivery of one socket. `rooms` is where the rooms stood when the connection began. */
export class OfflineDelivery {
  #chat;
  #socket;
  #heads;
  #waiting = [];
  /** Undelivered in the database beyond `#waiting`, and where they begin. */
  #beyond = 0;
  #cursor;
  /** Sent and not acknowledged: message id → room id. */
  #sent = new Map();
  #acknowledged = () => {};

  constructor(chat, socket, rooms) {
    this.#chat = chat;
    this.#socket = socket;
    // What is newer comes as `message:new`.
    this.#heads = new Map(rooms.map(({ roomId, lastSeq }) => [roomId, lastSeq]));
  }

  /** Messages of the room that are still to be sent: reading past them does not mean that they arrived. */
  held(roomId) {
    const waiting = this.#waiting.filter((item) => item.room_id === roomId).map((item) => item.id);
    const sent = [...this.#sent].filter(([, room]) => room === roomId).map(([id]) => id);
    return waiting.concat(sent);
  }

  /** The client said that these arrived. The next batch may follow when nothing else is awaited. */
  acknowledge(roomId, ids) {
    const before = this.#sent.size;
    for (const id of ids) if (this.#sent.get(id) === roomId) this.#sent.delete(id);
    if (before > 0 && this.#sent.size === 0) this.#acknowledged();
  }

  /** Looks up what the user missed. */
  async prepare() {
    await this.#readChunk();
    if (!this.#cursor) return;
    const { rows: [{ all }] } = await this.#chat.db.query(
      `SELECT count(*) AS all FROM (${UNDELIVERED}) AS u`,
      [this.#socket.data.userId],
    );
    this.#beyond = Math.max(0, all - this.#waiting.length);
  }

  async run() {
    for (let batch = 1; this.#socket.connected;) {
      if (this.#waiting.length === 0 && this.#cursor) {
        await this.#readChunk();
        this.#beyond = this.#cursor ? Math.max(0, this.#beyond - CHUNK) : 0;
        continue;
      }
      const taken = this.#waiting.splice(0, BATCH);
      if (taken.length === 0) return;
      for (const { id, room_id: roomId } of taken) this.#sent.set(id, roomId);
      const messages = await this.#load(taken);
      if (messages.length === 0) continue;
      const payload = { messages, batch, remaining: this.#waiting.length + this.#beyond };
      batch += 1;
      if (await this.#send(payload)) await sleep(PACE_MS);
    }
  }

  async #readChunk() {
    const cursor = this.#cursor;
    const { rows } = await this.#chat.db.query(
      `SELECT u.id, u.room_id, u.seq, u.at
       FROM (${UNDELIVERED}) AS u
       WHERE $2::timestamptz IS NULL OR (u.at, u.room_id, u.seq) > ($2, $3::int, $4::bigint)
       ORDER BY u.at, u.room_id, u.seq
       LIMIT $5`,
      [this.#socket.data.userId, cursor?.at ?? null, cursor?.room_id ?? null, cursor?.seq ?? null, CHUNK],
    );
    this.#cursor = rows.length >= CHUNK ? rows.at(-1) : undefined;
    this.#waiting = rows.filter((row) => row.seq <= (this.#heads.get(row.room_id) ?? 0));
  }

  /** The messages of a batch, without those of rooms that the user has left meanwhile. */
  async #load(taken) {
    const { db } = this.#chat;
    const { userId } = this.#socket.data;
    const { rows } = await db.query(
      'SELECT room_id FROM room_members WHERE user_id = $1 AND left_at IS NULL AND room_id = ANY($2)',
      [userId, [...new Set(taken.map((item) => item.room_id))]],
    );
    const rooms = new Set(rows.map((row) => row.room_id));
    const messages = await loadMessages(db, userId, taken.filter((item) => rooms.has(item.room_id)).map((item) => item.id));
    const loaded = new Set(messages.map(({ id }) => id));
    for (const { id } of taken) if (!loaded.has(id)) this.#sent.delete(id);
    return messages;
  }

  /** Sends a batch, and waits until it is acknowledged in one way or the other: false after 2 s without. */
  async #send(payload) {
    const socket = this.#socket;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, PATIENCE_MS, false);
      const finish = () => {
        clearTimeout(timer);
        socket.off('disconnect', finish);
        resolve(true);
      };
      this.#acknowledged = finish;
      socket.once('disconnect', finish);
      socket.timeout(LATE_MS).emit('messages:offline', payload, (late) => {
        // A failure leaves the batch undelivered: it comes again with the next connection.
        if (!late) this.#arrived(payload.messages).catch((error) => this.#chat.log('offline delivery:', error.message));
      });
    });
  }

  async #arrived(messages) {
    const { receipts } = this.#chat;
    for (const roomId of new Set(messages.map((message) => message.roomId))) {
      const ids = messages.filter((message) => message.roomId === roomId).map(({ id }) => id);
      await receipts.markDelivered(this.#socket.data.userId, roomId, ids).catch((error) => {
        // Left the room since: nothing to mark.
        if (error.code !== 'not_found') throw error;
      });
      this.acknowledge(roomId, ids);
    }
    this.#acknowledged();
  }
}
