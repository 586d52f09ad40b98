// Promise 6: who is there is right in time, and nothing is left of dead instances.

/** What the instances need to know it. That one of them died is what they have to find out. */
const EXCUSES = new Set(['stop', 'redis-restart', 'cut-redis', 'stall-redis', 'postgres-restart', 'cut-postgres', 'stall-postgres', 'slow', 'rolling']);

export function checkPresence({ records, model, limits, violate }) {
  const calm = (since, until) => model.calm(since, until, { excuses: (kind) => EXCUSES.has(kind) });
  for (const record of records) {
    const { kind, since, right, t } = record;
    if (kind === 'presence-check' && calm(since, t) > limits.presence) {
      violate(6, 'presence-wrong', { what: record.what, users: record.users, right, wrong: record.wrong, afterMs: Math.round(t - since), t });
    }
    if (kind === 'sessions-check' && (!right || calm(since, t) > limits.sessions)) {
      violate(6, 'ghost-sessions', { ghosts: record.ghosts, missing: record.missing, right, afterMs: Math.round(t - since), t });
    }
  }
}
