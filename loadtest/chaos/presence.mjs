// Who is there, as the instances tell it: asked until it is right.

import { sleep } from './deps.mjs';
import { now } from './history.mjs';

/** Asked for so long at most; the checker says how long it may take. */
const PATIENCE = 60_000;
const EVERY = 500;
/** Nothing is left of an instance that was killed, after so long. */
const AFTER_DEATH = 40_000;

/**
 * Asks an observer on each running instance until all say what is true of the users, and records how long it took
 * since `since`. `truth` maps user ids to `online` (whatever kind of it) or `offline`.
 */
export async function watchPresence({ cluster, people, history }, { truth, since, what, patience = PATIENCE }) {
  const record = { what, since, users: [...truth().keys()] };
  let wrong;
  do {
    wrong = await lookOnce(cluster, people, truth());
    if (wrong.length === 0) return history.write('presence-check', { ...record, right: true });
    await sleep(EVERY);
  } while (now() - since < patience);
  return history.write('presence-check', { ...record, right: false, wrong: wrong.slice(0, 20) });
}

/** What was answered wrongly, or by nobody. */
async function lookOnce(cluster, people, truth) {
  const there = new Set(cluster.alive.map(({ name }) => name));
  const answers = await Promise.all(people.observers.filter(({ at }) => there.has(at)).map(async (observer) => {
    const { at } = observer;
    const presence = await observer.presence([...truth.keys()]);
    if (!presence) return [{ at, answer: 'none' }];
    return presence.filter(({ userId, status }) => truth.get(userId) !== (status === 'offline' ? 'offline' : 'online'))
      .map(({ userId, status }) => ({ at, userId, answer: status }));
  }));
  return answers.flat();
}

/** What is true now: whoever has a connection is online. */
function truthOf(people) {
  const truth = new Map(people.users.map(({ id }) => [id, 'offline']));
  for (const { user, online } of people.devices) if (online) truth.set(user.id, 'online');
  return truth;
}

/** Both looks at the end of a run: nothing is left of those who went, since `since`, and everybody else is there. */
export function watchEnd(parts, since) {
  return Promise.all([
    watchPresence(parts, { truth: () => truthOf(parts.people), since, what: 'at the end', patience: AFTER_DEATH }),
    watchSessions(parts, { since, patience: AFTER_DEATH }),
  ]);
}

/** Waits until `user_sessions` holds the connections that there are and no others; records what was left. */
async function watchSessions({ pool, people, history }, { since, patience }) {
  const each = (list) => list.reduce((counts, one) => counts.set(one, (counts.get(one) ?? 0) + 1), new Map());
  let ghosts;
  let missing;
  do {
    const connected = [...people.devices, ...people.observers].filter(({ online, instance }) => online && instance);
    const open = each(connected.map(({ user, instance }) => `user ${user.id} on ${instance}`));
    const { rows } = await pool.query('SELECT user_id, server_instance FROM user_sessions');
    const stored = each(rows.map((row) => `user ${row.user_id} on ${row.server_instance}`));
    const beyond = (some, others) => [...some].filter(([one, count]) => count > (others.get(one) ?? 0)).map(([one]) => one);
    ghosts = beyond(stored, open);
    missing = beyond(open, stored);
    if (ghosts.length === 0 && missing.length === 0) break;
    await sleep(EVERY);
  } while (now() - since < patience);
  return history.write('sessions-check', { since, ghosts, missing, right: ghosts.length + missing.length === 0 });
}
