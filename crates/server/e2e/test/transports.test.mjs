// The same conversation over every transport, with every client; and what Engine.IO itself must keep.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CLIENTS } from '../support/client.mjs';
import { UNLIMITED, sendMany, useServer } from '../support/fixture.mjs';
import { openPolling, openRaw } from '../support/raw.mjs';
import { sleep, until } from '../support/wait.mjs';

const TRANSPORTS = {
  'websocket only': ['websocket'],
  'polling only': ['polling'],
  'polling with an upgrade': ['polling', 'websocket'],
};

describe('transports', () => {
  const world = useServer({ env: UNLIMITED });
  const transportOf = (client) => client.socket.io.engine.transport.name;
  const upgraded = (client) => until(() => transportOf(client) === 'websocket', { what: 'the upgrade' });

  for (const [version, io] of Object.entries(CLIENTS)) {
    for (const [name, transports] of Object.entries(TRANSPORTS)) {
      test(`socket.io-client ${version} converses over ${name}`, async () => {
        const [one, other] = await world.people(2);
        const room = await world.direct(one, other);
        const options = { io, transports };
        const client = await world.connect(one, options);
        const message = await client.send(room.id, 'while you were away 🦜');
        const peer = await world.connect(other, options);
        const { messages } = await peer.waitFor('messages:offline');
        assert.deepEqual(messages.map(({ content }) => content), ['while you were away 🦜']);
        await client.waitFor('message:status', ({ status }) => status === 'delivered');
        await peer.ask('message:read', { roomId: room.id, messageId: message.id });
        await client.waitFor('message:status', ({ status }) => status === 'read');
        await peer.ask('typing:start', { roomId: room.id });
        await client.waitFor('typing:update', ({ isTyping }) => isTyping);
        await peer.refused('validation_failed', 'message:send', { roomId: room.id });
        const answers = await sendMany(peer, room.id, 40, 'answer');
        assert.deepEqual(answers.map(({ seq }) => seq), answers.map((_, i) => i + 2));
        const heard = await client.waitForMany('message:new', 41);
        assert.deepEqual(heard.map(({ seq }) => seq), heard.map((_, i) => i + 1));
        if (transports.length === 2) await upgraded(client);
        else assert.equal(transportOf(client), transports[0]);
        peer.close();
        await client.waitFor('presence:update', ({ status }) => status === 'offline', { ms: 11_000 });
      });
    }

    test(`nothing that socket.io-client ${version} sends or hears in the upgrade window is lost`, async () => {
      const { users: [, peer], room, clients: [client] } = await world.conversation(2);
      for (let round = 0; round < 5; round += 1) {
        const since = client.mark();
        const upgrading = await world.connect(peer, { io, transports: ['polling', 'websocket'] });
        await Promise.all([
          sendMany(upgrading, room.id, 25, 'up'),
          sendMany(client, room.id, 25, 'down'),
          upgraded(upgrading),
        ]);
        for (const [listener, start] of [[client, since], [upgrading, 0]]) {
          const heard = await listener.waitForMany('message:new', 50, undefined, { since: start });
          const seqs = heard.map(({ seq }) => seq);
          assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b));
        }
        upgrading.close();
      }
    });
  }

  test('more than one payload that waits at the time of the upgrade survives it', async () => {
    const [sender, reader] = await world.people(2);
    const room = await world.direct(sender, reader);
    await sendMany(await world.connect(sender), room.id, 60, 'x'.repeat(3_900));
    for (let round = 0; round < 3; round += 1) {
      const client = await world.connect(reader, { transports: ['polling', 'websocket'], offline: 'silent' });
      const batches = await client.waitForMany('messages:offline', 2);
      assert.equal(batches.flatMap(({ messages }) => messages).length, 60);
      client.close();
    }
  });

  test('a burst of 1,000 messages reaches a healthy client whole and in order', async () => {
    const { room, clients: [client, listener] } = await world.conversation(2);
    const polling = await world.connect(listener.user, { transports: ['polling'] });
    await sendMany(client, room.id, 1_000);
    for (const one of [listener, polling]) {
      const heard = await one.waitForMany('message:new', 1_000, undefined, { ms: 30_000 });
      assert.deepEqual(heard.map(({ seq }) => seq), heard.map((_, i) => i + 1));
    }
  });

  test('CONNECT is answered within a second, also for one who is in many rooms', async () => {
    const user = await world.person();
    for (let i = 0; i < 40; i += 1) await world.group(user);
    const started = Date.now();
    const raw = await openRaw(world.url);
    raw.send(`40${JSON.stringify({ token: user.token })}`);
    await raw.frame((frame) => frame.startsWith('40{'));
    assert.ok(Date.now() - started < 1_000);
    raw.close();
  });

  test('the probe of an upgrade is answered at once, also without a pending poll', async () => {
    const user = await world.person();
    const session = await openPolling(world.url);
    await session.post(`40${JSON.stringify({ token: user.token })}`);
    let text = '';
    while (!text.includes('session:ready')) text += (await session.poll()).text;
    const raw = await openRaw(world.url, {}, { sid: session.sid });
    raw.send('2probe');
    await raw.frame((frame) => frame === '3probe', 1_000);
    raw.send('5');
    assert.equal((await raw.ask(5, '["presence:set",{"status":"online"}]')).ok, true);
    raw.close();
  });

  test('a polling answer has at most 16 packets and comes in one piece', async () => {
    const { users: [, reader], room, clients: [client] } = await world.conversation(2);
    const session = await openPolling(world.url);
    await session.post(`40${JSON.stringify({ token: reader.token })}`);
    let text = '';
    while (!text.includes('session:ready')) text += (await session.poll()).text;
    await sendMany(client, room.id, 60);
    const seqs = [];
    while (seqs.length < 60) {
      const answer = await session.poll();
      const packets = answer.text.split('\u001e');
      assert.ok(packets.length <= 16, `${packets.length} packets`);
      assert.ok(Number(answer.headers.get('content-length')) > 0);
      assert.equal(answer.headers.get('transfer-encoding'), null);
      for (const packet of packets) {
        if (packet === '2') await session.post('3');
        if (packet.startsWith('42["message:new"')) seqs.push(JSON.parse(packet.slice(2))[1].seq);
      }
    }
    assert.deepEqual(seqs, seqs.map((_, i) => i + 1));
  });

  test('posts may come as text/plain or application/octet-stream', async () => {
    const user = await world.person();
    for (const type of ['text/plain;charset=UTF-8', 'application/octet-stream']) {
      const session = await openPolling(world.url);
      const answer = await session.post(`40${JSON.stringify({ token: user.token })}`, { 'content-type': type });
      assert.deepEqual([answer.status, answer.text], [200, 'ok'], type);
    }
  });
});

