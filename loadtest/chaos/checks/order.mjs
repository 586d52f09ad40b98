// Promise 3: a room's numbers have no gap and no repeat, and what one socket sends is stored in that order.

import { key } from './model.mjs';

export function checkOrder({ records, final, violate }) {
  for (const room of final.rooms) {
    const seqs = final.messages.filter((message) => message.room === room.id).map(({ seq }) => seq).sort((a, b) => a - b);
    seqs.forEach((seq, i) => {
      const expected = i === 0 ? 1 : seqs[i - 1] + 1;
      if (seq < expected) violate(3, 'seq-repeat', { room: room.id, seq });
      if (seq > expected) violate(3, 'seq-gap', { room: room.id, after: expected - 1, seq });
    });
    if ((seqs.at(-1) ?? 0) !== room.lastSeq) violate(3, 'last-seq', { room: room.id, lastSeq: room.lastSeq, stored: seqs.at(-1) ?? 0 });
  }

  const seqs = new Map(final.messages.map(({ sender, clientId, seq }) => [key(sender, clientId), seq]));
  const attempts = new Map();
  const extra = new Set();
  for (const record of records) {
    if (record.kind !== 'send') continue;
    const message = key(record.user, record.clientId);
    if (record.extra || record.conflict) extra.add(message);
    else attempts.set(message, (attempts.get(message) ?? 0) + 1);
  }
  const acknowledged = new Map();
  for (const record of records) if (record.kind === 'ack' && record.ok) acknowledged.set(key(record.conn, record.clientId), record);

  // Of one connection: those that were sent once. Of a device that waits for each acknowledgement: all.
  const last = new Map();
  const inOrder = (line, record) => {
    const seq = seqs.get(key(record.user, record.clientId));
    if (seq === undefined) return;
    const before = last.get(line);
    if (before && before.seq >= seq && before.clientId !== record.clientId) {
      violate(3, 'order-of-sender', { line, first: before, then: { clientId: record.clientId, seq }, t: record.t });
    }
    if (!before || before.seq < seq) last.set(line, { clientId: record.clientId, seq });
  };
  for (const record of records) {
    if (record.kind !== 'send' || record.extra || record.conflict) continue;
    const message = key(record.user, record.clientId);
    if (extra.has(message)) continue;
    if (attempts.get(message) === 1 && acknowledged.has(key(record.conn, record.clientId))) inOrder(key('connection', record.conn, record.room), record);
    if (record.style === 'one') inOrder(key('device', record.device, record.room), record);
  }
}
