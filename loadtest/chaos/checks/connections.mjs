// Promises 3 and 4, for each connection by itself: what the server sent there without being asked.
//
// `session:ready` says how far each room was. From there on `message:new` must bring every seq, ascending, each once,
// none later than the server has time to mend, unless `sync:required` told of it.

import { messagesOf, place } from './model.mjs';

export function checkConnections(context) {
  for (const connection of context.model.connections.values()) checkConnection(context, connection);
}

function checkConnection({ model, limits, violate }, connection) {
  const { conn, instance, ready, events, until, open } = connection;
  const expected = new Map();
  const had = new Set();
  const lastOffline = new Map();
  const told = events.filter(({ kind }) => kind === 'sync:required');
  const isTold = (room, seq, t) => told.some((record) => record.t <= t + limits.heal
    && record.rooms.some(({ roomId, lastSeq }) => roomId === room && lastSeq >= seq));

  for (const event of events) {
    if (event.kind === 'ready') {
      for (const [room, { lastSeq }] of Object.entries(event.rooms)) expected.set(Number(room), lastSeq + 1);
    }
    if (event.kind === 'offline') event.messages.forEach((message) => hearOffline(message, event.t));
    if (event.kind === 'new') hear(event);
    if (event.kind !== 'sync') messagesOf(event).forEach((message) => same(message, event.t));
  }
  if (ready) for (const [room, seq] of expected) checkTail(room, seq);

  function once({ room, seq, id }, t) {
    if (had.has(id)) violate(3, 'repeat-on-connection', { conn, room, seq, id, t });
    had.add(id);
  }

  function hearOffline(message, t) {
    once(message, t);
    const before = lastOffline.get(message.room) ?? 0;
    if (message.seq <= before) violate(3, 'offline-order', { conn, room: message.room, after: before, seq: message.seq, t });
    lastOffline.set(message.room, message.seq);
  }

  function hear({ room, seq, id, t }) {
    const next = expected.get(room);
    if (next === undefined) return violate(3, 'before-ready', { conn, room, seq, t });
    const repeated = had.has(id);
    once({ room, seq, id }, t);
    if (seq < next) {
      if (!repeated) violate(3, 'out-of-order', { conn, room, expected: next, seq, t });
      return undefined;
    }
    if (seq > next && !isTold(room, seq - 1, t)) violate(4, 'gap-on-connection', { conn, room, from: next, through: seq - 1, t });
    expected.set(room, seq + 1);
    const since = Math.max(model.stored.get(id) ?? t, ready.t);
    if (t - since > limits.heal && model.calm(since, t, connection) > limits.heal) {
      violate(4, 'late', { conn, room, seq, ms: Math.round(t - since), t });
    }
    return undefined;
  }

  /** What came to others, and never here. */
  function checkTail(room, seq) {
    const message = model.byPlace.get(place(room, seq));
    const stored = message && model.stored.get(message.id);
    if (stored === undefined || isTold(room, seq, until)) return;
    const since = Math.max(stored, ready.t);
    // The run waits for this at its end.
    if (open || model.calm(since, until, { instance }) > limits.heal) {
      violate(4, 'silent-gap', { conn, instance, room, from: seq, stored, until, open });
    }
  }

  function same(message, t) {
    const row = model.byId.get(message.id);
    if (!row) return violate(1, 'received-not-stored', { conn, id: message.id, room: message.room, seq: message.seq, t });
    const differs = ['room', 'seq', 'sender', 'clientId', 'text'].filter((field) => row[field] !== message[field]);
    if (differs.length > 0) violate(3, 'received-differs', { conn, id: message.id, differs, t });
    return undefined;
  }
}
