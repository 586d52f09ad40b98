// room:join, room:leave and room:sync on one socket.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, checkMessage, checkRoom } from '../support/expect.mjs';
import { sendMany, useServer } from '../support/fixture.mjs';

describe('subscriptions and catching up', () => {
  const world = useServer();
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

  test('room:leave silences the room on that socket only, and room:join brings it back', async () => {
    const { users: [, member], room, clients: [client, memberClient] } = await world.conversation(2);
    const second = await world.connect(member);
    await memberClient.ask('room:leave', { roomId: room.id });
    const missed = await client.send(room.id, 'missed by one socket');
    await second.waitFor('message:new', ({ id }) => id === missed.id);
    await memberClient.silence('message:new', { since: 0 });
    assert.equal((await memberClient.send(room.id, 'still a member')).seq, 2);
    const { room: joined } = await memberClient.ask('room:join', { roomId: room.id });
    assert.equal(checkRoom(joined, member.id).id, room.id);
    assert.equal(joined.lastSeq, 2);
    const heard = await client.send(room.id, 'heard again');
    await memberClient.waitFor('message:new', ({ id }) => id === heard.id);
    assert.equal(memberClient.all('message:new').length, 1);
  });

  test('joining twice delivers once, and leaving twice is fine', async () => {
    const { room, clients: [client, member] } = await world.conversation(2);
    for (let i = 0; i < 2; i += 1) await member.ask('room:leave', { roomId: room.id });
    for (let i = 0; i < 2; i += 1) await member.ask('room:join', { roomId: room.id });
    await client.send(room.id, 'once');
    await client.send(room.id, 'twice');
    await member.waitForMany('message:new', 2);
    assert.deepEqual(member.all('message:new').map(({ seq }) => seq), [1, 2]);
  });

  test('only members join', async () => {
    const { users: [owner, member], room, clients: [, client] } = await world.conversation(2);
    const stranger = await world.connect(await world.person());
    await stranger.refused('not_found', 'room:join', { roomId: room.id });
    await stranger.refused('not_found', 'room:join', { roomId: 2_000_000_000 });
    await client.ask('room:join', { roomId: room.id });
    assert.equal((await owner.api.del(`/rooms/${room.id}/members/${member.id}`)).status, 204);
    await client.refused('not_found', 'room:join', { roomId: room.id });
    for (const event of ['room:join', 'room:leave']) {
      for (const roomId of [undefined, null, 'x', -1.5]) await client.refused('validation_failed', event, { roomId });
    }
  });

  test('room:sync answers what came after, at most 100 a room, and says when there is more', async () => {
    const { users: [sender, member], room, clients: [client, memberClient] } = await world.conversation(2);
    const elsewhere = await world.group(sender, member);
    await sendMany(client, room.id, 130);
    await client.send(elsewhere.id, 'elsewhere');
    const ask = async (from, rooms) => (await from.ask('room:sync', { rooms })).rooms;
    const [first, second] = await ask(memberClient, [{ roomId: room.id, afterSeq: 5 }, { roomId: elsewhere.id, afterSeq: 0 }]);
    assert.deepEqual([first.roomId, first.lastSeq, first.more], [room.id, 130, true]);
    assert.deepEqual(first.messages.map(({ seq }) => seq), range(6, 105));
    first.messages.forEach((message) => checkMessage(message, member.id));
    assert.deepEqual([second.roomId, second.lastSeq, second.more, second.messages.length], [elsewhere.id, 1, false, 1]);
    const [rest] = await ask(memberClient, [{ roomId: room.id, afterSeq: 105 }]);
    assert.deepEqual([rest.messages.map(({ seq }) => seq), rest.more], [range(106, 130), false]);
    const [exact] = await ask(client, [{ roomId: room.id, afterSeq: 30 }]);
    assert.deepEqual([exact.messages.length, exact.more], [100, false]);
    exact.messages.forEach((message) => checkMessage(message, sender.id));
    const [none] = await ask(memberClient, [{ roomId: room.id, afterSeq: 130 }]);
    assert.deepEqual([none.messages, none.lastSeq, none.more], [[], 130, false]);
  });

  test('room:sync shows edits and deletions as they are now', async () => {
    const { room, clients: [client, member] } = await world.conversation(2);
    const [edited, deleted] = await sendMany(client, room.id, 2);
    await client.ask('message:edit', { messageId: edited.id, content: 'edited' });
    await client.ask('message:delete', { messageId: deleted.id });
    const { rooms: [{ messages }] } = await member.ask('room:sync', { rooms: [{ roomId: room.id, afterSeq: 0 }] });
    assert.deepEqual(messages.map(({ content }) => content), ['edited', '']);
  });

  test('room:sync leaves out rooms that one is not in', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const stranger = await world.person();
    const foreign = await world.group(stranger);
    const asked = [foreign.id, room.id, 2_000_000_000].map((roomId) => ({ roomId, afterSeq: 0 }));
    const { rooms } = await client.ask('room:sync', { rooms: asked });
    assert.deepEqual(rooms.map(({ roomId }) => roomId), [room.id]);
  });

  test('room:sync takes 1 to 50 well-formed rooms', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const one = { roomId: room.id, afterSeq: 0 };
    const fill = (count) => Array.from({ length: count }, (_, i) => ({ roomId: 1_000_000 + i, afterSeq: 0 }));
    await client.ask('room:sync', { rooms: fill(50) });
    const bad = [undefined, null, [], fill(51), 'x', [null], [5], [{}], [{ roomId: room.id }], [{ afterSeq: 0 }],
      [{ ...one, afterSeq: -1 }], [{ ...one, afterSeq: '0' }], [{ ...one, afterSeq: 0.5 }], [{ ...one, roomId: 'x' }], [one, null]];
    for (const rooms of bad) await client.refused('validation_failed', 'room:sync', { rooms });
  });

  test('what a client missed plus what it hears is everything, while others go on talking', async () => {
    const { users: [, member], room, clients: [client, first] } = await world.conversation(2);
    await client.send(room.id, 'seen');
    await first.waitFor('message:new');
    first.drop();
    await sendMany(client, room.id, 30, 'missed');
    const talking = sendMany(client, room.id, 60, 'live');
    const again = await world.connect(member);
    const { rooms: [{ messages }] } = await again.ask('room:sync', { rooms: [{ roomId: room.id, afterSeq: 1 }] });
    await talking;
    await again.waitFor('message:new', ({ seq }) => seq === 91).catch(() => {});
    const seqs = new Set([...messages, ...again.all('message:new')].map(({ seq }) => seq));
    assert.deepEqual([...seqs].sort((a, b) => a - b), range(2, 91));
  });

  test('a new membership is live on sockets that were there before, with nobody asking', async () => {
    const [owner, guest] = await world.people(2);
    const [client, guestClient] = await world.connectAll([owner, guest]);
    const room = await world.group(owner);
    answered(await owner.api.post(`/rooms/${room.id}/members`, { userIds: [guest.id] }));
    await client.send(room.id, 'welcome');
    await guestClient.waitFor('message:new', ({ roomId }) => roomId === room.id);
    const kinds = guestClient.log.map(({ event }) => event).filter((event) => ['room:new', 'message:new'].includes(event));
    assert.deepEqual(kinds, ['room:new', 'message:new'], 'the room is known before its first message');
  });
});
