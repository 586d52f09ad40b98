// The short form: every fault once, and some clients are cut all the time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { NEMESES } from '../nemesis.mjs';
import { runSuite } from '../suite.mjs';

const SEED = process.env.CHAOS_SEED;

test('through every fault no promise is broken', { timeout: 280_000 }, async (t) => {
  const base = fileURLToPath(new URL('../../../.starling/chaos', import.meta.url));
  const { violations, figures, text } = await runSuite({ form: 'short', base, ...(SEED && { seed: Number(SEED) }) });
  text.split('\n').forEach((line) => t.diagnostic(line));
  assert.deepEqual(violations, [], text);
  assert.deepEqual(Object.keys(figures.faults).sort(), [...NEMESES].sort());
  // A run in which little happened proves little.
  assert.ok(figures.acknowledged > 500 && figures.reconnects > 50 && figures.healed > 0, text);
});
