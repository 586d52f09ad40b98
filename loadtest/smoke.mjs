// Walks through a first conversation as two demo users, with two unmodified clients, and says how each step went.
//
//   node smoke.mjs [--url http://127.0.0.1:3000]
//
// Exit code 0 when every step holds, 1 when one does not.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { io } from 'socket.io-client';

const { values: { url } } = parseArgs({ options: { url: { type: 'string', default: 'http://127.0.0.1:3000' } } });
const PASSWORD = 'starling-demo';
const MISSED = 120;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const sockets = [];

async function step(name, action) {
  const started = performance.now();
  try {
    const result = await action();
    console.log(`ok    ${name} (${Math.round(performance.now() - started)} ms)`);
    return result;
  } catch (error) {
    console.log(`FAIL  ${name}: ${error.message}`);
    throw error;
  }
}

async function rest(method, path, token, body) {
  const answer = await fetch(`${url}/api${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const json = await answer.json();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${JSON.stringify(json)}`);
  return json;
}

async function login(username) {
  const { user, accessToken } = await rest('POST', '/auth/login', undefined, { username, password: PASSWORD });
  return { ...user, token: accessToken };
}

/** A client that keeps what it hears, so that nothing comes too early to be awaited. */
async function connect(user) {
  const socket = io(url, { auth: { token: user.token }, forceNew: true });
  sockets.push(socket);
  const heard = [];
  socket.onAny((event, ...args) => {
    if (typeof args.at(-1) === 'function') args.pop()();
    heard.push({ event, payload: args[0] });
  });
  const client = {
    async waitFor(event, matches = () => true, count = 1, ms = 10_000) {
      const end = Date.now() + ms;
      for (;;) {
        const found = heard.filter((entry) => entry.event === event && matches(entry.payload));
        if (found.length >= count) return found.map(({ payload }) => payload);
        assert.ok(Date.now() < end, `${user.username} waited ${ms} ms for ${event}, heard ${found.length} of ${count}`);
        await sleep(10);
      }
    },
    async emit(event, payload) {
      const answer = await socket.timeout(10_000).emitWithAck(event, payload);
      if (answer.error?.code === 'rate_limited') {
        await sleep(answer.error.retryAfterMs);
        return client.emit(event, payload);
      }
      assert.ok(answer.ok, `${event}: ${JSON.stringify(answer.error)}`);
      return answer;
    },
    close: () => socket.disconnect(),
  };
  const refused = new Promise((_, reject) => { socket.once('connect_error', reject); });
  refused.catch(() => {});
  await Promise.race([client.waitFor('session:ready'), refused]);
  return client;
}

async function walk() {
  const [alice, bob] = await step('log in as alice and bob', () => Promise.all([login('alice'), login('bob')]));
  let bobClient;
  const aliceClient = await step('connect both', async () => {
    bobClient = await connect(bob);
    return connect(alice);
  });
  const room = await step('open the direct room', async () => (
    (await rest('POST', '/rooms', alice.token, { roomType: 'direct', memberIds: [bob.id] })).room));
  const send = async (content) => (
    await aliceClient.emit('message:send', { roomId: room.id, content, clientId: randomUUID() })).message;
  const status = (wanted, { id }) => aliceClient.waitFor('message:status', (event) => (
    event.status === wanted && event.userId === bob.id && event.messageIds.includes(id)));

  const message = await step('send', () => send('Good morning, Bob'));
  await step('bob hears message:new', () => bobClient.waitFor('message:new', ({ id }) => id === message.id));
  await step('bob has it: delivered', async () => {
    await bobClient.emit('message:delivered', { roomId: room.id, messageIds: [message.id] });
    await status('delivered', message);
  });
  await step('bob reads it: read', async () => {
    const { lastReadSeq } = await bobClient.emit('message:read', { roomId: room.id, messageId: message.id });
    assert.equal(lastReadSeq, message.seq);
    await status('read', message);
  });

  await step('bob disconnects, alice sees it', async () => {
    bobClient.close();
    await aliceClient.waitFor('presence:update', ({ userId, status: now }) => userId === bob.id && now === 'offline', 1, 12_000);
  });
  const missed = await step(`alice sends ${MISSED} messages meanwhile`, async () => {
    const sent = [];
    for (let i = 1; i <= MISSED; i += 1) sent.push(await send(`While you were away, ${i}`));
    return sent;
  });
  await step('bob reconnects and gets three batches', async () => {
    bobClient = await connect(bob);
    const batches = await bobClient.waitFor('messages:offline', undefined, 3);
    assert.deepEqual(batches.map(({ batch, remaining }) => [batch, remaining]), [[1, 70], [2, 20], [3, 0]]);
    const ids = batches.flatMap(({ messages }) => messages.map(({ id }) => id));
    assert.deepEqual(ids, missed.map(({ id }) => id));
    await status('delivered', missed.at(-1));
  });
  await step('room:sync answers what came after the first message', async () => {
    const afterSeq = message.seq;
    const { rooms: [synced] } = await bobClient.emit('room:sync', { rooms: [{ roomId: room.id, afterSeq }] });
    assert.deepEqual(synced.messages.map(({ seq }) => seq), Array.from({ length: 100 }, (_, i) => afterSeq + 1 + i));
    assert.equal(synced.lastSeq, missed.at(-1).seq);
    assert.equal(synced.more, true);
  });
  await step('bob reads everything', async () => {
    await bobClient.emit('message:read', { roomId: room.id, messageId: missed.at(-1).id });
    await status('read', missed.at(-1));
  });
  await step('alice types, and stops by herself', async () => {
    await aliceClient.emit('typing:start', { roomId: room.id });
    const typing = (value) => ({ userId, isTyping }) => userId === alice.id && isTyping === value;
    await bobClient.waitFor('typing:update', typing(true));
    await bobClient.waitFor('typing:update', typing(false), 1, 6_000);
  });
  await step('bob goes away, and alice sees and asks', async () => {
    await bobClient.emit('presence:set', { status: 'away' });
    await aliceClient.waitFor('presence:update', ({ userId, status: now }) => userId === bob.id && now === 'away');
    const { presence } = await aliceClient.emit('presence:query', { userIds: [bob.id] });
    assert.deepEqual(presence.map(({ userId, status: now }) => [userId, now]), [[bob.id, 'away']]);
  });
}

try {
  await walk();
  console.log('the conversation holds');
} catch (error) {
  console.error(error.cause ? `${error.message}: ${error.cause.message}` : error.message);
  process.exitCode = 1;
} finally {
  sockets.forEach((socket) => socket.disconnect());
}