describe('heartbeats', () => {
  const world = useServer({ env: { ...UNLIMITED, PING_INTERVAL_MS: '300', PING_TIMEOUT_MS: '300' } });

  test('pings come on time, also among other traffic', async () => {
    const user = await world.person();
    const raw = await openRaw(world.url);
    await raw.enter(user.token);
    const before = raw.pings;
    for (let id = 1; id <= 100; id += 1) {
      await raw.ask(id, '["presence:set",{"status":"online"}]');
      await sleep(20);
    }
    assert.ok(raw.pings - before >= 4, `${raw.pings - before} pings in 2 s`);
    assert.equal(raw.closed, false);
    raw.close();
  });

  test('a client that answers no ping is gone', async () => {
    const { users: [user, friend], clients: [, friendClient] } = await world.conversation(2, { transports: ['websocket'] });
    assert.ok(friend);
    const third = await world.person();
    await world.direct(third, friend);
    const raw = await openRaw(world.url, {}, { pong: false });
    await raw.enter(third.token);
    await raw.waitClosed(5_000);
    await friendClient.waitFor('presence:update', ({ userId, status }) => userId === third.id && status === 'offline', { ms: 11_000 });
    assert.deepEqual(friendClient.all('presence:update', ({ userId, status }) => userId === user.id && status === 'offline'), []);
  });
});

describe('a client that stops reading', () => {
  const world = useServer({
    env: { ...UNLIMITED, SOCKET_BUFFER_BYTES: '262144', WRITE_TIMEOUT_SECONDS: '2', PING_INTERVAL_MS: '60000', PING_TIMEOUT_MS: '60000' },
  });

  test('is dropped, and the others miss nothing', async () => {
    const { users: [, , stuck], room, clients: [sender, listener, own] } = await world.conversation(3);
    own.close();
    await listener.waitFor('presence:update', ({ userId, status }) => userId === stuck.id && status === 'offline');
    const raw = await openRaw(world.url);
    await raw.enter(stuck.token);
    await listener.waitFor('presence:update', ({ userId, status }) => userId === stuck.id && status === 'online');
    raw.stopReading();
    // Far more than the kernel holds for one connection: 16 kB each.
    const content = '🦜'.repeat(4000);
    let sent = 0;
    const offline = () => listener.all('presence:update', ({ userId, status }) => userId === stuck.id && status === 'offline').length;
    while (offline() < 2) {
      // As many at once as fit into the limit of those who read.
      await Promise.all(Array.from({ length: 4 }, () => sender.send(room.id, content)));
      sent += 4;
      assert.ok(sent <= 4_000, 'it is still there');
    }
    const heard = await listener.waitForMany('message:new', sent, undefined, { ms: 30_000 });
    assert.deepEqual(heard.map(({ seq }) => seq), heard.map((_, i) => i + 1));
    const metrics = await (await fetch(`${world.url}/metrics`)).text();
    const closed = [...metrics.matchAll(/^starling_slow_readers_closed_total\{.*\} (\d+)$/gm)];
    assert.equal(closed.reduce((sum, [, count]) => sum + Number(count), 0), 1);
    raw.close();
  });
});
