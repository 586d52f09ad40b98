// What a run did and how it went: as numbers, and as text.

import { messagesOf, modelOf } from './checks/model.mjs';

/** By fault: how long no instance but those in trouble acknowledged anything, at most, in ms. */
function pausesOf(records) {
  const { faults, connections, nameOf } = modelOf(records, { messages: [] });
  const acks = records.filter(({ kind, ok }) => kind === 'ack' && ok)
    .map(({ t, conn }) => ({ t, name: nameOf(connections.get(conn)?.instance) }));
  const pauses = {};
  for (const { kind, instances, from, until } of faults) {
    if (!instances?.length) continue;
    const times = [from, ...acks.filter(({ t, name }) => t > from && t < until && !instances.includes(name)).map(({ t }) => t), until];
    const longest = Math.max(...times.slice(1).map((t, i) => t - times[i]));
    pauses[kind] = Math.max(pauses[kind] ?? 0, Math.round(longest));
  }
  return pauses;
}

/** Violations that are shown in full; all are in the report's file. */
const SHOWN = 12;

const percentile = (sorted, p) => (sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]);
const distribution = (values) => {
  const sorted = values.sort((a, b) => a - b);
  return { count: sorted.length, p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99), max: sorted.at(-1) ?? null };
};

export function figuresOf(records, final, more = {}) {
  const acks = new Map();
  const sent = new Set();
  const count = (kind, matches = () => true) => records.filter((record) => record.kind === kind && matches(record)).length;
  const sendToAck = [];
  const ackToDeliver = [];
  const delivered = { live: 0, offline: 0, bySync: 0 };
  const errors = {};
  for (const record of records) {
    if (record.kind === 'send' && !record.conflict) sent.add(`${record.user}/${record.clientId}`);
    if (record.kind === 'ack' && record.ok && !acks.has(record.id)) {
      acks.set(record.id, record.t);
      sendToAck.push(record.t - record.sentAt);
    }
    if (record.kind === 'ack' && !record.ok && !record.conflict) errors[record.code] = (errors[record.code] ?? 0) + 1;
    if (record.kind === 'new') delivered.live += 1;
    if (record.kind === 'offline') delivered.offline += messagesOf(record).length;
    if (record.kind === 'sync') delivered.bySync += messagesOf(record).length;
  }
  for (const { kind, id, t } of records) if (kind === 'new' && acks.has(id)) ackToDeliver.push(Math.max(0, t - acks.get(id)));
  const connections = {};
  for (const { kind, transports } of records) if (kind === 'connect') connections[transports] = (connections[transports] ?? 0) + 1;
  const faults = {};
  for (const { kind, phase, fault } of records) if (kind === 'fault' && phase === 'begin') faults[fault] = (faults[fault] ?? 0) + 1;
  return {
    messages: sent.size,
    attempts: count('send'),
    acknowledged: acks.size,
    stored: final.messages.length,
    temporaryErrors: errors,
    deliveries: delivered,
    faults,
    clientsCut: count('cut'),
    connections,
    reconnects: count('connect') - final.devices.length,
    healed: more.healed ?? null,
    scrambled: more.scrambled ?? null,
    syncRequired: count('sync:required'),
    syncsForGaps: count('sync', ({ why }) => why === 'gap'),
    receipts: { delivered: final.receipts.filter((row) => row.delivered).length, read: final.receipts.filter((row) => row.read).length, of: final.receipts.length },
    drains: distribution(records.filter(({ kind }) => kind === 'drained').map(({ ms }) => ms)),
    presenceChecks: records.filter(({ kind }) => kind === 'presence-check').map(({ what, right, since, t }) => ({ what, right, ms: Math.round(t - since) })),
    sessionsChecks: records.filter(({ kind }) => kind === 'sessions-check').map(({ right, since, t }) => ({ right, ms: Math.round(t - since) })),
    sendToAckMs: distribution(sendToAck),
    ackToDeliverMs: distribution(ackToDeliver),
    pausesMs: pausesOf(records),
    notSaid: more.skipped ?? 0,
  };
}

export function textOf({ title, seed, form, seconds, figures, violations, folder }) {
  const list = (object) => Object.entries(object ?? {}).map(([name, value]) => `${name} ${value}`).join(', ') || 'none';
  const times = ({ count, p50, p99, max }) => (count === 0 ? 'none' : `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, max ${max.toFixed(0)} ms`);
  const looked = (checks) => checks.map(({ what, right, ms }) => `${what ? `${what}: ` : ''}${right ? `right after ${ms} ms` : `wrong for ${ms} ms`}`).join('; ') || 'none';
  const kinds = {};
  for (const { promise, kind } of violations) kinds[`(${promise}) ${kind}`] = (kinds[`(${promise}) ${kind}`] ?? 0) + 1;
  return [
    [title, `${form} form`, ...(seed === undefined ? [] : [`seed ${seed}`]), `${Math.round(seconds)} s`].join(', '),
    `messages        ${figures.messages} in ${figures.attempts} attempts; answered with errors for now: ${list(figures.temporaryErrors)}`,
    `acknowledged    ${figures.acknowledged}; stored ${figures.stored}`,
    `deliveries      ${figures.deliveries.live} live, ${figures.deliveries.offline} offline, ${figures.deliveries.bySync} by room:sync`,
    `receipts        ${figures.receipts.delivered} delivered, ${figures.receipts.read} read, of ${figures.receipts.of}`,
    `faults          ${list(figures.faults)}`,
    `clients         ${figures.clientsCut} cut, ${figures.reconnects} reconnects; connections: ${list(figures.connections)}`,
    ...(figures.healed === null ? [] : [`healed          ${figures.healed} messages read from PostgreSQL; broadcasts scrambled: ${list(figures.scrambled)}`]),
    `sync:required   ${figures.syncRequired}; gaps that clients asked about: ${figures.syncsForGaps}`,
    `send → ack      ${times(figures.sendToAckMs)}`,
    `ack → deliver   ${times(figures.ackToDeliverMs)}`,
    `pauses          longest without an acknowledgement by instances that were well, in ms: ${list(figures.pausesMs)}`,
    `drains          ${figures.drains.count}: ${times(figures.drains)}`,
    `presence        ${looked(figures.presenceChecks)}`,
    `user_sessions   ${looked(figures.sessionsChecks)}`,
    ...(figures.notSaid > 0 ? [`not said        ${figures.notSaid} messages, since too many waited`] : []),
    `violations      ${violations.length}${violations.length > 0 ? `: ${list(kinds)}` : ''}`,
    ...violations.slice(0, SHOWN).map((violation) => `  ${JSON.stringify({ ...violation, ...(violation.t && { t: new Date(violation.t).toISOString() }) })}`),
    ...(violations.length > SHOWN ? [`  … and ${violations.length - SHOWN} more`] : []),
    ...(folder ? [`history, logs and report: ${folder}`] : []),
  ].join('\n');
}
