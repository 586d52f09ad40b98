// Promise 5: delivered and read are what a client said, what is acknowledged stays, and watermarks never go back.

import { key } from './model.mjs';

export function checkReceipts({ records, final, model, violate }) {
  /** By user and message: when it was first said. */
  const saidDelivered = new Map();
  /** By user and room: `[{t, seq}]`, each higher than the one before. */
  const saidRead = new Map();
  const rows = new Map(final.receipts.map((row) => [key(row.id, row.user), row]));
  const marks = new Map(final.watermarks.map((mark) => [key(mark.room, mark.user), mark]));
  const readAcknowledged = new Map();
  /** By user and message: since when it is acknowledged that it was delivered. */
  const settled = new Map();
  const sampled = new Map();

  for (const record of records) {
    const { kind, what, user, room, t } = record;
    if (kind === 'say') {
      if (what === 'read') {
        const steps = saidRead.get(key(user, room)) ?? [];
        if (record.seq > (steps.at(-1)?.seq ?? 0)) steps.push({ t, seq: record.seq });
        saidRead.set(key(user, room), steps);
      } else {
        for (const id of record.ids) if (!saidDelivered.has(key(user, id))) saidDelivered.set(key(user, id), t);
      }
    }
    if (kind === 'said' && what === 'delivered') {
      for (const id of record.ids) {
        if (!settled.has(key(user, id))) settled.set(key(user, id), t);
        if (!rows.get(key(id, user))?.delivered) violate(5, 'delivered-lost', { user, id, t });
      }
    }
    if (kind === 'said' && what === 'read') readAnswered(record);
    if (kind === 'ready') readyTells(record);
    if (kind === 'offline') offlineBrings(record);
    if (kind === 'status') statusTells(record);
    if (kind === 'watermarks') record.marks.forEach((mark) => goesForth(mark, t));
  }
  final.watermarks.forEach((mark) => goesForth(mark, model.end));
  finalState();

  function wasRead(user, room, seq, t = Infinity) {
    return (saidRead.get(key(user, room)) ?? []).some((step) => step.seq >= seq && step.t <= t);
  }

  function readAnswered({ user, room, seq, asked, askedAt, t }) {
    const answers = readAcknowledged.get(key(user, room)) ?? [];
    const before = Math.max(0, ...answers.filter((answer) => answer.t < askedAt).map((answer) => answer.seq));
    if (seq < asked || seq < before) violate(5, 'read-went-back', { user, room, asked, before, answered: seq, t });
    answers.push({ t, seq });
    // A few are enough: those of requests that ran beside each other.
    if (answers.length > 20) answers.sort((a, b) => a.seq - b.seq).shift();
    readAcknowledged.set(key(user, room), answers);
  }

  function readyTells({ user, conn, rooms, t }) {
    const { attemptAt } = model.connections.get(conn) ?? {};
    for (const [room, { lastReadSeq }] of Object.entries(rooms)) {
      const answers = readAcknowledged.get(key(user, room)) ?? [];
      const before = Math.max(0, ...answers.filter((answer) => answer.t < attemptAt).map((answer) => answer.seq));
      if (lastReadSeq < before) violate(5, 'read-went-back', { user, room: Number(room), before, ready: lastReadSeq, conn, t });
    }
  }

  /** What was undelivered when the connection began, and nothing else. */
  function offlineBrings({ user, conn, messages, t }) {
    const { attemptAt } = model.connections.get(conn) ?? {};
    for (const { id, room, seq } of messages) {
      if (settled.get(key(user, id)) < attemptAt) violate(5, 'offline-again', { conn, id, room, seq, t });
    }
  }

  function statusTells({ ids, by, status, room, t, conn }) {
    for (const id of ids) {
      const message = model.byId.get(id);
      if (!message) violate(5, 'status-of-nothing', { id, by, status, t });
      else if (!(wasRead(by, room, message.seq, t) || (status === 'delivered' && saidDelivered.get(key(by, id)) <= t))) {
        violate(5, 'status-unsaid', { id, by, status, conn, t });
      }
    }
  }

  function goesForth({ room, user, delivered, read }, t) {
    const before = sampled.get(key(room, user));
    if (before && (delivered < before.delivered || read < before.read)) {
      violate(5, 'watermark-went-back', { room, user, before, after: { delivered, read }, t });
    }
    sampled.set(key(room, user), { delivered, read });
  }

  function finalState() {
    for (const [who, answers] of readAcknowledged) {
      const [user, room] = who.split('/').map(Number);
      const seq = Math.max(...answers.map((answer) => answer.seq));
      const mark = marks.get(key(room, user));
      if (!mark || mark.read < seq) violate(5, 'read-lost', { user, room, acknowledged: seq, stored: mark?.read });
    }
    for (const { id, user, delivered, read } of final.receipts) {
      const message = model.byId.get(id);
      if (!message) {
        violate(5, 'receipt-of-nothing', { id, user });
        continue;
      }
      const { room, seq } = message;
      const told = wasRead(user, room, seq);
      if (delivered && !told && !saidDelivered.has(key(user, id))) violate(5, 'delivered-unsaid', { user, id, room, seq });
      if (read && !told) violate(5, 'read-unsaid', { user, id, room, seq });
      const acknowledged = Math.max(0, ...(readAcknowledged.get(key(user, room)) ?? []).map((answer) => answer.seq));
      if (!read && seq <= acknowledged) violate(5, 'read-lost', { user, id, room, seq, acknowledged });
      if (read && !delivered) violate(5, 'read-not-delivered', { user, id, room, seq });
    }
    for (const { id, room, sender } of final.messages) {
      for (const user of final.rooms.find((one) => one.id === room)?.members ?? []) {
        if (user !== sender && !rows.has(key(id, user))) violate(5, 'receipt-missing', { user, id, room });
      }
    }
  }
}
