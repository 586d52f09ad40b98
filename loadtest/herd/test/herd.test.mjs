// The herd in small: as many as connect within a second or two.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runHerd } from '../herd.mjs';

test('clients that are cut all at once are all back, each with exactly what it missed', async (t) => {
  const figures = await runHerd({ clients: 360 });
  t.diagnostic(JSON.stringify(figures));
  assert.equal(figures.clients, 360);
  assert.equal(figures.twice, 0);
  assert.ok(figures.expected >= 4 * figures.clients);
  assert.ok(figures.fromOfflineBatches > 0, 'some were away while others spoke');
});
