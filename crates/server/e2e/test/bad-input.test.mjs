// Whatever a client sends: the contract's error, within a second, and the socket stays.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, checkError, refused } from '../support/expect.mjs';
import { UNLIMITED, useServer } from '../support/fixture.mjs';
import { openPolling, openRaw, poll } from '../support/raw.mjs';

const EVENTS = ['message:send', 'message:delivered', 'message:read', 'message:edit', 'message:delete', 'reaction:add',
  'reaction:remove', 'typing:start', 'typing:stop', 'presence:set', 'presence:query', 'room:join', 'room:leave', 'room:sync'];

/** The texts of arguments that fit no event. */
const SHAPES = ['', ',null', ',[]', ',[1,2]', ',"text"', ',7', ',true', ',{}', ',null,null', ',{"roomId":"x"}',
  ',{"roomId":[]}', ',{"roomId":99999999999999999999999}', ',{"roomId":{"a":1}}'];

const deep = (depth) => `${'['.repeat(depth)}${']'.repeat(depth)}`;

describe('events', () => {
  const world = useServer({ env: UNLIMITED });

  async function enter() {
    const user = await world.person();
    const room = await world.group(user);
    const raw = await openRaw(world.url);
    await raw.enter(user.token);
    let id = 1_000;
    return {
      user,
      room,
      raw,
      ask(args) {
        id += 1;
        return raw.ask(id, args);
      },
      async works() {
        const { ok } = await this.ask(`["message:send",{"roomId":${room.id},"content":"still here"}]`);
        assert.equal(ok, true);
      },
    };
  }

  for (const event of EVENTS) {
    test(`${event} of any shape is answered with an error and hurts nobody`, async () => {
      const session = await enter();
      for (const shape of SHAPES) {
        const started = Date.now();
        const answer = await session.ask(`["${event}"${shape}]`);
        assert.equal(answer.ok, false, `${shape}: ${JSON.stringify(answer)}`);
        checkError(answer.error, 'validation_failed');
        assert.ok(Date.now() - started < 1_000);
      }
      await session.works();
      session.raw.close();
    });

    test(`${event} without a callback is answered by an error event`, async () => {
      const client = await world.connect(await world.person());
      client.socket.emit(event, { roomId: 'no number' });
      const error = await client.waitFor('error', undefined, { ms: 1_000 });
      assert.equal(error.event, event);
      checkError(error, 'validation_failed');
    });
  }

  test('unknown fields are ignored', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const message = await client.send(room.id, 'x', { seq: 99, id: 'mine', senderId: 1, createdAt: null, whatever: [1] });
    assert.deepEqual([message.seq, message.senderId], [1, client.user.id]);
  });

  test('an unknown event is answered with validation_failed', async () => {
    const client = await world.connect(await world.person());
    for (const event of ['no:such:event', '', 'constructor', '__proto__', 'message:new', 'session:ready', 'error']) {
      await client.refused('validation_failed', event, { a: 1 });
    }
    client.socket.emit('no:such:event');
    assert.equal((await client.waitFor('error')).event, 'no:such:event');
  });

  test('an event with a callback that fails brings no error event', async () => {
    const client = await world.connect(await world.person());
    await client.refused('validation_failed', 'message:send');
    await client.silence('error', { since: 0 });
  });

  test('deep, odd and ill-formed JSON neither kills the server nor hurts others', async () => {
    const other = await enter();
    const frames = [
      `429001["message:send",${deep(10_000)}]`,
      `429002["message:send",{"roomId":1,"content":"x","metadata":{"a":${deep(1_000)}}}]`,
      '429003["message:send",{"roomId":1,"content":"\\ud800"}]',
      '429004["message:send",{"roomId":1,"content":"x","content":"y"}]',
      '42["unclosed', '42{}', '42null', '42[]', '42[7]', '42[null]', '42[["x"]]', '42', '4', '4x', '45', '46', '43[]', '4399[1]',
      '99', 'x', '', '42999999999999999999999999["presence:set",{"status":"online"}]', '451-["x",{"_placeholder":true,"num":0}]',
      '42/nowhere,["message:send",{}]', '40/nowhere,{}', '41/nowhere,', '44{"message":"x"}', '6', '5', '3', '2probe',
    ];
    for (const frame of frames) {
      const session = await enter();
      session.raw.send(frame);
      // The connection may end here, as with any Socket.IO server; if it stays, it works.
      await session.works().catch((error) => {
        if (!session.raw.closed) throw Object.assign(error, { message: `${frame.slice(0, 60)}: ${error.message}` });
      });
      session.raw.close();
    }
    await other.works();
  });

  test('well-formed JSON that means nothing is an error and keeps the connection', async () => {
    const session = await enter();
    const { id } = session.room;
    for (const args of [
      `["message:send",{"roomId":${id},"content":"\\ud800"}]`,
      `["message:send",{"roomId":${id},"content":"x","metadata":{"a":"\\udc00\\ud800"}}]`,
      `["message:send",{"roomId":${id},"content":"\\u0000"}]`,
      `["message:send",${deep(100)}]`,
    ]) {
      const answer = await session.ask(args);
      assert.equal(answer.ok, false, args);
      checkError(answer.error, 'validation_failed');
      assert.equal(session.raw.closed, false);
    }
    await session.works();
    session.raw.close();
  });

  test('binary frames and attachments do no harm', async () => {
    const other = await enter();
    for (const junk of [Buffer.alloc(0), Buffer.from([0]), Buffer.from('42["x"]'), Buffer.alloc(1_000, 0xff)]) {
      const session = await enter();
      session.raw.send(junk);
      session.raw.send('451-["message:send",{"roomId":{"_placeholder":true,"num":0}}]');
      session.raw.send(junk);
      session.raw.close();
    }
    const client = await world.connect(await world.person());
    await client.refused('validation_failed', 'message:send', { roomId: 1, content: Buffer.from('bytes') });
    await client.refused('validation_failed', 'message:send', Buffer.from('bytes'));
    await client.ask('presence:set', { status: 'online' });
    await other.works();
    other.raw.close();
  });

  test('acknowledgement ids are echoed, repeated or not', async () => {
    const session = await enter();
    const ids = [7, 7, 998, 0];
    for (const id of ids) session.raw.send(`42${id}["presence:set",{"status":"online"}]`);
    const echoed = () => session.raw.frames.filter((frame) => frame.startsWith('43')).map((frame) => parseInt(frame.slice(2), 10));
    await session.raw.frame(() => echoed().length === ids.length);
    assert.deepEqual(echoed(), ids);
    session.raw.close();
  });
});

