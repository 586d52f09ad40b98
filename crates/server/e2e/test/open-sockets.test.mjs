// `user_sessions` tells which sockets are open, whatever happens to instances.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { useServer } from '../support/fixture.mjs';
import { until } from '../support/wait.mjs';

describe('the table of open sockets', () => {
  const world = useServer({ instances: 2, nodePeers: 0 });

  test('sockets of an instance that was killed or stopped for long are swept, and written again by one that lives', async () => {
    const [a, b] = await world.people(2);
    await world.connect(a, { at: 0 });
    await world.connect(b, { at: 1 });
    const open = async (user) => {
      const { rows } = await world.server.db.query(
        'SELECT server_instance AS instance FROM user_sessions WHERE user_id = $1', [user.id]);
      return rows.map(({ instance }) => instance);
    };
    const until1 = (user, count) => until(async () => (await open(user)).length === count, { ms: 35_000, what: 'the row' });
    await Promise.all([until1(a, 1), until1(b, 1)]);
    assert.notDeepEqual(await open(a), await open(b));
    process.kill(world.server.all[1].pid, 'SIGSTOP');
    try {
      await until1(b, 0);
    } finally {
      process.kill(world.server.all[1].pid, 'SIGCONT');
    }
    await until1(b, 1);
    await world.server.all[1].killAlone('SIGKILL');
    await until1(b, 0);
    assert.equal((await open(a)).length, 1);
    await world.server.all[1].restartAlone();
  });
});
