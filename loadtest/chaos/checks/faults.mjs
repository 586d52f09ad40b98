// Promises 9 and 10: how instances end, get well, and serve without a backend.

const REDIS = new Set(['redis-restart', 'cut-redis', 'stall-redis']);
const POSTGRES = new Set(['postgres-restart', 'cut-postgres', 'stall-postgres']);
/** The pool is well a moment after its database is. */
const AFTERMATH = 3_000;
/** What is sent at the very end of an outage may be heard after it. */
const EDGE = 2_000;

export function checkFaults({ records, model, limits, violate }) {
  /** By process, or by the name that processes one after the other have: how often it was told to end. */
  const drained = new Map();
  for (const record of records) {
    const { kind, t } = record;
    if (kind === 'not-recovered') violate(10, 'not-recovered', { fault: record.fault, error: record.error, t });
    if (kind === 'stranded') violate(9, 'stranded', { conn: record.conn, device: record.device, reason: record.reason, t });
    if (kind === 'drained') {
      drained.set(record.id, (drained.get(record.id) ?? 0) + 1);
      if (record.code !== 0 || record.ms > limits.drain) violate(9, 'drain', { id: record.id, code: record.code, signal: record.signal, ms: record.ms, t });
    }
  }
  for (const { kind, id, state, code, signal, t } of records) {
    if (kind !== 'instance' || state !== 'ended' || signal === 'SIGKILL') continue;
    if (!drained.get(id)) violate(9, 'died', { id, code, signal, t });
    else drained.set(id, drained.get(id) - 1);
  }
  checkRefusals();
  checkWithoutRedis();

  function at(fault, instance) {
    return !fault.instances || fault.instances.includes(model.nameOf(instance));
  }

  function checkRefusals() {
    for (const { kind, ok, code, conn, sentAt, t } of records) {
      if (kind !== 'ack' || ok || code !== 'unavailable') continue;
      const instance = model.connections.get(conn)?.instance;
      const during = model.faults.filter((fault) => at(fault, instance) && fault.from <= t && fault.until + AFTERMATH >= sentAt);
      const postgres = during.filter((fault) => POSTGRES.has(fault.kind));
      if (postgres.length === 0 && during.some((fault) => REDIS.has(fault.kind)) && during.every((fault) => REDIS.has(fault.kind))) {
        violate(10, 'unavailable-without-redis', { conn, instance, t });
      }
      if (postgres.length === 0) continue;
      const limit = Math.max(...postgres.map((fault) => limits.refusal[fault.kind]));
      const ms = waited(postgres, sentAt, t);
      if (ms > limit) violate(10, 'slow-refusal', { conn, instance, ms: Math.round(ms), t });
    }
  }

  /**
   * How long a request waited for its refusal. What waited before in a slow database is refused from the beginning of
   * the fault on; and between two faults it could have been stored.
   */
  function waited(faults, sentAt, t) {
    let ms = 0;
    let at = sentAt;
    const inTurn = [...faults].sort((a, b) => a.from - b.from);
    for (const fault of inTurn) {
      const from = Math.max(at, fault.from);
      const end = fault === inTurn.at(-1) ? t : Math.min(fault.until, t);
      if (end <= from) continue;
      ms += end - from;
      at = end;
    }
    return ms;
  }

  /** While all of Redis is gone: what an instance acknowledges reaches the members on that instance. */
  function checkWithoutRedis() {
    const outages = model.faults.filter(({ kind, from, until }) => kind === 'redis-restart' && until - from > 2 * EDGE);
    for (const { from, until } of outages) {
      const acks = records.filter(({ kind, ok, t, sentAt }) => kind === 'ack' && ok && sentAt > from && t < until);
      if (acks.length === 0) violate(10, 'nothing-acknowledged-without-redis', { from, until });
      const there = [...model.connections.values()].filter(({ ready, until: end }) => ready && ready.t < from && end > until);
      for (const ack of acks.filter(({ t }) => t < until - EDGE)) {
        const { instance } = model.connections.get(ack.conn) ?? {};
        for (const connection of there.filter((one) => one.instance === instance && ack.room in one.ready.rooms)) {
          const heard = connection.events.some(({ kind, id, t }) => kind === 'new' && id === ack.id && t < until);
          if (!heard && ack.seq > connection.ready.rooms[ack.room].lastSeq) {
            violate(10, 'not-heard-without-redis', { conn: connection.conn, instance, id: ack.id, t: ack.t });
          }
        }
      }
    }
  }
}
