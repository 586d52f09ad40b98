// A history in the forms that the checks read: connections, messages by id and place, faults, calm time.

/** Faults that a server need not notice, or that leave all of it running: they excuse no delay. */
const NO_EXCUSE = new Set(['cut-clients', 'scramble', 'pubsub-kill']);

export const place = (room, seq) => `${room}/${seq}`;
export const key = (...parts) => parts.join('/');

/** What a record brought: messages with `room`, `seq`, `id`, `sender`, `clientId`, `text`. */
export function messagesOf(record) {
  if (record.kind === 'new') return [record];
  return record.kind === 'offline' || record.kind === 'sync' ? record.messages : [];
}

export function modelOf(records, final) {
  const end = records.at(-1)?.t ?? 0;
  const connections = connectionsOf(records, end);
  const byId = new Map(final.messages.map((message) => [message.id, message]));
  const byPlace = new Map(final.messages.map((message) => [place(message.room, message.seq), message]));
  return { end, connections, byId, byPlace, stored: storedTimes(records), faults: faultsOf(records, end), calm: calmOf(records, end) };
}

/** By name: `{conn, device, user, instance, attemptAt, ready, until, events}`; those that were never ready have no `ready`. */
function connectionsOf(records, end) {
  const connections = new Map();
  for (const record of records) {
    if (record.kind === 'connect') {
      const { conn, device, user, attemptAt } = record;
      connections.set(conn, { conn, device, user, attemptAt, from: record.t, until: end, open: true, events: [] });
      continue;
    }
    const connection = connections.get(record.conn);
    if (!connection) continue;
    if (record.kind === 'ready') {
      connection.ready = record;
      connection.instance = record.instance;
    }
    if (record.kind === 'disconnect' || record.kind === 'leave') {
      connection.until = Math.min(connection.until, record.t);
      connection.open = false;
    }
    if (['new', 'offline', 'sync', 'sync:required', 'ready'].includes(record.kind)) connection.events.push(record);
  }
  return connections;
}

/** Message ids by the first time when somebody knew that the message is stored. */
function storedTimes(records) {
  const stored = new Map();
  const note = (id, t) => { if (id !== undefined && !stored.has(id)) stored.set(id, t); };
  for (const record of records) {
    if (record.kind === 'ack' && record.ok) note(record.id, record.t);
    for (const { id } of messagesOf(record)) note(id, record.t);
  }
  return stored;
}

/** `[{kind, instances (null: all), from, until}]`. */
function faultsOf(records, end) {
  const faults = new Map();
  for (const record of records) {
    if (record.kind !== 'fault') continue;
    if (record.phase === 'begin') {
      faults.set(record.number, { kind: record.fault, instances: record.instances, from: record.t, until: end });
    } else faults.get(record.number).until = record.t;
  }
  return [...faults.values()];
}

/**
 * `calm(from, until, {instance, excuses})`: so many ms of that time went by without a fault of that instance (by its
 * name or the id of its process; without one: of any) that excuses a delay.
 */
function calmOf(records, end) {
  const faults = faultsOf(records, end).sort((a, b) => a.from - b.from);
  return (from, until, { instance, excuses = (kind) => !NO_EXCUSE.has(kind) } = {}) => {
    const name = instance?.split('-')[0];
    let calm = 0;
    let at = from;
    for (const fault of faults) {
      if (fault.until <= at || !excuses(fault.kind)) continue;
      if (name && fault.instances && !fault.instances.includes(name)) continue;
      if (fault.from >= until) break;
      calm += Math.max(0, fault.from - at);
      at = Math.max(at, fault.until);
    }
    return calm + Math.max(0, until - at);
  };
}
