// A history in the forms that the checks read: connections, messages by id and place, faults, calm time.

/** Faults that a server need not notice, or that leave all of it running: they excuse no delay. */
const NO_EXCUSE = new Set(['cut-clients', 'scramble', 'pubsub-kill', 'nginx-reload']);

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
  const nameOf = namesOf(records);
  const byId = new Map(final.messages.map((message) => [message.id, message]));
  const byPlace = new Map(final.messages.map((message) => [place(message.room, message.seq), message]));
  const faults = faultsOf(records, end);
  return { end, connections, byId, byPlace, nameOf, stored: storedTimes(records), faults, calm: calmOf(faults, nameOf) };
}

/**
 * `nameOf(id)`: the instance whose process that is. An instance may give each of its processes a name of its own, or its
 * own name to all.
 */
function namesOf(records) {
  const names = new Map();
  for (const { kind, id, name } of records) if (kind === 'instance' && name !== undefined) names.set(id, name);
  return (id) => names.get(id) ?? id;
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
function calmOf(unsorted, nameOf) {
  const faults = [...unsorted].sort((a, b) => a.from - b.from);
  return (from, until, { instance, excuses = (kind) => !NO_EXCUSE.has(kind) } = {}) => {
    const name = instance && nameOf(instance);
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