describe('payload limits', () => {
  const world = useServer({ env: UNLIMITED });
  const JUST_OVER = 65_537;

  test('a frame above 64 KiB closes the connection, one of 64 KiB does not', async () => {
    const user = await world.person();
    const room = await world.group(user);
    const event = (size) => {
      const [head, tail] = [`4277["message:send",{"roomId":${room.id},"content":"x","padding":"`, '"}]'];
      return head + 'p'.repeat(size - head.length - tail.length) + tail;
    };
    const raw = await openRaw(world.url);
    await raw.enter(user.token);
    raw.send(event(65_000));
    await raw.frame((frame) => frame.startsWith('4377['));
    raw.send(event(JUST_OVER));
    await raw.waitClosed();
    const unauthenticated = await openRaw(world.url);
    unauthenticated.send(`40${'x'.repeat(JUST_OVER)}`);
    await unauthenticated.waitClosed();
  });

  test('a huge frame is refused too, and the server lives', async () => {
    const raw = await openRaw(world.url);
    raw.send('4'.repeat(8 * 1024 * 1024));
    await raw.waitClosed();
    await world.connect(await world.person());
  });

  test('a polling body above 64 KiB closes the session', async () => {
    const user = await world.person();
    const session = await openPolling(world.url);
    await session.post(`40${JSON.stringify({ token: user.token })}`);
    const answer = await session.post(`42["x","${'p'.repeat(JUST_OVER)}"]`).catch(() => ({ status: 0 }));
    assert.ok([0, 400, 413].includes(answer.status), `status ${answer.status}`);
    const after = await session.post('42["presence:set",{"status":"online"}]');
    assert.equal(after.status, 400, 'the session is gone');
  });

  test('ill-formed polling requests get 400 and nothing dies', async () => {
    for (const path of ['', '?EIO=4', '?EIO=4&transport=pigeon', '?EIO=9&transport=polling', '?EIO=4&transport=polling&sid=%00', '?transport=polling']) {
      const { status } = await fetch(`${world.url}/socket.io/${path}`, { headers: { connection: 'close' } });
      assert.equal(status, 400, path);
    }
    const session = await openPolling(world.url);
    for (const body of ['rubbish', '\u001e\u001e', 'b!!!']) await session.post(body);
    assert.equal((await poll(world.url)).status, 200);
  });

  test('several packets in one body, disconnect included, are all obeyed', async () => {
    const user = await world.person();
    const session = await openPolling(world.url);
    await session.post(`40${JSON.stringify({ token: user.token })}`);
    let text = '';
    while (!text.includes('session:ready')) text += (await session.poll()).text;
    const pending = session.poll();
    await session.post('421["presence:set",{"status":"online"}]\u001e422["presence:set",{"status":"away"}]');
    text = (await pending).text;
    while (!text.includes('432[')) text += (await session.poll()).text;
    assert.ok(text.indexOf('431[') < text.indexOf('432['));
    const last = session.poll();
    const started = Date.now();
    await session.post('41\u001e1');
    await last;
    assert.ok(Date.now() - started < 2_000, 'the pending poll is released at once');
  });
});

