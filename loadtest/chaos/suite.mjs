// One run of the suite, from an empty cluster to a report.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { check } from './checker.mjs';
import { startCluster, watchCounters } from './cluster.mjs';
import { sleep, until } from './deps.mjs';
import { finalState, isComplete, watchWatermarks } from './final.mjs';
import { History, now, runFolder } from './history.mjs';
import { NEMESES, torment } from './nemesis.mjs';
import { gather } from './people.mjs';
import { truthOf, watchPresence, watchSessions } from './presence.mjs';
import { randomOf } from './random.mjs';
import { figuresOf, textOf } from './report.mjs';

/** Messages a second of all devices. */
const RATE = 60;
/** After the last fault: until every message is acknowledged, … */
const OUTBOXES = 60_000;
/** … until everybody has everything (the server may take 30 s to mend) … */
const SETTLING = 45_000;
/** … and until nothing is left of an instance that was killed. */
const AFTER_DEATH = 40_000;
/** Offline batches may still come: so long without one, and there are no more. */
const QUIET = 3_000;

/**
 * `form`: `short` (each fault once, some clients are cut all the time) or `long` (faults until `seconds` are over).
 * `prepare(parts)` and `tamper(parts)` may break something before all and before the check. Answers
 * `{violations, figures, text, folder}`.
 */
export async function runSuite({
  form = 'long', seconds = 600, seed = Math.floor(Math.random() * 1e6), only = NEMESES, rate = RATE, base, say = () => {},
  prepare, tamper, env,
}) {
  const began = Date.now();
  const folder = base && runFolder(base, seed);
  const history = new History(folder);
  const random = randomOf(seed);
  const stopping = new AbortController();
  const watchers = [];
  let cluster;
  let people;
  try {
    cluster = await startCluster(history, { env });
    people = await gather(cluster, history, seed);
    const parts = { cluster, people, history, random, form };
    await prepare?.(parts);
    await people.connect();
    watchers.push(watchWatermarks(parts, stopping.signal), watchCounters(cluster, stopping.signal));
    people.talk(rate);
    await sleep(2_000);
    const cutting = new AbortController();
    const cut = form === 'short'
      ? people.cutAtRandom(cutting.signal, randomOf(seed + 1), people.devices.filter((_, place) => place % 3 === 0))
      : Promise.resolve();
    const time = () => `${String(Math.round((Date.now() - began) / 1_000)).padStart(4)} s`;
    await torment({ ...parts, seconds, only, say: (kind) => say(`${time()}  ${kind}`) });
    cutting.abort();
    await cut;

    say(`${time()}  an instance is killed for good`);
    const death = await killForGood(parts);
    const looks = [
      watchPresence(parts, { truth: () => truthOf(people), since: death, what: 'at the end', patience: AFTER_DEATH }),
      watchSessions(parts, { since: death, patience: AFTER_DEATH }),
    ];
    await sleep(2_000);
    people.hush();
    await until(() => people.waiting === 0, { ms: OUTBOXES, what: 'acknowledgements' }).catch(() => {});
    await Promise.all([settle(parts), ...looks]);

    stopping.abort();
    await Promise.all(watchers);
    await tamper?.(parts);
    const final = await finalState(parts);
    const records = [...history.records];
    const violations = check(records, final);
    const figures = figuresOf(records, final, measured(cluster, people));
    const result = { seed, form, seconds: (Date.now() - began) / 1_000, figures, violations, folder };
    const text = textOf(result);
    if (folder) {
      writeFileSync(path.join(folder, 'report.txt'), `${text}\n`);
      writeFileSync(path.join(folder, 'report.json'), `${JSON.stringify(result, null, 1)}\n`);
      writeFileSync(path.join(folder, 'final.json'), JSON.stringify(final));
    }
    return { ...result, text };
  } finally {
    stopping.abort();
    people?.close();
    await Promise.all(watchers);
    await cluster?.end();
    await history.close();
  }
}

/** Kills an instance, and two of its users don't come back. Answers when. */
async function killForGood({ cluster, people, random }) {
  // The one with most to lose: one that came back a moment ago has nobody yet.
  const [instance] = [...cluster.instances].sort((a, b) => people.on(b).length - people.on(a).length);
  const gone = random.shuffle(people.on(instance)).slice(0, 2);
  const since = now();
  const end = instance.end('SIGKILL');
  gone.forEach((device) => device.leave());
  await end;
  return since;
}

async function settle({ cluster, people, history }) {
  await until(async () => {
    const last = history.records.findLast(({ kind }) => kind === 'offline')?.t ?? 0;
    return now() - last > QUIET && await isComplete({ cluster, people });
  }, { ms: SETTLING, every: 250, what: 'everybody to have everything' }).catch(() => {});
  // Receipts that are on their way, and then no more: what is said must be there to be seen.
  await sleep(2_000);
  await people.rest();
}

function measured(cluster, people) {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const scrambled = {};
  for (const fate of ['lose', 'repeat', 'hold']) scrambled[fate] = sum(cluster.instances.map(({ proxies }) => proxies.redis.scrambled[fate]));
  return {
    healed: sum(cluster.instances.map((instance) => instance.counter('starling_messages_mended_total'))),
    scrambled,
    skipped: sum(people.devices.map(({ outbox }) => outbox.skipped)),
  };
}
