// The end of a run: everybody falls silent and gets everything, and the history is judged.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { check } from './checker.mjs';
import { until } from './deps.mjs';
import { finalState, isComplete } from './final.mjs';
import { now } from './history.mjs';
import { figuresOf, textOf } from './report.mjs';

/** Until every message is acknowledged, … */
const OUTBOXES = 60_000;
/** … and until everybody has everything (the server may take 30 s to mend). */
const SETTLING = 45_000;
/** Offline batches may still come: so long without one, and there are no more. */
const QUIET = 3_000;

/** What does not come in time is the checker's to find. */
export async function quieten({ pool, people, history }) {
  people.hush();
  await until(() => people.waiting === 0, { ms: OUTBOXES, what: 'acknowledgements' }).catch(() => {});
  await until(async () => {
    const last = history.records.findLast(({ kind }) => kind === 'offline')?.t ?? 0;
    return now() - last > QUIET && await isComplete({ pool, people });
  }, { ms: SETTLING, every: 250, what: 'everybody to have everything' }).catch(() => {});
  await people.finish();
}

/**
 * Compares the history with what is in PostgreSQL: `{violations, figures, text, folder, records, final}` and the `facts`
 * (`title`, `form`, `seconds`, perhaps `seed`). The report goes to the history's folder. `measured` is what `figuresOf` can't know.
 */
export async function verdict({ pool, people, history }, { measured, limits, ...facts }) {
  const final = await finalState({ pool, people });
  const records = [...history.records];
  const { folder } = history;
  const violations = check(records, final, limits);
  const result = { ...facts, figures: figuresOf(records, final, measured), violations, folder };
  const text = textOf(result);
  if (folder) {
    writeFileSync(path.join(folder, 'report.txt'), `${text}\n`);
    writeFileSync(path.join(folder, 'report.json'), `${JSON.stringify(result, null, 1)}\n`);
    writeFileSync(path.join(folder, 'final.json'), JSON.stringify(final));
  }
  return { ...result, text, records, final };
}