describe('REST', () => {
  const world = useServer();

  test('a body that is no JSON object is validation_failed', async () => {
    const { api } = await world.person();
    for (const body of ['', '{', 'null', '[]', '"text"', '7', '{"roomType":', '{"a":\u0001}', deep(10_000), '{"roomType":"\\ud800"}']) {
      refused(await api.post('/rooms', body), 400, 'validation_failed');
      refused(await world.api.post('/auth/login', body), 400, 'validation_failed');
    }
    const text = await api.post('/rooms', 'roomType=group', { 'content-type': 'application/x-www-form-urlencoded' });
    assert.ok([400, 415].includes(text.status), `status ${text.status}`);
    assert.ok(text.body.error.code);
  });

  test('every refused body names its fields', async () => {
    const user = await world.person();
    const room = await world.group(user);
    const bad = [
      ['patch', '/users/me', { displayName: 5 }, 'displayName'],
      ['patch', `/rooms/${room.id}`, {}, 'name'],
      ['post', `/rooms/${room.id}/members`, {}, 'userIds'],
      ['patch', `/rooms/${room.id}/members/${user.id}`, {}, 'role'],
      ['post', '/rooms', { roomType: 'group', memberIds: [] }, 'name'],
    ];
    for (const [method, path, body, field] of bad) {
      refused(await user.api[method](path, body), 400, 'validation_failed', [field]);
    }
  });

  test('a body above MAX_PAYLOAD_BYTES is 413', async () => {
    const user = await world.person();
    refused(await user.api.patch('/users/me', { displayName: 'x'.repeat(65_536) }), 413, 'payload_too_large');
    refused(await world.api.post('/auth/login', { username: 'x'.repeat(65_536), password: 'y' }), 413, 'payload_too_large');
    refused(await user.api.patch('/users/me', { displayName: 'x'.repeat(60_000) }), 400, 'validation_failed', ['displayName']);
  });

  test('an unknown path or method is an error of the contract, never a page or a crash', async () => {
    const { api } = await world.person();
    refused(await api.get('/no/such/thing'), 404, 'not_found');
    const wrongMethod = await api.del('/users/me');
    assert.ok([404, 405].includes(wrongMethod.status), `status ${wrongMethod.status}`);
    for (const path of ['/rooms/%00', '/rooms/%F0%28', '/users?ids=99999999999999999999', '/users?search=%00', '/users?search=a&limit=1e9',
      '/rooms/1/messages?before=9223372036854775808', '/messages/search?q=%FF']) {
      const answer = await api.get(path);
      assert.ok(answer.status >= 400 && answer.status < 500, `${path}: status ${answer.status}`);
      assert.ok(answer.body.error.code, path);
    }
    answered(await api.get('/users/me'));
  });
});

describe('MAX_PAYLOAD_BYTES', () => {
  const world = useServer({ env: { MAX_PAYLOAD_BYTES: '20000' } });

  test('the setting holds for frames and bodies alike', async () => {
    const user = await world.person();
    refused(await user.api.patch('/users/me', { displayName: 'x'.repeat(20_000) }), 413, 'payload_too_large');
    const raw = await openRaw(world.url);
    await raw.enter(user.token);
    raw.send(`42["x","${'p'.repeat(20_001)}"]`);
    await raw.waitClosed();
  });
});
