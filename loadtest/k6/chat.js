// Steady chat: each user is in some rooms and says something now and then. Counts what is lost: every message
// that is stored while a user is there has to come to that user, live.
//
//   k6 run -e URL=… -e TOKENS=tokens.jsonl -e USERS=200 -e SECONDS=60 -e EVERY_MS=1000 chat.js

import exec from 'k6/execution';
import { Counter, Rate, Trend } from 'k6/metrics';
import { connectPatiently } from './lib/socketio.js';
import { URL, number, users } from './lib/users.js';

const USERS = Math.min(number('USERS', 200), users.length);
const SECONDS = number('SECONDS', 60);
const EVERY_MS = number('EVERY_MS', 1_000);
/** Handshakes are spread over this, and nobody talks before. */
const SETTLE_MS = number('SETTLE_MS', Math.max(3_000, USERS * 20));
/** What is under way at the end may arrive. */
const QUIET_MS = number('QUIET_MS', 2_000);

const sendAck = new Trend('send_ack_ms', true);
const sendDeliver = new Trend('send_deliver_ms', true);
const sent = new Rate('sends_acked');
const delivered = new Counter('delivered');
const lost = new Counter('lost');
const twice = new Counter('delivered_twice');
const connected = new Rate('connected');
const refused = new Counter('handshakes_refused');

export const options = {
  scenarios: {
    chat: {
      executor: 'per-vu-iterations', vus: USERS, iterations: 1,
      maxDuration: `${Math.ceil(SECONDS + (SETTLE_MS + QUIET_MS) / 1_000) + 30}s`,
    },
  },
  thresholds: {
    lost: ['count==0'],
    delivered_twice: ['count==0'],
    connected: ['rate==1'],
    sends_acked: ['rate==1'],
    delivered: ['count>0'],
    send_ack_ms: [`p(95)<${number('ACK_P95_MS', 500)}`],
    send_deliver_ms: [`p(95)<${number('DELIVER_P95_MS', 500)}`],
  },
};

export default function chat() {
  const user = users[(__VU - 1) % users.length];
  const start = exec.scenario.startTime;
  const until = (ms) => Math.max(0, start + ms - Date.now());
  const talkFrom = SETTLE_MS;
  const talkUntil = talkFrom + SECONDS * 1_000;
  // Of each room, the place at which the user came and what was heard since.
  const heard = new Map(user.roomIds.map((room) => [room, { from: Infinity, seqs: new Set() }]));
  const news = new Map();
  let done = false;
  let turn = 0;
  let socket;

  setTimeout(() => { socket = connectPatiently(URL, user.token, handlers); }, Math.random() * SETTLE_MS * 0.7);

  const handlers = {
    onReady({ rooms }) {
      for (const { roomId, lastSeq } of rooms) {
        if (heard.has(roomId)) heard.get(roomId).from = lastSeq;
      }
      setTimeout(say, until(talkFrom) + Math.random() * EVERY_MS);
      setTimeout(count, until(talkUntil + QUIET_MS));
    },
    onEvent(name, message) {
      if (name !== 'message:new' || !heard.has(message.roomId)) return;
      const { seqs } = heard.get(message.roomId);
      if (seqs.has(message.seq)) twice.add(1);
      seqs.add(message.seq);
      delivered.add(1);
      if (message.senderId !== user.userId) tell(message);
      // k6 is one process, so one clock.
      const [, at] = /^k6 at (\d+)/.exec(message.content) || [];
      if (at && message.senderId !== user.userId) sendDeliver.add(Date.now() - Number(at));
    },
    onRefused() { refused.add(1); },
    // Whoever is thrown out hears nothing more: that is not counted as lost, but the run has failed.
    onClose() { connected.add(done); },
  };

  /** Says what has come, as clients do: each second, many in one event. */
  function tell({ roomId, id }) {
    if (news.has(roomId)) {
      news.get(roomId).push(id);
      return;
    }
    news.set(roomId, [id]);
    setTimeout(() => {
      const messageIds = news.get(roomId);
      news.delete(roomId);
      for (let i = 0; i < messageIds.length; i += 100) {
        socket.emit('message:delivered', { roomId, messageIds: messageIds.slice(i, i + 100) });
      }
    }, 1_000);
  }

  function say() {
    if (until(talkUntil) === 0) return;
    const at = Date.now();
    turn += 1;
    const roomId = user.roomIds[turn % user.roomIds.length];
    const payload = { roomId, content: `k6 at ${at} by ${user.userId}`, clientId: uuid() };
    socket.emit('message:send', payload, (answer) => {
      sent.add(Boolean(answer && answer.ok));
      if (answer && answer.ok) sendAck.add(Date.now() - at);
    });
    setTimeout(say, EVERY_MS);
  }

  /** Compares what was heard with what the rooms hold now. */
  function count() {
    const rooms = user.roomIds.map((roomId) => ({ roomId, afterSeq: heard.get(roomId).from }));
    let answers = 0;
    const slices = [];
    for (let i = 0; i < rooms.length; i += 50) slices.push(rooms.slice(i, i + 50));
    const finish = () => {
      done = true;
      socket.close();
    };
    if (slices.length === 0) finish();
    for (const slice of slices) {
      socket.emit('room:sync', { rooms: slice }, (answer) => {
        for (const { roomId, lastSeq } of (answer && answer.rooms) || []) {
          const { from, seqs } = heard.get(roomId);
          for (let seq = from + 1; seq <= lastSeq; seq += 1) if (!seqs.has(seq)) lost.add(1);
        }
        if (!answer || !answer.ok) lost.add(1);
        answers += 1;
        if (answers === slices.length) finish();
      });
    }
  }
}

function uuid() {
  const hex = () => Math.floor(Math.random() * 16).toString(16);
  return 'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replace(/x/g, hex);
}
