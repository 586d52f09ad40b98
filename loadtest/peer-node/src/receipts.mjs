// `message:delivered`, `message:read`.
//
// A message either has a row in `message_receipts` for each recipient or none at all
// (`messages.receipt_rows`); then the watermarks of `room_members` tell. Each transaction locks the
// user's membership first, as every server does, so two of one user come one after the other.

import { notFound, noRoom } from './failure.mjs';
import { userRoom } from './rooms.mjs';
import * as check from './validate.mjs';

const DELIVERED_IDS = 100;
/** Messages without rows that are named for each sender: the newest. Older ones count all the same. */
const NAMED = 200;

export function createReceipts(io, db, config) {
  function tellSenders(userId, roomId, progress, status, at) {
    for (const [senderId, messageIds] of progress) {
      io.to(userRoom(senderId)).emit('message:status', { roomId, messageIds, userId, status, at: at.toISOString() });
    }
  }

  /** These messages arrived at a client of the user. */
  async function markDelivered(userId, roomId, ids) {
    const at = new Date();
    const progress = await db.transaction(async (tx) => {
      const stay = await holdStay(tx, userId, roomId);
      if (!stay) throw noRoom();
      return deliver(tx, { userId, roomId, ids, at, stay });
    });
    tellSenders(userId, roomId, progress, 'delivered', at);
  }

  async function deliver(tx, { userId, roomId, ids, at, stay }) {
    const progress = new Progress();
    const { rows: given } = await tx.query(
      'SELECT id, seq, receipt_rows FROM messages WHERE id = ANY($1) AND room_id = $2 AND sender_id <> $3',
      [ids, roomId, userId],
    );
    if (given.length === 0) return progress.bySender();
    const highest = Math.max(...given.map(({ seq }) => seq));
    const { rows: [{ members }] } = await tx.query(
      'SELECT count(*) AS members FROM room_members WHERE room_id = $1 AND left_at IS NULL',
      [roomId],
    );
    const isLarge = members > config.receiptRowsMaxMembers;

    progress.add(await tx.query(
      `UPDATE message_receipts r
       SET delivered_at = $4
       FROM messages m
       WHERE m.id = r.message_id
         AND m.room_id = $1
         AND r.user_id = $2
         AND r.delivered_at IS NULL
         AND r.message_id = ANY($3)
       RETURNING m.id, m.sender_id, m.seq`,
      [roomId, userId, given.filter((row) => row.receipt_rows).map((row) => row.id), at],
    ));
    let upto = stay.delivered;
    if (isLarge) {
      // It means everything up to the highest: also what was sent while the room was small.
      progress.add(await tx.query(
        `UPDATE message_receipts r
         SET delivered_at = $4
         FROM messages m
         WHERE m.id = r.message_id
           AND m.room_id = $1
           AND m.seq <= $3
           AND r.user_id = $2
           AND r.delivered_at IS NULL
         RETURNING m.id, m.sender_id, m.seq`,
        [roomId, userId, highest, at],
      ));
      upto = Math.max(upto, highest);
    } else {
      upto = Math.max(upto, ...given.filter((row) => !row.receipt_rows).map((row) => row.seq));
      // Messages with rows move the watermark too, but not past one without, whose only mark it is.
      const { rows: [{ seq: firstWithout }] } = await tx.query(
        `SELECT min(seq) AS seq
         FROM messages
         WHERE room_id = $1 AND seq > $2 AND seq <= $3 AND sender_id <> $4 AND NOT receipt_rows`,
        [roomId, upto, highest, userId],
      );
      upto = Math.max(upto, firstWithout === null ? highest : firstWithout - 1);
    }
    progress.add(await withoutRows(tx, userId, roomId, stay.delivered, upto));
    if (upto > stay.delivered) {
      await tx.query('UPDATE room_members SET last_delivered_seq = $2 WHERE id = $1', [stay.id, upto]);
    }
    return progress.bySender();
  }

  /** Everything up to the message is read, and delivered too, except what is in `held`: that is still to be sent. */
  async function markRead(userId, roomId, messageId, held) {
    const at = new Date();
    const outcome = await db.transaction(async (tx) => {
      const stay = await holdStay(tx, userId, roomId);
      const found = stay && await findRead(tx, { userId, roomId, messageId, held });
      if (!found) throw notFound('There is no such message in a room that you are in.');
      return read(tx, { userId, roomId, held, at, stay, found });
    });
    tellSenders(userId, roomId, outcome.progress, 'read', at);
    return outcome;
  }

  return {
    markDelivered,

    async delivered({ userId }, payload) {
      const roomId = check.id('roomId', payload.roomId);
      const messageIds = check.list('messageIds', payload.messageIds, DELIVERED_IDS, check.uuid);
      await markDelivered(userId, roomId, messageIds);
      return { roomId, messageIds };
    },

    /** `heldOf(roomId)`: what an offline delivery has still to send to this socket. */
    async read(socket, payload, heldOf) {
      const { userId } = socket.data;
      const roomId = check.id('roomId', payload.roomId);
      const messageId = check.uuid('messageId', payload.messageId);
      const { lastReadSeq, hasAdvanced } = await markRead(userId, roomId, messageId, heldOf(roomId));
      if (hasAdvanced) io.to(userRoom(userId)).except(socket.id).emit('room:read', { roomId, lastReadSeq });
      return { lastReadSeq };
    },
  };
}

