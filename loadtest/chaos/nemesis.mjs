// The faults: what they do, and the schedule of a run. Each is undone after its time.

import { sleep } from './deps.mjs';
import { faultLog } from './faults.mjs';
import { watchPresence } from './presence.mjs';

/** How long each lasts, in ms: in a long run, and in the short form. */
const LASTS = {
  kill: { long: [1_000, 4_000], short: [800, 1_500] },
  stop: { long: [20_000, 20_000], short: [6_000, 7_000] },
  'redis-restart': { long: [1_000, 6_000], short: [3_500, 3_500] },
  'pubsub-kill': { long: [1_000, 3_000], short: [1_000, 1_000] },
  'postgres-restart': { long: [500, 6_000], short: [1_000, 2_000] },
  'cut-redis': { long: [3_000, 12_000], short: [4_000, 4_000] },
  'stall-redis': { long: [4_000, 15_000], short: [5_000, 5_000] },
  'cut-postgres': { long: [2_000, 10_000], short: [2_500, 2_500] },
  'stall-postgres': { long: [3_000, 15_000], short: [4_000, 4_000] },
  slow: { long: [5_000, 10_000], short: [2_000, 2_000] },
  scramble: { long: [5_000, 15_000], short: [4_000, 4_000] },
  'cut-clients': { long: [60_000, 60_000], short: [6_000, 6_000] },
  rolling: { long: [500, 2_000], short: [200, 300] },
};

const KINDS = {
  async kill(context) {
    const { cluster, people, random } = context;
    // One that came back a moment ago has nobody yet.
    const peopled = cluster.instances.filter((one) => people.on(one).length > 2);
    const instance = random.pick(peopled.length > 0 ? peopled : cluster.instances);
    const leaver = chooseLeaver(context, instance);
    await context.fault('kill', [instance.name], {}, async () => {
      leaver?.leaveWith();
      await instance.end('SIGKILL');
      await sleep(context.lasts('kill'));
      await instance.start();
    });
    leaver?.watch();
  },

  async stop(context) {
    const instance = context.random.pick(context.cluster.instances);
    await context.fault('stop', [instance.name], {}, async () => {
      instance.signal('SIGSTOP');
      try {
        await sleep(context.lasts('stop'));
      } finally {
        instance.signal('SIGCONT');
      }
    });
  },

  async 'redis-restart'(context) {
    const signal = context.turn('redis-restart', ['SIGKILL', 'SIGTERM']);
    await context.fault('redis-restart', null, { signal }, async () => {
      await context.cluster.stopRedis(signal);
      try {
        await sleep(context.lasts('redis-restart'));
      } finally {
        await context.cluster.startRedis();
      }
    });
  },

  async 'pubsub-kill'(context) {
    await context.fault('pubsub-kill', null, {}, async () => {
      for (let round = 0; round < 3; round += 1) {
        await context.cluster.redisCommand('CLIENT', 'KILL', 'TYPE', 'pubsub');
        await sleep(context.lasts('pubsub-kill') / 3);
      }
    });
  },

  async 'postgres-restart'(context) {
    const mode = context.turn('postgres-restart', ['immediate', 'fast']);
    const { postgres } = context.cluster;
    await context.fault('postgres-restart', null, { mode }, async () => {
      await postgres.stop(mode);
      try {
        await sleep(context.lasts('postgres-restart'));
      } finally {
        await postgres.start();
      }
    });
  },

  'cut-redis': (context) => link(context, 'cut-redis', 'redis', (proxy) => proxy.cut()),
  'stall-redis': (context) => link(context, 'stall-redis', 'redis', (proxy) => proxy.stall()),
  'cut-postgres': (context) => link(context, 'cut-postgres', 'postgres', (proxy) => proxy.cut()),
  'stall-postgres': (context) => link(context, 'stall-postgres', 'postgres', (proxy) => proxy.stall()),

  async slow(context) {
    const { cluster, random } = context;
    const instance = random.pick(cluster.instances);
    const ms = random.integer(20, 150);
    await context.fault('slow', [instance.name], { ms }, async () => {
      Object.values(instance.proxies).forEach((proxy) => proxy.delay(ms));
      await sleep(context.lasts('slow'));
      Object.values(instance.proxies).forEach((proxy) => proxy.pass());
    });
  },

  // Connections stay up, nothing tells the instance: it has to find out by itself.
  async scramble(context) {
    const { cluster, random } = context;
    const { proxies: { redis: proxy }, name } = random.pick(cluster.instances);
    await context.fault('scramble', [name], {}, async () => {
      proxy.scramble(() => {
        const drawn = random.next();
        if (drawn < 0.15) return 'lose';
        if (drawn < 0.25) return 'repeat';
        return drawn < 0.35 ? 'hold' : undefined;
      });
      await sleep(context.lasts('scramble'));
      proxy.pass();
    });
  },

  async 'cut-clients'(context) {
    const { people, random } = context;
    await context.fault('cut-clients', [], {}, async () => {
      await people.cutAtRandom(AbortSignal.timeout(context.lasts('cut-clients')), random);
    });
  },

  async rolling(context) {
    const { cluster, history } = context;
    await context.fault('rolling', null, {}, async () => {
      for (const instance of cluster.instances) {
        const { id } = instance;
        const exit = await instance.end('SIGTERM');
        history.write('drained', { id, ...exit });
        await sleep(context.lasts('rolling'));
        await instance.start();
        await instance.ready();
      }
    });
  },
};

