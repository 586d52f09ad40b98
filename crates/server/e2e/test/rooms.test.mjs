// Rooms, their members and roles, over REST, and what the members' sockets hear of it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, checkRoom, refused } from '../support/expect.mjs';
import { history, memberOf, roomOf, sendMany, setRole, useServer } from '../support/fixture.mjs';

describe('rooms', () => {
  const world = useServer();
  const ids = (members) => members.map(({ userId }) => userId).sort((a, b) => a - b);
  const idsOf = (...users) => users.map(({ id }) => id).sort((a, b) => a - b);
  const add = (by, room, ...users) => by.api.post(`/rooms/${room.id}/members`, { userIds: users.map(({ id }) => id) });
  const remove = (by, room, user) => by.api.del(`/rooms/${room.id}/members/${user.id}`);
  const rename = (by, room, name) => by.api.patch(`/rooms/${room.id}`, { name });
  const role = (by, room, user, to) => by.api.patch(`/rooms/${room.id}/members/${user.id}`, { role: to });

  describe('creating', () => {
    test('a group has its creator as owner, and every member hears room:new', async () => {
      const [owner, member, stranger] = await world.people(3);
      const [ownerClient, memberClient, strangerClient] = await world.connectAll([owner, member, stranger]);
      const states = await world.watch(ownerClient, memberClient, strangerClient);
      const room = checkRoom(await world.group(owner, member), owner.id);
      assert.deepEqual(
        [room.roomType, room.name, room.createdBy, room.lastSeq, room.unreadCount, room.lastMessage],
        ['group', 'A group', owner.id, 0, 0, null],
      );
      const roles = Object.fromEntries(room.members.map((one) => [one.userId, one.role]));
      assert.deepEqual(roles, { [owner.id]: 'owner', [member.id]: 'member' });
      for (const client of [ownerClient, memberClient]) {
        const heard = await client.waitFor('room:new', ({ id }) => id === room.id);
        assert.deepEqual(ids(heard.members), idsOf(owner, member));
      }
      await strangerClient.silence('room:new', { since: 0 });
      await states.assertFresh();
    });

    test('every socket of a new member hears room:new once and receives what is said at once', async () => {
      const [owner, member] = await world.people(2);
      const clients = await world.connectAll([owner, member, member]);
      const room = await world.group(owner, member);
      await Promise.all(clients.map((client) => client.waitFor('room:new', ({ id }) => id === room.id)));
      await clients[0].send(room.id, 'hello');
      await Promise.all(clients.map((client) => client.waitFor('message:new', ({ roomId }) => roomId === room.id)));
      for (const client of clients) assert.equal(client.all('room:new').length, 1);
    });

    test('a second direct room of the same two answers 200 with the first, from either side', async () => {
      const [one, other] = await world.people(2);
      const client = await world.connect(other);
      const room = checkRoom(await world.direct(one, other), one.id);
      assert.equal(room.roomType, 'direct');
      assert.equal(room.name, null);
      await client.waitFor('room:new', ({ id }) => id === room.id);
      for (const [from, to] of [[one, other], [other, one]]) {
        const again = answered(await from.api.post('/rooms', { roomType: 'direct', memberIds: [to.id] })).room;
        assert.equal(again.id, room.id);
      }
      await client.silence('room:new', { since: client.mark() });
      assert.equal(client.all('room:new').length, 1);
    });

    test('the same direct room created by both at once is one room', async () => {
      const [one, other] = await world.people(2);
      const answers = await Promise.all([[one, other], [other, one], [one, other]].map(([from, to]) => (
        from.api.post('/rooms', { roomType: 'direct', memberIds: [to.id] }))));
      assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 201]);
      assert.equal(new Set(answers.map(({ body }) => body.room.id)).size, 1);
    });

    test('a direct room takes exactly one other user', async () => {
      const [one, two, three] = await world.people(3);
      for (const memberIds of [[], [two.id, three.id], [one.id], undefined, null, 'two', [`${two.id}`], [2.5]]) {
        refused(await one.api.post('/rooms', { roomType: 'direct', memberIds }), 400, 'validation_failed', ['memberIds']);
      }
      const unknown = await one.api.post('/rooms', { roomType: 'direct', memberIds: [2_000_000_000] });
      assert.ok([400, 404].includes(unknown.status), `status ${unknown.status}`);
    });

    test('a direct room never gets a name or a third member', async () => {
      const [one, two, three] = await world.people(3);
      const room = await world.direct(one, two);
      for (const answer of [await rename(one, room, 'A name'), await add(one, room, three)]) {
        assert.ok([400, 403, 409].includes(answer.status), `status ${answer.status}`);
      }
      const now = await roomOf(one, room.id);
      assert.equal(now.name, null);
      assert.deepEqual(ids(now.members), idsOf(one, two));
    });

    test('a group wants a name of 1 to 100 characters and known members', async () => {
      const [owner, member] = await world.people(2);
      const create = (body) => owner.api.post('/rooms', { roomType: 'group', name: 'fine', memberIds: [member.id], ...body });
      assert.equal(answered(await create({ name: '🦜'.repeat(100) }), 201).room.name, '🦜'.repeat(100));
      for (const name of [undefined, null, '', 'x'.repeat(101), 5, 'nul\u0000']) {
        refused(await create({ name }), 400, 'validation_failed', ['name']);
      }
      for (const memberIds of [undefined, null, 'all', [null], ['1'], {}]) {
        refused(await create({ memberIds }), 400, 'validation_failed', ['memberIds']);
      }
      for (const roomType of [undefined, null, 'channel', 1]) {
        refused(await create({ roomType }), 400, 'validation_failed', ['roomType']);
      }
      const before = answered(await owner.api.get('/rooms')).rooms.length;
      const unknown = await create({ memberIds: [member.id, 2_000_000_000] });
      assert.ok([400, 404].includes(unknown.status), `status ${unknown.status}`);
      assert.equal(answered(await owner.api.get('/rooms')).rooms.length, before, 'nothing is half-created');
    });
  });

  describe('reading', () => {
    test('the list has the newest activity first, and creation counts as activity', async () => {
      const [owner, member] = await world.people(2);
      const client = await world.connect(owner);
      const listed = async () => {
        const { rooms } = answered(await member.api.get('/rooms'));
        rooms.forEach((room) => checkRoom(room, member.id));
        return rooms;
      };
      const order = async () => (await listed()).map(({ id }) => id);
      const first = await world.group(owner, member);
      const second = await world.group(owner, member);
      assert.deepEqual(await order(), [second.id, first.id]);
      const message = await client.send(first.id, 'up');
      assert.deepEqual(await order(), [first.id, second.id]);
      const third = await world.direct(owner, member);
      assert.deepEqual(await order(), [third.id, first.id, second.id]);
      const [, withMessage] = await listed();
      assert.equal(withMessage.lastMessage.id, message.id);
      assert.deepEqual([withMessage.unreadCount, withMessage.lastSeq], [1, 1]);
    });

    test('a room that one is not in is not found, like one that does not exist', async () => {
      const [owner, stranger] = await world.people(2);
      const room = await world.group(owner);
      for (const id of [room.id, 2_000_000_000]) {
        refused(await stranger.api.get(`/rooms/${id}`), 404, 'not_found');
        refused(await stranger.api.get(`/rooms/${id}/messages`), 404, 'not_found');
        refused(await stranger.api.patch(`/rooms/${id}`, { name: 'mine' }), 404, 'not_found');
        refused(await stranger.api.post(`/rooms/${id}/members`, { userIds: [stranger.id] }), 404, 'not_found');
        refused(await stranger.api.patch(`/rooms/${id}/members/${owner.id}`, { role: 'member' }), 404, 'not_found');
        refused(await stranger.api.del(`/rooms/${id}/members/${owner.id}`), 404, 'not_found');
      }
      for (const id of ['abc', '-1', '99999999999999999999', '1.5']) {
        const answer = await owner.api.get(`/rooms/${id}`);
        assert.ok([400, 404].includes(answer.status), `${id}: status ${answer.status}`);
        assert.ok(answer.body.error.code);
      }
    });
  });

  describe('renaming', () => {
    test('owner and admin rename, and every member hears room:updated', async () => {
      const { users: [owner, admin, member], room, clients } = await world.conversation(3);
      await setRole(owner, room.id, admin, 'admin');
      const states = await world.watch(...clients);
      for (const [by, name] of [[owner, 'By the owner'], [admin, 'By the admin 🦜']]) {
        assert.equal(answered(await rename(by, room, name)).room.name, name);
        await Promise.all(clients.map((client) => client.waitFor('room:updated', (heard) => heard.name === name)));
        await states.assertFresh();
      }
      refused(await rename(member, room, 'No'), 403, 'forbidden');
      for (const name of ['', 'x'.repeat(101), 5, null, 'nul\u0000']) {
        refused(await rename(owner, room, name), 400, 'validation_failed', ['name']);
      }
      await states.assertFresh();
    });
  });

  describe('adding members', () => {
    test('one who joins sees the whole history with nothing unread, and is there at once', async () => {
      const { users: [owner], room, clients: [ownerClient, memberClient] } = await world.conversation(2);
      const late = await world.person();
      const lateClient = await world.connect(late);
      await sendMany(ownerClient, room.id, 3);
      const states = await world.watch(ownerClient, memberClient, lateClient);
      const { room: answer } = answered(await add(owner, room, late));
      assert.ok(answer.members.some(({ userId }) => userId === late.id));
      const heard = await lateClient.waitFor('room:new', ({ id }) => id === room.id);
      assert.equal(heard.unreadCount, 0);
      await Promise.all([ownerClient, memberClient].map((client) => (
        client.waitFor('room:updated', ({ members }) => members.some(({ userId }) => userId === late.id)))));
      const { lastReadSeq, lastDeliveredSeq } = await memberOf(late, room.id, late.id);
      assert.deepEqual([lastReadSeq, lastDeliveredSeq], [3, 3]);
      assert.equal((await history(late, room.id)).messages.length, 3);
      assert.equal((await roomOf(late, room.id)).unreadCount, 0);
      await states.assertFresh();
      await ownerClient.send(room.id, 'welcome');
      await lateClient.waitFor('message:new', ({ content }) => content === 'welcome');
      await lateClient.send(room.id, 'thanks');
      await states.assertFresh();
      assert.deepEqual(lateClient.all('messages:offline'), [], 'the past is not delivered again');
    });

    test('an admin may add, a member may not', async () => {
      const [owner, admin, member, guest, other] = await world.people(5);
      const room = await world.group(owner, admin, member);
      await setRole(owner, room.id, admin, 'admin');
      answered(await add(admin, room, guest));
      refused(await add(member, room, other), 403, 'forbidden');
    });

    test('a present member keeps the role', async () => {
      const [owner, admin, guest] = await world.people(3);
      const room = await world.group(owner, admin);
      await setRole(owner, room.id, admin, 'admin');
      answered(await add(owner, room, admin, owner, guest));
      assert.equal((await memberOf(owner, room.id, admin.id)).role, 'admin');
      assert.equal((await memberOf(owner, room.id, owner.id)).role, 'owner');
      assert.equal((await memberOf(owner, room.id, guest.id)).role, 'member');
    });

    test('one unknown id fails the whole call', async () => {
      const [owner, guest] = await world.people(2);
      const room = await world.group(owner);
      const answer = await add(owner, room, guest, { id: 2_000_000_000 });
      assert.ok([400, 404].includes(answer.status), `status ${answer.status}`);
      assert.deepEqual(ids((await roomOf(owner, room.id)).members), [owner.id]);
      for (const userIds of [undefined, null, 'all', ['1'], 5]) {
        refused(await owner.api.post(`/rooms/${room.id}/members`, { userIds }), 400, 'validation_failed', ['userIds']);
      }
    });

    test('one who left and comes back starts with nothing unread', async () => {
      const { users: [owner, member], room, clients } = await world.conversation(2);
      const states = await world.watch(...clients);
      await sendMany(clients[0], room.id, 2);
      assert.equal((await remove(member, room, member)).status, 204);
      await sendMany(clients[0], room.id, 2, 'meanwhile');
      await states.assertFresh();
      answered(await add(owner, room, member));
      const { lastReadSeq, lastDeliveredSeq, role: now } = await memberOf(member, room.id, member.id);
      assert.deepEqual([lastReadSeq, lastDeliveredSeq, now], [4, 4, 'member']);
      assert.equal((await history(member, room.id)).messages.length, 4);
      await states.assertFresh();
    });
  });

  describe('roles', () => {
    test('only the owner changes roles, and everyone hears room:updated', async () => {
      const { users: [owner, admin, member], room, clients } = await world.conversation(3);
      const states = await world.watch(...clients);
      answered(await role(owner, room, admin, 'admin'));
      for (const client of clients) {
        const heard = await client.waitFor('room:updated');
        assert.equal(heard.members.find(({ userId }) => userId === admin.id).role, 'admin');
      }
      await states.assertFresh();
      refused(await role(admin, room, member, 'admin'), 403, 'forbidden');
      refused(await role(member, room, member, 'admin'), 403, 'forbidden');
      answered(await role(owner, room, admin, 'member'));
      await states.assertFresh();
    });

    test('making another the owner hands ownership over, and the old owner becomes admin', async () => {
      const { users: [owner, heir], room, clients } = await world.conversation(2);
      const states = await world.watch(...clients);
      const { members } = answered(await role(owner, room, heir, 'owner')).room;
      const roles = Object.fromEntries(members.map((one) => [one.userId, one.role]));
      assert.deepEqual(roles, { [owner.id]: 'admin', [heir.id]: 'owner' });
      refused(await role(owner, room, heir, 'member'), 403, 'forbidden');
      await states.assertFresh();
    });

    test('an unknown role is refused, and one who is no member is not found', async () => {
      const [owner, member, stranger] = await world.people(3);
      const room = await world.group(owner, member);
      for (const bad of [undefined, null, 'king', 5]) {
        refused(await role(owner, room, member, bad), 400, 'validation_failed', ['role']);
      }
      refused(await role(owner, room, stranger, 'admin'), 404, 'not_found');
    });
  });

  describe('leaving and removing', () => {
    test('one who leaves hears room:removed, the others room:updated, and the room is gone for him', async () => {
      const { users: [owner, member], room, clients } = await world.conversation(2);
      const second = await world.connect(member);
      const states = await world.watch(...clients, second);
      assert.equal((await remove(member, room, member)).status, 204);
      for (const client of [clients[1], second]) {
        assert.deepEqual(await client.waitFor('room:removed'), { roomId: room.id });
      }
      const heard = await clients[0].waitFor('room:updated');
      assert.deepEqual(ids(heard.members), [owner.id]);
      await states.assertFresh();
      refused(await member.api.get(`/rooms/${room.id}`), 404, 'not_found');
      await second.refused('not_found', 'message:send', { roomId: room.id, content: 'still here?' });
    });

    test('sockets of one who was removed leave at once', async () => {
      const { users: [owner, member], room, clients: [ownerClient, memberClient] } = await world.conversation(2);
      assert.equal((await remove(owner, room, member)).status, 204);
      await memberClient.waitFor('room:removed', ({ roomId }) => roomId === room.id);
      await ownerClient.send(room.id, 'a secret');
      await memberClient.silence('message:new', { since: 0 });
    });

    test('an admin removes members, but neither the owner nor another admin', async () => {
      const [owner, admin, rival, member] = await world.people(4);
      const room = await world.group(owner, admin, rival, member);
      await setRole(owner, room.id, admin, 'admin');
      await setRole(owner, room.id, rival, 'admin');
      refused(await remove(admin, room, owner), 403, 'forbidden');
      refused(await remove(admin, room, rival), 403, 'forbidden');
      refused(await remove(member, room, admin), 403, 'forbidden');
      assert.equal((await remove(admin, room, member)).status, 204);
      refused(await remove(admin, room, member), 404, 'not_found');
      assert.equal((await remove(owner, room, rival)).status, 204);
      assert.equal((await remove(admin, room, admin)).status, 204, 'an admin may leave');
    });

    test('an owner leaves only when nobody else remains', async () => {
      const [owner, member] = await world.people(2);
      const room = await world.group(owner, member);
      refused(await remove(owner, room, owner), 409, 'conflict');
      assert.equal((await remove(owner, room, member)).status, 204);
      assert.equal((await remove(owner, room, owner)).status, 204);
      refused(await owner.api.get(`/rooms/${room.id}`), 404, 'not_found');
    });
  });
});
