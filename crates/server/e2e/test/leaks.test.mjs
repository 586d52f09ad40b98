// What connections leave behind: nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { UNLIMITED, useServer } from '../support/fixture.mjs';
import { openRaw } from '../support/raw.mjs';
import { until } from '../support/wait.mjs';

describe('after abrupt ends', () => {
  const world = useServer({ env: UNLIMITED });
  const connections = async () => {
    const text = await (await fetch(`${world.url}/metrics`)).text();
    return [...text.matchAll(/^starling_connections\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
  };

  test('no socket, room or row stays, also of sockets that end while they join', async () => {
    const user = await world.person();
    const friend = await world.person();
    const room = await world.direct(user, friend);
    for (let round = 0; round < 5; round += 1) {
      const sockets = await Promise.all(Array.from({ length: 20 }, () => openRaw(world.url)));
      await Promise.all(sockets.map(async (raw, i) => {
        // Half of them end before they are greeted, half amid a join.
        raw.send(`40${JSON.stringify({ token: user.token })}`);
        if (i % 2) {
          await raw.frame((frame) => frame.startsWith('42["session:ready"'));
          raw.send(`427["room:join",{"roomId":${room.id}}]`);
          raw.send(`42["message:send",{"roomId":${room.id},"content":"${round}/${i}"}]`);
        }
        raw.close();
      }));
    }
    await until(async () => (await connections()) === 0, { ms: 10_000, what: 'all sockets to be gone' });
    await until(async () => {
      const { rows } = await world.server.db.query('SELECT count(*)::int AS count FROM user_sessions');
      return rows[0].count === 0;
    }, { ms: 10_000, what: 'all rows to be gone' });
    const { users: [asked] = [] } = (await friend.api.get(`/users?ids=${user.id}`)).body;
    assert.notEqual(asked.lastSeen, null);
  });
});
