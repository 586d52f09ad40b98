// `message:send`, `message:edit`, `message:delete`.

import { conflict, forbidden, invalid, noMessage, noRoom } from './failure.mjs';
import { MESSAGE_COLUMNS, completeMessages, loadMessages, toMessage, withoutReceipts } from './message-rows.mjs';
import { KeyedQueue } from './queue.mjs';
import { chatRoom } from './rooms.mjs';
import { uuidV7 } from './uuid.mjs';
import * as check from './validate.mjs';

/** Messages that may wait for PostgreSQL: some seconds of a full load. */
const WAITING = 4_096;
/** Undoes a transaction whose message another one has stored meanwhile. */
const CLIENT_ID_TAKEN = Symbol('the clientId is taken');

export function createMessages(io, db, redis, config) {
  // A room's messages are stored and published one after the other, so they go out in the order of seq.
  const byRoom = new KeyedQueue(WAITING);
  const byMessage = new KeyedQueue(WAITING);
  let stored = 0;

  async function send({ userId }, payload) {
    const message = {
      id: uuidV7(),
      senderId: userId,
      roomId: check.id('roomId', payload.roomId),
      content: check.content(payload.content),
      clientId: check.optionalUuid('clientId', payload.clientId),
      messageType: check.messageType(payload.messageType),
      replyTo: check.optionalUuid('replyTo', payload.replyTo),
      metadata: check.metadata(payload.metadata),
    };
    return byRoom.run(message.roomId, async () => {
      let outcome;
      // Undefined: meanwhile someone stored the clientId in another room. The next round finds it.
      do outcome = await append(message); while (!outcome);
      if (outcome.isNew) {
        stored += 1;
        io.to(chatRoom(message.roomId)).emit('message:new', withoutReceipts(outcome.message));
      }
      return { message: outcome.message };
    });
  }

  /**
   * Stores a message under the lock of its room's row, which every server takes first: that makes
   * seq gapless and the time never run against it.
   */
  async function append(message) {
    const { roomId, senderId, clientId } = message;
    try {
      return await db.transaction(async (tx) => {
        const { rows: [room] } = await tx.query(
          'SELECT last_seq FROM rooms WHERE id = $1 FOR NO KEY UPDATE',
          [roomId],
        );
        if (!room) throw noRoom();
        const { rows: [{ members, present }] } = await tx.query(
          `SELECT count(*) AS members, bool_or(user_id = $2) AS present
           FROM room_members
           WHERE room_id = $1 AND left_at IS NULL`,
          [roomId, senderId],
        );
        if (!present) throw noRoom();
        const earlier = clientId && await earlierMessage(tx, message);
        if (earlier) return { isNew: false, message: earlier };
        await requireReply(tx, message);
        const row = await insert(tx, message, {
          seq: room.last_seq + 1,
          recipients: members - 1,
          receiptRows: members <= config.receiptRowsMaxMembers,
        });
        if (!row) throw CLIENT_ID_TAKEN;
        return { isNew: true, message: toMessage(row, [], { recipients: row.recipients, delivered: 0, read: 0 }) };
      });
    } catch (error) {
      if (error === CLIENT_ID_TAKEN) return undefined;
      throw error;
    }
  }

  async function change({ userId }, payload, { refusal, allowed, apply }) {
    const messageId = check.uuid('messageId', payload.messageId);
    return byMessage.run(messageId, async () => {
      const outcome = await db.transaction(async (tx) => {
        const { rows: [held] } = await tx.query(
          `SELECT m.sender_id, m.deleted_at, rm.role
           FROM messages m
           JOIN room_members rm ON rm.room_id = m.room_id AND rm.user_id = $2 AND rm.left_at IS NULL
           WHERE m.id = $1
           FOR NO KEY UPDATE OF m`,
          [messageId, userId],
        );
        if (!held) throw noMessage();
        if (!allowed(held)) throw forbidden(refusal);
        const changed = await apply(tx, messageId, held);
        const [message] = await loadMessages(tx, userId, [messageId]);
        return { changed, message };
      });
      const { changed, message } = outcome;
      if (changed) {
        // Others may have cached the room's newest messages.
        if (redis.isReady()) await redis.del(`room:${message.roomId}:cache`).catch(() => {});
        io.to(chatRoom(message.roomId)).emit('message:updated', withoutReceipts(message));
      }
      return message;
    });
  }

  async function edit(who, payload) {
    const content = check.content(payload.content);
    const message = await change(who, payload, {
      refusal: 'Only its sender can edit a message.',
      allowed: (held) => held.sender_id === who.userId,
      async apply(tx, id, held) {
        if (held.deleted_at) throw conflict('This message is deleted.');
        await tx.query(
          `UPDATE messages
           SET content = $2, edited_at = greatest(created_at, edited_at, $3)
           WHERE id = $1`,
          [id, content, new Date()],
        );
        return true;
      },
    });
    return { message };
  }

  /** Content, metadata and reactions are gone for good; the place in the room stays. */
  async function remove(who, payload) {
    await change(who, payload, {
      refusal: 'Only its sender, the owner and admins can delete a message.',
      allowed: (held) => held.sender_id === who.userId || held.role !== 'member',
      async apply(tx, id, held) {
        if (held.deleted_at) return false;
        await tx.query(
          `UPDATE messages
           SET content = '', metadata = '{}', deleted_at = greatest(created_at, $2)
           WHERE id = $1`,
          [id, new Date()],
        );
        await tx.query('DELETE FROM reactions WHERE message_id = $1', [id]);
        return true;
      },
    });
    return {};
  }

  return { send, edit, remove, stored: () => stored };
}

