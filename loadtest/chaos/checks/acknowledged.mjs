// Promises 1 and 2: what is acknowledged is stored as sent, and a clientId has one effect.

import { key, messagesOf } from './model.mjs';

const TEMPORARY = new Set(['unavailable', 'rate_limited']);

export function checkAcknowledged({ records, final, model, limits, violate }) {
  const texts = new Map();
  const answered = new Map();
  const effects = new Map();
  const effect = (sender, clientId, id) => {
    if (!clientId) return;
    const ids = effects.get(key(sender, clientId)) ?? new Set();
    effects.set(key(sender, clientId), ids.add(id));
  };
  for (const record of records) {
    if (record.kind === 'send' && !record.conflict) texts.set(key(record.user, record.clientId), record.text);
    if (record.kind === 'ack') {
      answered.set(key(record.conn, record.clientId, record.sentAt), record.t);
      if (record.ok) {
        effect(record.user, record.clientId, record.id);
        checkStored(record, texts);
      } else if (!TEMPORARY.has(record.code) && !(record.conflict && record.code === 'conflict')) {
        violate(1, 'refused', { code: record.code, clientId: record.clientId, conn: record.conn, t: record.t });
      }
    }
    for (const { sender, clientId, id } of messagesOf(record)) effect(sender, clientId, id);
  }
  for (const { sender, clientId, id } of final.messages) effect(sender, clientId, id);
  for (const [who, ids] of effects) if (ids.size > 1) violate(2, 'two-effects', { clientId: who, ids: [...ids] });
  // Those who are away at the end may come back and send the rest.
  for (const { name, conn, waiting } of final.devices) if (conn && waiting > 0) violate(1, 'never-acknowledged', { device: name, messages: waiting });
  checkAnswers();

  function checkStored(ack, sent) {
    const { id, room, seq, clientId, user, text, t } = ack;
    const row = model.byId.get(id);
    if (ack.conflict) return violate(2, 'conflict-accepted', { clientId, id, t });
    if (!row) return violate(1, 'acknowledged-lost', { id, room, seq, clientId, t });
    const expected = sent.get(key(user, clientId));
    if (row.room !== room || row.seq !== seq || row.clientId !== clientId || row.sender !== user || row.text !== expected || text !== expected) {
      violate(1, 'acknowledged-differs', { id, acknowledged: { room, seq, clientId, user, text }, stored: row, t });
    }
    return undefined;
  }

  /** On a connection that stays up, to an instance that is well, whatever happens to others. */
  function checkAnswers() {
    for (const { kind, conn, clientId, t } of records) {
      const connection = kind === 'send' && model.connections.get(conn);
      if (!connection) continue;
      const answer = answered.get(key(conn, clientId, t));
      const until = answer ?? connection.until;
      if (until - t > limits.answer && model.calm(t, until, connection) > limits.answer) {
        violate(1, answer === undefined ? 'unanswered' : 'answered-late', { conn, clientId, ms: Math.round(until - t), t });
      }
    }
  }
}
