// One run of the suite, from an empty cluster to a report.

import { startCluster, watchCounters } from './cluster.mjs';
import { sleep } from './deps.mjs';
import { watchWatermarks } from './final.mjs';
import { History, now, runFolder } from './history.mjs';
import { NEMESES, torment } from './nemesis.mjs';
import { gather } from './people.mjs';
import { watchEnd } from './presence.mjs';
import { randomOf } from './random.mjs';
import { quieten, verdict } from './verdict.mjs';

/** Messages a second of all devices. */
const RATE = 60;

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
    const parts = { cluster, pool: cluster.pool, people, history, random, form };
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
    const looked = watchEnd(parts, death);
    await sleep(2_000);
    await Promise.all([quieten(parts), looked]);

    stopping.abort();
    await Promise.all(watchers);
    await tamper?.(parts);
    return await verdict(parts, {
      title: 'Starling fault suite', seed, form, seconds: (Date.now() - began) / 1_000, measured: measured(cluster, people),
    });
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
