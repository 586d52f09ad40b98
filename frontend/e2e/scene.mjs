// A few people and what they said, for pictures.

import { connect } from '../../crates/server/e2e/support/client.mjs';

const MINUTE = 60_000;

/** Makes the people and rooms of the pictures: `{alice, team, direct}`. */
export async function scene(world) {
  const names = ['Alice Adams', 'Bob Brown', 'Carol Chen', 'Dave Diaz', 'Erin Evans', 'Frank Fischer'];
  const users = [];
  // One after the other: colours follow ids.
  for (const displayName of names) users.push(await world.person({ displayName, username: displayName.split(' ')[0].toLowerCase() }));
  const [alice, bob, carol, dave, erin, frank] = users;
  const make = async (owner, name, others) => (await owner.api.post('/rooms', {
    roomType: name ? 'group' : 'direct', ...(name && { name }), memberIds: others.map(({ id }) => id),
  })).body.room;
  const walk = await make(carol, 'Sunday walk', [alice, bob, dave]);
  const release = await make(dave, 'Release 1.0', [alice, erin, frank]);
  const erinRoom = await make(erin, null, [alice]);
  const direct = await make(bob, null, [alice]);
  const team = await make(alice, 'Team Starling', [bob, carol, dave, erin, frank]);
  const clients = new Map(await Promise.all(users.map(async (user) => [user, await connect(world.url, user)])));
  const say = (user, room, text, more) => clients.get(user).send(room.id, text, more);
  const read = (user, room, message) => clients.get(user).ask('message:read', { roomId: room.id, messageId: message.id });

  await say(bob, walk, 'Nine at the bridge?');
  await say(carol, walk, 'Nine it is. Bring boots 🥾');
  await say(frank, release, 'The changelog is written.');
  await say(alice, release, 'Great, tagging it now.');
  await say(erin, erinRoom, 'Thanks for the tour yesterday!');
  const toErin = await say(alice, erinRoom, 'Any time 🙂');
  await read(erin, erinRoom, toErin);
  await say(bob, direct, 'Did you see the new graphs?');

  await say(carol, team, 'Good morning! The train goes through the long tunnel in a minute.');
  await say(alice, team, 'Write on, it keeps what you send.');
  const question = await say(dave, team, 'And the order?');
  await say(dave, team, 'If Carol and I both write while we are away?');
  const answer = await say(alice, team, 'One order for everybody. `seq` counts 1, 2, 3 … in each room.', { replyTo: question.id, metadata: { replyToSeq: question.seq } });
  await clients.get(dave).ask('reaction:add', { messageId: answer.id, emoji: '👍' });
  await clients.get(erin).ask('reaction:add', { messageId: answer.id, emoji: '👍' });
  await clients.get(carol).ask('reaction:add', { messageId: answer.id, emoji: '🎉' });
  await say(erin, team, 'I tried it on my phone:\n```\nscript/server\n```\nthat was all.');
  await say(carol, team, 'Back in daylight. Everything arrived, nothing twice ☀️');
  const last = await say(alice, team, 'Lunch at one? https://example.com/menu');
  for (const user of [bob, carol, dave, erin]) await read(user, team, last);
  await say(frank, team, 'Yes! I baked.');
  await say(bob, team, '🍰');

  // As if it had been said over the day, so that the pictures are the same at any hour.
  const noon = new Date();
  noon.setUTCHours(11, 5, 0, 0);
  await world.server.db.query(
    `UPDATE messages SET created_at = $1::timestamptz - (interval '1 millisecond' * $2) * (
       (SELECT last_seq FROM rooms WHERE rooms.id = room_id) - seq) - interval '7 minutes' * ($3 - room_id)`,
    [noon.toISOString(), 4 * MINUTE, team.id],
  );
  await world.server.db.query(`UPDATE rooms SET created_at = $1::timestamptz - interval '1 day'`, [noon.toISOString()]);
  return { alice, bob, carol, team, direct, clients };
}