/** The message that the sender stored under this clientId before, as it is now. */
async function earlierMessage(tx, { senderId, clientId, roomId, content }) {
  const { rows } = await tx.query(
    `SELECT ${MESSAGE_COLUMNS} FROM messages m WHERE m.sender_id = $1 AND m.client_id = $2`,
    [senderId, clientId],
  );
  const [earlier] = await completeMessages(tx, senderId, rows);
  if (!earlier) return undefined;
  const isChanged = earlier.editedAt !== null || earlier.deletedAt !== null;
  if (earlier.roomId !== roomId || (!isChanged && earlier.content !== content)) {
    throw conflict('This clientId was used before, for another room or another content.');
  }
  return earlier;
}

async function requireReply(tx, { replyTo, roomId }) {
  if (replyTo === null) return;
  const { rowCount } = await tx.query('SELECT 1 FROM messages WHERE id = $1 AND room_id = $2', [replyTo, roomId]);
  if (rowCount === 0) throw invalid('replyTo', 'must be a message of the same room');
}

/** Inserts the message and a receipt row for each recipient, and moves the room on. Undefined when the clientId is taken. */
async function insert(tx, message, { seq, recipients, receiptRows }) {
  const { rows: [row] } = await tx.query(
    `WITH moment AS (
       SELECT greatest(last_activity_at, $9::timestamptz) AS at FROM rooms WHERE id = $2
     ),
     head AS (
       UPDATE rooms SET last_seq = $4::bigint, last_activity_at = moment.at FROM moment WHERE id = $2
     ),
     receipts AS (
       INSERT INTO message_receipts (message_id, user_id)
       SELECT $1::uuid, user_id
       FROM room_members
       WHERE room_id = $2 AND user_id <> $3 AND left_at IS NULL AND $12::bool
     )
     INSERT INTO messages AS m (
       id, room_id, sender_id, seq, content, message_type, client_id, reply_to,
       created_at, metadata, recipients, receipt_rows
     )
     SELECT $1::uuid, $2::int, $3::int, $4::bigint, $5, $6, $7::uuid, $8::uuid, moment.at, $10::jsonb, $11::int, $12::bool
     FROM moment
     ON CONFLICT (sender_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
     RETURNING ${MESSAGE_COLUMNS}`,
    [
      message.id, message.roomId, message.senderId, seq, message.content, message.messageType, message.clientId,
      message.replyTo, new Date(), JSON.stringify(message.metadata), recipients, receiptRows,
    ],
  );
  return row;
}
