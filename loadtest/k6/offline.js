// Catching up: in each room one user is away while the others talk, then comes back and gets it all, in batches.
//
//   k6 run -e URL=… -e TOKENS=tokens.jsonl -e ROOMS=20 -e MESSAGES=120 offline.js

import { Counter, Rate, Trend } from 'k6/metrics';
import { connectPatiently } from './lib/socketio.js';
import { URL, number, users } from './lib/users.js';

/** Rooms at a time, each with one who is away. */
const ROOMS = number('ROOMS', 20);
const MESSAGES = number('MESSAGES', 120);
/** Milliseconds between a sender's messages: below the limit of 10 a second. */
const EVERY_MS = number('EVERY_MS', 120);
/** Seconds that catching up may take. */
const PATIENCE = number('PATIENCE', 30);

const catchUp = new Trend('catch_up_ms', true);
const firstBatch = new Trend('first_batch_ms', true);
const lost = new Counter('lost');
const disordered = new Counter('out_of_order');
const caughtUp = new Rate('caught_up');
const received = new Counter('received');

export const options = {
  scenarios: {
    offline: { executor: 'per-vu-iterations', vus: ROOMS, iterations: 1, maxDuration: `${MESSAGES + PATIENCE + 60}s` },
  },
  thresholds: {
    lost: ['count==0'],
    out_of_order: ['count==0'],
    caught_up: ['rate==1'],
    received: ['count>0'],
    first_batch_ms: [`p(95)<${number('FIRST_BATCH_P95_MS', 1_000)}`],
    // 100 ms lie between two batches of 50.
    catch_up_ms: [`p(95)<${number('CATCH_UP_P95_MS', 1_000 + Math.ceil(MESSAGES / 50) * 400)}`],
  },
};

export default function offline() {
  const [room, members] = roomOf(__VU - 1);
  const [away, ...others] = members;
  const stored = new Map();
  let sent = 0;
  let answered = 0;

  const senders = others.map((user) => {
    const socket = connectPatiently(URL, user.token, {
      onReady() { say(); },
      onClose({ reason }) { if (reason !== 'here') caughtUp.add(false); },
    });
    function say() {
      if (sent >= MESSAGES) return;
      sent += 1;
      socket.emit('message:send', { roomId: room, content: `k6 while you were away ${sent}` }, (answer) => {
        if (answer && answer.ok) stored.set(answer.message.id, answer.message.seq);
        answered += 1;
        if (answered === MESSAGES) {
          senders.forEach((each) => each.close());
          comeBack();
        }
      });
      setTimeout(say, EVERY_MS);
    }
    return socket;
  });

  function comeBack() {
    const at = Date.now();
    const missing = new Map(stored);
    let last = 0;
    let first = true;
    const socket = connectPatiently(URL, away.token, {
      onEvent(name, payload) {
        if (name !== 'messages:offline') return;
        if (first) firstBatch.add(Date.now() - at);
        first = false;
        for (const { id, roomId, seq } of payload.messages) {
          if (roomId !== room) continue;
          if (seq <= last) disordered.add(1);
          last = seq;
          received.add(1);
          missing.delete(id);
        }
        // Let the acknowledgement of this batch go out first.
        if (payload.remaining === 0) setTimeout(finish, 10);
      },
      onClose({ reason }) { if (reason !== 'here') finish(); },
    });
    const patience = setTimeout(() => finish(), PATIENCE * 1_000);
    let finished = false;
    function finish() {
      if (finished) return;
      finished = true;
      clearTimeout(patience);
      catchUp.add(Date.now() - at);
      lost.add(missing.size);
      caughtUp.add(missing.size === 0);
      socket.close();
    }
  }
}

/** The `n`th room that has two members of its own, and they. */
function roomOf(n) {
  const rooms = new Map();
  for (const user of users) {
    const [room] = user.roomIds;
    if (room !== undefined) rooms.set(room, [...(rooms.get(room) || []), user]);
  }
  const useful = [...rooms].filter(([, members]) => members.length > 1);
  if (useful.length <= n) throw new Error(`ROOMS=${ROOMS}, but only ${useful.length} rooms of the tokens have two members`);
  return useful[n];
}