export const NEMESES = Object.keys(KINDS);

async function link(context, kind, backend, fault) {
  const instance = context.random.pick(context.cluster.instances);
  const proxy = instance.proxies[backend];
  await context.fault(kind, [instance.name], {}, async () => {
    fault(proxy);
    await sleep(context.lasts(kind));
    proxy.pass();
  });
}

/** Somebody who goes away together with an instance: the others have to find out that nobody is there any more. */
function chooseLeaver(context, instance) {
  const { people, history } = context;
  const lone = people.on(instance).filter(({ user }) => people.devices.filter((other) => other.user === user).length === 1);
  if (lone.length === 0) return undefined;
  const device = context.random.pick(lone);
  const truth = (status) => () => new Map([[device.user.id, status]]);
  let since;
  return {
    leaveWith() {
      // The process is killed in the same turn: no word of this reaches it.
      instance.signal('SIGKILL');
      device.leave();
      since = history.records.at(-1).t;
    },
    watch() {
      context.background((async () => {
        await watchPresence(context, { truth: truth('offline'), since, what: 'left with a killed instance' });
        device.comeBack();
        await watchPresence(context, { truth: truth('online'), since: history.records.at(-1).t, what: 'came back' });
      })());
    },
  };
}

class Context {
  #turns = new Map();
  #running = [];
  #record;

  constructor({ cluster, pool, people, history, random, form }) {
    Object.assign(this, { cluster, pool, people, history, random, form });
    this.#record = faultLog(history, (ms) => cluster.recovered(ms));
  }

  lasts(kind) {
    return this.random.between(...LASTS[kind][this.form]);
  }

  /** One after the other of the ways that there are. */
  turn(kind, ways) {
    const count = this.#turns.get(kind) ?? this.random.integer(0, ways.length - 1);
    this.#turns.set(kind, count + 1);
    return ways[count % ways.length];
  }

  /** One that does not end well is recorded, and the run goes on. */
  async fault(...fault) {
    await this.#record(...fault).catch(() => {});
  }

  background(promise) {
    this.#running.push(promise);
  }

  settled() {
    return Promise.all(this.#running);
  }
}

/**
 * Runs faults one after the other: each kind once in the short form; in a long one until the time is over, all kinds
 * in a new order each time. `only` names some.
 */
export async function torment({ seconds, only = NEMESES, say = () => {}, ...parts }) {
  const context = new Context(parts);
  const { random, form } = parts;
  const end = Date.now() + seconds * 1_000;
  const run = async (kind) => {
    say(kind);
    await KINDS[kind](context);
  };
  if (form === 'short') {
    // What is looked at for longest comes first.
    const order = only.includes('kill') ? ['kill', ...random.shuffle(only.filter((kind) => kind !== 'kill'))] : random.shuffle(only);
    for (const kind of order) {
      await run(kind);
      await sleep(random.between(300, 700));
    }
  } else {
    while (Date.now() < end) {
      for (const kind of random.shuffle(only)) {
        if (Date.now() >= end) break;
        if (kind === 'cut-clients') {
          say(kind);
          context.background(KINDS[kind](context));
          if (only.length === 1) await context.settled();
        } else await run(kind);
        await sleep(random.between(1_000, 5_000));
      }
    }
  }
  await context.settled();
}
