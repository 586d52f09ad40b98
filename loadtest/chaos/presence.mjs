// Who is there, as the instances tell it: asked until it is right.

import { sleep } from './deps.mjs';
import { now } from './history.mjs';

/** Asked for so long at most; the checker says how long it may take. */
const PATIENCE = 60_000;
const EVERY = 500;

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
  const questions = new Map();
  for (const userId of truth.keys()) {
    const observers = people.observers(cluster.alive, userId).filter(Boolean);
    if (observers.length === 0) return [{ userId, answer: 'nobody could be asked' }];
    for (const observer of observers) questions.set(observer, [...(questions.get(observer) ?? []), userId]);
  }
  const wrong = [];
  await Promise.all([...questions].map(async ([observer, userIds]) => {
    const { instance } = observer;
    const answer = await observer.ask('presence:query', { userIds }, 3_000);
    if (!answer?.ok) return wrong.push({ instance, answer: answer?.error?.code ?? 'none' });
    for (const { userId, status } of answer.presence) {
      const is = status === 'offline' ? 'offline' : 'online';
      if (is !== truth.get(userId)) wrong.push({ instance, userId, answer: status });
    }
    return undefined;
  }));
  return wrong;
}

/** What is true now: whoever has a connection is online. */
export function truthOf(people) {
  const truth = new Map(people.users.map(({ id }) => [id, 'offline']));
  for (const { user, online } of people.devices) if (online) truth.set(user.id, 'online');
  return truth;
}

/** Waits until `user_sessions` holds the connections that there are and no others; records what was left. */
export async function watchSessions({ cluster, people, history }, { since, patience }) {
  let ghosts;
  let missing;
  do {
    const open = new Map(people.devices.filter(({ online }) => online).map(({ socket, instance }) => [socket.id, instance]));
    const { rows } = await cluster.pool.query('SELECT socket_id, server_instance FROM user_sessions');
    ghosts = rows.filter((row) => open.get(row.socket_id) !== row.server_instance);
    missing = [...open].filter(([id]) => !rows.some((row) => row.socket_id === id));
    if (ghosts.length === 0 && missing.length === 0) break;
    await sleep(EVERY);
  } while (now() - since < patience);
  return history.write('sessions-check', { since, ghosts: ghosts.slice(0, 20), missing: missing.slice(0, 20), right: ghosts.length + missing.length === 0 });
}
