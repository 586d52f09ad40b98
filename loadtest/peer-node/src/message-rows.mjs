// From rows of `messages` to the contract's Message.

import { iso } from './database.mjs';

export const MESSAGE_COLUMNS = `
  m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type, m.created_at, m.edited_at, m.deleted_at,
  m.client_id, m.reply_to, m.metadata, m.recipients, m.receipt_rows`;

/** Messages by id, in the given order, as the viewer may see them; unknown ones are left out. */
export async function loadMessages(db, viewer, ids) {
  const { rows } = await db.query(`SELECT ${MESSAGE_COLUMNS} FROM messages m WHERE m.id = ANY($1)`, [ids]);
  const byId = new Map(rows.map((row) => [row.id, row]));
  return completeMessages(db, viewer, ids.flatMap((id) => byId.get(id) ?? []));
}

/** Completes rows with reactions and, on the viewer's own messages, with receipts. */
export async function completeMessages(db, viewer, rows) {
  const reactions = await reactionsOf(db, rows);
  const receipts = await receiptsOf(db, rows.filter((row) => row.sender_id === viewer));
  return rows.map((row) => toMessage(row, reactions.get(row.id) ?? [], receipts.get(row.id)));
}

export function toMessage(row, reactions, receipts) {
  return {
    id: row.id,
    roomId: row.room_id,
    senderId: row.sender_id,
    seq: row.seq,
    content: row.content,
    messageType: row.message_type,
    createdAt: iso(row.created_at),
    editedAt: iso(row.edited_at),
    deletedAt: iso(row.deleted_at),
    clientId: row.client_id,
    replyTo: row.reply_to,
    metadata: row.metadata,
    reactions,
    ...(receipts && { receipts }),
  };
}

/** As everybody may see it: receipts are the sender's alone. */
export function withoutReceipts({ receipts, ...message }) {
  return message;
}

async function reactionsOf(db, rows) {
  const found = new Map();
  const ids = rows.filter((row) => row.deleted_at === null).map((row) => row.id);
  if (ids.length === 0) return found;
  const reactions = await db.query(
    `SELECT message_id, emoji, user_id
     FROM reactions
     WHERE message_id = ANY($1)
     ORDER BY created_at, user_id, emoji`,
    [ids],
  );
  for (const { message_id: id, emoji, user_id: userId } of reactions.rows) {
    if (!found.has(id)) found.set(id, []);
    const reaction = found.get(id).find((one) => one.emoji === emoji);
    if (reaction) reaction.userIds.push(userId);
    else found.get(id).push({ emoji, userIds: [userId] });
  }
  return found;
}

async function receiptsOf(db, rows) {
  const found = new Map(rows.map((row) => [row.id, { recipients: row.recipients, delivered: 0, read: 0 }]));
  const count = async (ids, text) => {
    if (ids.length === 0) return;
    const { rows: counts } = await db.query(text, [ids]);
    for (const { id, delivered, read } of counts) Object.assign(found.get(id), { delivered, read });
  };
  await count(
    rows.filter((row) => row.receipt_rows).map((row) => row.id),
    `SELECT message_id AS id, count(delivered_at) AS delivered, count(read_at) AS read
     FROM message_receipts
     WHERE message_id = ANY($1)
     GROUP BY message_id`,
  );
  // Large rooms have watermarks only. A stay counts for what was sent after it began.
  await count(
    rows.filter((row) => !row.receipt_rows).map((row) => row.id),
    `SELECT
       m.id,
       count(DISTINCT rm.user_id) FILTER (WHERE rm.last_delivered_seq >= m.seq) AS delivered,
       count(DISTINCT rm.user_id) FILTER (WHERE rm.last_read_seq >= m.seq) AS read
     FROM messages m
     JOIN room_members rm
       ON rm.room_id = m.room_id AND rm.user_id <> m.sender_id AND rm.joined_seq < m.seq
     WHERE m.id = ANY($1)
     GROUP BY m.id`,
  );
  return found;
}
