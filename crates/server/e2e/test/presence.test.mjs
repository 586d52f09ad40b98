// Who is there.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isTime } from '../support/expect.mjs';
import { useServer } from '../support/fixture.mjs';

describe('presence', () => {
  const world = useServer();
  const isUpdate = (userId, status) => (update) => update.userId === userId && update.status === status;
  const query = async (client, ...users) => {
    const { presence } = await client.ask('presence:query', { userIds: users.map(({ id }) => id) });
    return presence;
  };

  test('a first socket is online to those who share a room, and the last close makes offline', async () => {
    const [user, friend, stranger] = await world.people(3);
    await world.group(user, friend);
    const [friendClient, strangerClient] = await world.connectAll([friend, stranger]);
    const first = await world.connect(user);
    await friendClient.waitFor('presence:update', isUpdate(user.id, 'online'));
    const second = await world.connect(user);
    first.close();
    await friendClient.silence('presence:update', { matches: isUpdate(user.id, 'offline'), since: 0, ms: 1_500 });
    second.close();
    const update = await friendClient.waitFor('presence:update', isUpdate(user.id, 'offline'), { ms: 11_000 });
    assert.ok(isTime(update.lastSeen));
    const [now] = await query(friendClient, user);
    assert.deepEqual([now.status, now.lastSeen], ['offline', update.lastSeen]);
    const { body } = await friend.api.get(`/users?ids=${user.id}`);
    assert.equal(body.users[0].lastSeen, update.lastSeen);
    assert.deepEqual(strangerClient.all('presence:update', ({ userId }) => userId === user.id), []);
  });

  test('presence belongs to the user, and the last presence:set wins on whatever socket', async () => {
    const { users: [user], clients: [client, friend] } = await world.conversation(2);
    const second = await world.connect(user);
    await client.ask('presence:set', { status: 'away' });
    await friend.waitFor('presence:update', isUpdate(user.id, 'away'));
    assert.equal((await query(friend, user))[0].status, 'away');
    const since = friend.mark();
    await second.ask('presence:set', { status: 'online' });
    await friend.waitFor('presence:update', isUpdate(user.id, 'online'), { since });
    assert.equal((await query(friend, user))[0].status, 'online');
  });

  test('a further socket leaves away as it is, and a first one starts online again', async () => {
    const { users: [user], clients: [client, friend] } = await world.conversation(2);
    await client.ask('presence:set', { status: 'away' });
    const second = await world.connect(user);
    assert.equal((await query(friend, user))[0].status, 'away');
    client.close();
    second.close();
    await friend.waitFor('presence:update', isUpdate(user.id, 'offline'), { ms: 11_000 });
    const since = friend.mark();
    await world.connect(user);
    await friend.waitFor('presence:update', isUpdate(user.id, 'online'), { since });
  });

  test('a transport that breaks counts as a close', async () => {
    const { users: [user], clients: [client, friend] } = await world.conversation(2);
    client.drop();
    await friend.waitFor('presence:update', isUpdate(user.id, 'offline'), { ms: 11_000 });
  });

  test('a query answers only those who share a room with the caller', async () => {
    const { users: [, friend], clients: [client] } = await world.conversation(2);
    const away = await world.person();
    await world.group(friend, away);
    const stranger = await world.person();
    await world.connect(stranger);
    const presence = await query(client, friend, away, stranger, { id: 2_000_000_000 });
    assert.deepEqual(presence.map(({ userId, status }) => [userId, status]), [[friend.id, 'online']]);
    assert.ok(presence[0].lastSeen === null || isTime(presence[0].lastSeen));
  });

  test('bad statuses and lists are refused', async () => {
    const { clients: [client] } = await world.conversation(1);
    for (const status of [undefined, null, 'offline', 'busy', 5]) {
      await client.refused('validation_failed', 'presence:set', { status });
    }
    const many = Array.from({ length: 201 }, (_, i) => i + 1);
    for (const userIds of [undefined, null, [], many, ['1'], 5, 'all']) {
      await client.refused('validation_failed', 'presence:query', { userIds });
    }
    await client.ask('presence:query', { userIds: many.slice(1) });
  });
});
