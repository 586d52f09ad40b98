// Everybody comes back at once: connections at a rate above what the servers let in, each tried again as
// socket.io-client does, until all are in. Says how long people wait and whether anybody is left outside.
//
//   k6 run -e URL=http://127.0.0.1:8080 -e TOKENS=tokens.jsonl -e USERS=1000 -e HOLD=10 connect-storm.js

import { Counter, Rate, Trend } from 'k6/metrics';
import { connectPatiently } from './lib/socketio.js';
import { URL, number, users } from './lib/users.js';

const USERS = Math.min(number('USERS', 1_000), users.length);
/** Seconds that a connection is held. */
const HOLD = number('HOLD', 10);
/** Seconds over which the first tries are spread: a deployment closes connections in slices. */
const OVER = number('OVER', 2);
/** Seconds that a person would wait. */
const PATIENCE = number('PATIENCE', 60);

const ready = new Trend('ready_ms', true);
const wait = new Trend('wait_ms', true);
const refused = new Counter('handshakes_refused');
const inside = new Rate('inside');
const dropped = new Counter('dropped');

export const options = {
  scenarios: {
    storm: { executor: 'per-vu-iterations', vus: USERS, iterations: 1, maxDuration: `${OVER + PATIENCE + HOLD + 30}s` },
  },
  thresholds: {
    // Nobody is left outside, nobody who is in is thrown out.
    inside: ['rate==1'],
    dropped: ['count==0'],
    // From the handshake that succeeds, and from the first.
    ready_ms: [`p(95)<${number('READY_P95_MS', 2_000)}`],
    wait_ms: [`p(95)<${number('WAIT_P95_MS', 30_000)}`],
  },
  noVUConnectionReuse: true,
};

export default function storm() {
  const user = users[(__VU - 1) % users.length];
  setTimeout(() => {
    const socket = connectPatiently(URL, user.token, {
      onReady(_, { readyMs, waitMs }) {
        ready.add(readyMs);
        wait.add(waitMs);
        inside.add(true);
        setTimeout(() => socket.close(), HOLD * 1_000);
      },
      onRefused() { refused.add(1); },
      onClose({ came, reason }) {
        if (!came) inside.add(false);
        else if (reason !== 'here') dropped.add(1);
      },
    }, PATIENCE * 1_000);
  }, Math.random() * OVER * 1_000);
}