async function holdStay(tx, userId, roomId) {
  const { rows } = await tx.query(
    `SELECT id, joined_seq AS joined, last_delivered_seq AS delivered, last_read_seq AS read
     FROM room_members
     WHERE room_id = $1 AND user_id = $2 AND left_at IS NULL
     FOR NO KEY UPDATE`,
    [roomId, userId],
  );
  return rows[0];
}

async function findRead(tx, { userId, roomId, messageId, held }) {
  const { rows } = await tx.query(
    `SELECT
       m.seq,
       (SELECT min(h.seq) FROM messages h WHERE h.id = ANY($3) AND h.room_id = $2) AS lowest_held,
       (
         SELECT min(f.joined_seq)
         FROM room_members f
         WHERE f.room_id = $2 AND f.user_id = $4 AND f.left_at IS NOT NULL
       ) AS first_joined
     FROM messages m
     WHERE m.id = $1 AND m.room_id = $2`,
    [messageId, roomId, held, userId],
  );
  return rows[0];
}

async function read(tx, { userId, roomId, held, at, stay, found }) {
  const progress = new Progress();
  const upto = found.seq;
  // Up to the watermark all is read already. Only who returned and has not read since may have left
  // something unread behind.
  const hasReturned = found.first_joined !== null && stay.read === stay.joined;
  const above = hasReturned ? found.first_joined : stay.read;
  if (above < upto) {
    progress.add(await tx.query(
      `UPDATE message_receipts r
       SET read_at = $5,
           delivered_at = CASE
             WHEN r.message_id = ANY($6) THEN r.delivered_at
             ELSE coalesce(r.delivered_at, $5)
           END
       FROM messages m
       WHERE m.id = r.message_id
         AND m.room_id = $1
         AND m.seq > $3
         AND m.seq <= $4
         AND m.receipt_rows
         AND r.user_id = $2
         AND r.read_at IS NULL
       RETURNING m.id, m.sender_id, m.seq`,
      [roomId, userId, above, upto, at, held],
    ));
  }
  // Read while they were held, by an earlier call, and not held any more.
  await tx.query(
    `UPDATE message_receipts r
     SET delivered_at = $4
     FROM messages m
     WHERE m.id = r.message_id
       AND m.room_id = $1
       AND m.seq <= $3
       AND r.user_id = $2
       AND r.delivered_at IS NULL
       AND NOT r.message_id = ANY($5)`,
    [roomId, userId, upto, at, held],
  );
  progress.add(await withoutRows(tx, userId, roomId, stay.read, upto));
  const lastReadSeq = Math.max(stay.read, upto);
  const belowHeld = found.lowest_held === null ? upto : Math.min(upto, found.lowest_held - 1);
  const delivered = Math.max(stay.delivered, belowHeld);
  const hasAdvanced = lastReadSeq > stay.read;
  if (hasAdvanced || delivered > stay.delivered) {
    await tx.query(
      'UPDATE room_members SET last_read_seq = $2, last_delivered_seq = $3 WHERE id = $1',
      [stay.id, lastReadSeq, delivered],
    );
  }
  return { lastReadSeq, hasAdvanced, progress: progress.bySender() };
}

/** Others' messages without rows in `(above, upto]`: the newest of each sender. */
function withoutRows(tx, userId, roomId, above, upto) {
  if (above >= upto) return { rows: [] };
  return tx.query(
    `SELECT n.id, n.sender_id, n.seq
     FROM (
       SELECT
         m.id, m.sender_id, m.seq,
         row_number() OVER (PARTITION BY m.sender_id ORDER BY m.seq DESC) AS place
       FROM messages m
       WHERE m.room_id = $1 AND m.seq > $2 AND m.seq <= $3 AND m.sender_id <> $4 AND NOT m.receipt_rows
     ) AS n
     WHERE n.place <= $5`,
    [roomId, above, upto, userId, NAMED],
  );
}

/** Collects messages that came further, to be told to their senders. */
class Progress {
  #rows = [];

  add({ rows }) {
    this.#rows.push(...rows);
  }

  /** Sender → message ids in the order of seq. */
  bySender() {
    const senders = new Map();
    for (const { id, sender_id: sender } of this.#rows.sort((a, b) => a.seq - b.seq)) {
      if (!senders.has(sender)) senders.set(sender, []);
      senders.get(sender).push(id);
    }
    return senders;
  }
}
