// What is in PostgreSQL at the end of a run, and the watermarks meanwhile.

import { sleep } from './deps.mjs';

/** One view of everything: what changes while it is read is in all of it or in nothing. */
export async function finalState({ pool, people }) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    return await readAll(client, people);
  } finally {
    client.release(true);
  }
}

async function readAll(client, people) {
  const rows = async (query) => (await client.query(query)).rows;
  const messages = await rows('SELECT id, room_id AS room, seq::int AS seq, sender_id AS sender, client_id AS "clientId", content AS text FROM messages');
  const receipts = await rows(`SELECT message_id AS id, user_id AS "user", delivered_at IS NOT NULL AS delivered,
    read_at IS NOT NULL AS read FROM message_receipts`);
  const lastSeqs = new Map((await rows('SELECT id, last_seq::int AS seq FROM rooms')).map(({ id, seq }) => [id, seq]));
  return {
    rooms: people.rooms.map(({ id, members }) => ({ id, members, lastSeq: lastSeqs.get(id) })),
    messages,
    receipts,
    watermarks: await watermarks(client),
    devices: people.devices.map(({ name, user, conn, rooms, outbox }) => ({ name, user: user.id, conn: conn ?? null, rooms, waiting: outbox.waiting })),
  };
}

async function watermarks(db) {
  const { rows } = await db.query(`SELECT room_id AS room, user_id AS "user", last_delivered_seq::int AS delivered,
    last_read_seq::int AS read FROM room_members`);
  return rows;
}

/** Records the watermarks again and again; without PostgreSQL the next time. */
export async function watchWatermarks({ pool, history }, signal) {
  while (!signal.aborted) {
    try {
      history.write('watermarks', { marks: await watermarks(pool) });
    } catch { /* PostgreSQL is among what is restarted */ }
    await sleep(1_000);
  }
}

/** Whether every open connection was sent everything by itself, and every device has everything. */
export async function isComplete({ pool, people }) {
  const { rows } = await pool.query('SELECT id, last_seq::int AS seq FROM rooms');
  const lastSeqs = new Map(rows.map(({ id, seq }) => [id, seq]));
  return people.devices.filter(({ away }) => !away).every((device) => device.online && device.instance
    && device.rooms.every((room) => device.heads.get(room) === lastSeqs.get(room) && device.live.get(room) === lastSeqs.get(room)));
}
