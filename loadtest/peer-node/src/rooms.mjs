// Who is in which room, and what a client missed there.

import { noRoom } from './failure.mjs';
import { MESSAGE_COLUMNS, completeMessages } from './message-rows.mjs';
import * as check from './validate.mjs';

const SYNC_ROOMS = 50;
const SYNC_MESSAGES = 100;

export const userRoom = (userId) => `user:${userId}`;
export const sessionRoom = (sessionId) => `session:${sessionId}`;
export const chatRoom = (roomId) => `room:${roomId}`;

export function createRooms(db) {
  /** `[{roomId, lastSeq, lastReadSeq}]` */
  async function memberships(userId) {
    const { rows } = await db.query(
      `SELECT rm.room_id AS "roomId", r.last_seq AS "lastSeq", rm.last_read_seq AS "lastReadSeq"
       FROM room_members rm
       JOIN rooms r ON r.id = rm.room_id
       WHERE rm.user_id = $1 AND rm.left_at IS NULL
       ORDER BY rm.room_id`,
      [userId],
    );
    return rows;
  }

  /**
   * Joins the socket to its rooms and answers the memberships as they are after that, so that
   * everything above their `lastSeq` comes live.
   */
  async function enter(socket) {
    const { userId, sessionId } = socket.data;
    const join = (names) => {
      // One that closed meanwhile would never be taken out of the rooms again.
      if (!socket.connected) throw new Error('the socket closed while it was set up');
      socket.join(names);
    };
    join([userRoom(userId), sessionRoom(sessionId)]);
    const joined = (await memberships(userId)).map(({ roomId }) => roomId);
    join(joined.map(chatRoom));
    const current = await memberships(userId);
    // Who was added or removed between the two readings was told before this socket was there.
    const now = new Set(current.map(({ roomId }) => roomId));
    joined.filter((roomId) => !now.has(roomId)).forEach((roomId) => socket.leave(chatRoom(roomId)));
    join([...now].map(chatRoom));
    return current;
  }

  async function requireMember(userId, roomId) {
    const { rowCount } = await db.query(
      'SELECT 1 FROM room_members WHERE room_id = $1 AND user_id = $2 AND left_at IS NULL',
      [roomId, userId],
    );
    if (rowCount === 0) throw noRoom();
  }

  /** `room:sync`: at most 100 messages a room, in the order of the request, foreign rooms left out. */
  async function sync({ userId }, payload) {
    const wanted = check.list('rooms', payload.rooms, SYNC_ROOMS, (field, item) => ({
      roomId: check.id(`${field}.roomId`, item?.roomId),
      afterSeq: check.afterSeq(`${field}.afterSeq`, item?.afterSeq),
    }));
    const from = new Map();
    for (const { roomId, afterSeq } of wanted) if (!from.has(roomId)) from.set(roomId, afterSeq);
    const heads = new Map((await memberships(userId)).map(({ roomId, lastSeq }) => [roomId, lastSeq]));
    const rooms = [...from].filter(([roomId]) => heads.has(roomId));
    const { rows } = await db.query(
      `SELECT ${MESSAGE_COLUMNS}
       FROM unnest($1::int[], $2::bigint[]) AS f (room_id, after_seq)
       CROSS JOIN LATERAL (
         SELECT *
         FROM messages n
         WHERE n.room_id = f.room_id AND n.seq > f.after_seq
         ORDER BY n.seq
         LIMIT $3
       ) AS m
       ORDER BY m.room_id, m.seq`,
      [rooms.map(([roomId]) => roomId), rooms.map(([, afterSeq]) => afterSeq), SYNC_MESSAGES],
    );
    const found = await completeMessages(db, userId, rows);
    return {
      rooms: rooms.map(([roomId, afterSeq]) => {
        const messages = found.filter((message) => message.roomId === roomId);
        const newest = messages.at(-1)?.seq ?? afterSeq;
        // What was stored between the two statements counts.
        const lastSeq = messages.length > 0 ? Math.max(heads.get(roomId), newest) : heads.get(roomId);
        return { roomId, messages, lastSeq, more: newest < lastSeq };
      }),
    };
  }

  return { enter, requireMember, sync };
}
