// Dashboards and alerts: well-formed, fresh, and about metrics that a real server has.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { parse, stringify } from 'yaml';
import { sleep, until } from '../../crates/server/e2e/support/wait.mjs';
import { stale } from '../dashboards/build.mjs';
import { Cluster } from '../native/cluster.mjs';
import { ROOT, TOOLS, program, run } from '../native/tools.mjs';

const at = (file) => path.join(ROOT, 'deploy', file);
const read = (file) => readFileSync(at(file), 'utf8');
const promtool = () => program('promtool', path.join(TOOLS, 'debian/usr/bin/promtool'));

const RULES = parse(read('prometheus/rules.yml')).groups.flatMap(({ rules }) => rules);
const BOARDS = readdirSync(at('dashboards/grafana')).map((name) => [name, JSON.parse(read(`dashboards/grafana/${name}`))]);

/** What Prometheus has by itself. */
const NOT_OURS = new Set(['up', 'ALERTS']);
/** Not there yet, but asked for. */
const WANTED = new Set(JSON.parse(read('dashboards/wanted.json')));

/** Names of metrics in an expression: words that are neither functions, labels, values nor keywords. */
function metricsOf(expr) {
  const bare = expr
    .replace(/\$__rate_interval|\[[^\]]*\]/g, '')
    .replace(/\{[^}]*\}/g, '')
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, '')
    .replace(/\boffset\s+\w+/g, '');
  const words = bare.match(/[a-zA-Z_:][\w:]*(?!\w*\s*\()/g) ?? [];
  return words.filter((word) => !['and', 'or', 'unless', 'bool'].includes(word) && !new RegExp(`\\b${word}\\s*\\(`).test(bare));
}

/** A histogram or summary is known by its family. */
const family = (name) => name.replace(/_(bucket|sum|count)$/, '');

const EXPRESSIONS = [
  ...RULES.map(({ alert, expr }) => [`alert ${alert}`, expr]),
  ...BOARDS.flatMap(([name, { panels }]) => panels.flatMap((panel) => panel.targets.map(({ expr }) => [`${name}: ${panel.title}`, expr]))),
];

test('names are found in expressions', () => {
  assert.deepEqual(metricsOf('max(sum by (instance) (a_b{c="d"})) > 2 * avg(e_total offset 5m) and vector(0)'), ['a_b', 'e_total']);
  assert.deepEqual(metricsOf('histogram_quantile(0.99, sum by (le) (rate(x_bucket[5m]))) or f{g=~"h|i"}'), ['x_bucket', 'f']);
});

describe('Prometheus', () => {
  test('accepts its configuration and the rules', async () => {
    await run(promtool(), ['check', 'rules', '--lint-fatal', at('prometheus/rules.yml')]);
    await run(promtool(), ['check', 'config', '--syntax-only', at('prometheus/prometheus.yml')]);
  });

  test('fires the alerts when it should', () => run(promtool(), ['test', 'rules', 'rules.test.yml'], { cwd: at('prometheus') }));

  test('understands every panel', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'starling-panels-'));
    const rules = EXPRESSIONS.map(([, expr], i) => ({ record: `panel:${i}`, expr: expr.replaceAll('$__rate_interval', '1m') }));
    writeFileSync(path.join(folder, 'panels.yml'), stringify({ groups: [{ name: 'panels', rules }] }));
    try {
      await run(promtool(), ['check', 'rules', '--lint=none', path.join(folder, 'panels.yml')]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('has a line in the runbook for every alert', () => {
    const guide = read('README.md');
    for (const { alert, annotations, labels } of RULES) {
      assert.ok(['page', 'ticket'].includes(labels.severity), alert);
      assert.equal(annotations.runbook, `deploy/README.md#${alert.toLowerCase()}`);
      assert.match(guide, new RegExp(`^(#+ |\\| <a id="${alert.toLowerCase()}"></a>)\`?${alert}\``, 'm'), `${alert} is not in deploy/README.md`);
    }
  });
});

describe('Grafana', () => {
  test('the files are what build.mjs makes', () => {
    assert.deepEqual(stale(), [], 'run `node deploy/dashboards/build.mjs`');
  });

  test('panels have what they need, and do not lie on each other', () => {
    const uids = new Set();
    for (const [name, board] of BOARDS) {
      assert.ok(!uids.has(board.uid));
      uids.add(board.uid);
      const taken = new Set();
      for (const { title, type, gridPos: { x, y, w, h }, targets, datasource } of board.panels) {
        assert.ok(title && ['timeseries', 'stat'].includes(type) && targets.length > 0, `${name}: ${title}`);
        assert.equal(datasource.uid, '${datasource}');
        assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length);
        assert.ok(x + w <= 24);
        for (let i = x; i < x + w; i += 1) {
          for (let j = y; j < y + h; j += 1) {
            assert.ok(!taken.has(`${i} ${j}`), `${name}: ${title} lies on another panel`);
            taken.add(`${i} ${j}`);
          }
        }
      }
    }
  });

  test('each page of Compose is mounted where Grafana looks', () => {
    const compose = parse(read('docker/compose.yaml'));
    const { path: folder } = parse(read('dashboards/provisioning/dashboards.yaml')).providers[0].options;
    assert.ok(compose.services.grafana.volumes.some((volume) => volume === `../dashboards/grafana:${folder}:ro`));
    const home = compose.services.grafana.environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH;
    assert.ok(BOARDS.some(([name]) => home === `${folder}/${name}`));
  });
});

describe('metrics', () => {
  let cluster;
  const sockets = [];
  const seen = new Map();

  /** Adds what the instances tell now: names, and the labels of each. */
  async function scrape() {
    for (const instance of cluster.instances) {
      for (const line of (await instance.metrics()).split('\n')) {
        const [, name, labels] = /^([a-z_]+)(?:\{(.*)\})? /.exec(line) ?? [];
        if (!name) continue;
        const known = seen.get(name) ?? new Set();
        seen.set(name, known);
        for (const [, label] of (labels ?? '').matchAll(/(\w+)="/g)) known.add(label);
        if (family(name) !== name) seen.set(family(name), known);
      }
    }
  }

  const connect = async ({ token }, { url } = cluster) => {
    const socket = io(url, { auth: { token }, forceNew: true, transports: ['websocket'], reconnectionDelay: 100, reconnectionDelayMax: 500 });
    sockets.push(socket);
    const state = { socket, ready: false };
    socket.on('session:ready', () => { state.ready = true; });
    await until(() => state.ready, { ms: 15_000, what: 'a connection' });
    return socket;
  };
  const send = (socket, roomId, content) => socket.timeout(10_000).emitWithAck('message:send', { roomId, content }).catch(() => undefined);

  // Counters are there from the first time that they count: so let everything happen once.
  before(async () => {
    cluster = await Cluster.start({ instances: 2, env: { DB_MAX_CONNECTIONS: '10', CONNECT_RATE_PER_INSTANCE: '5', MESSAGE_RATE_PER_USER: '5' } });
    const users = readFileSync(await cluster.seed({ users: 4, rooms: 1, members: 4 }), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const [room] = users[0].roomIds;
    const one = await connect(users[0], cluster.instances[0]);
    await connect(users[1], cluster.instances[1]);
    await Promise.all(Array.from({ length: 8 }, (_, i) => send(one, room, `hello ${i}`)));
    // Limits on handshakes, undelivered messages, the cache of a room.
    await Promise.all(Array.from({ length: 30 }, () => fetch(`${cluster.url}/socket.io/?EIO=4&transport=polling`).then((answer) => answer.text())));
    await connect(users[2]);
    await until(async () => { await scrape(); return seen.has('starling_offline_batches_total'); }, { ms: 10_000, every: 100, what: 'an offline batch' });
    for (let i = 0; i < 4; i += 1) {
      await (await fetch(`${cluster.url}/api/rooms/${room}/messages`, { headers: { authorization: `Bearer ${users[0].token}` } })).text();
    }
    // A Redis that does not answer, none at all, and then no PostgreSQL.
    const has = (name) => until(async () => { await scrape(); return seen.has(name); }, { ms: 20_000, every: 100, what: name });
    cluster.redis.process.signal('SIGSTOP');
    await Promise.all([send(one, room, 'Redis sleeps'), has('starling_redis_errors_total')]);
    cluster.redis.process.signal('SIGCONT');
    await cluster.redis.stop('SIGKILL');
    const unpublished = async () => /^starling_cluster_unpublished_total [1-9]/m.test(await cluster.instances[0].metrics());
    await until(async () => (await send(one, room, 'without Redis'))?.ok && unpublished(), { ms: 30_000, every: 300, what: 'a message that Redis did not take' });
    await cluster.redis.start();
    await has('starling_messages_mended_total');
    await cluster.postgres.stop();
    await Promise.all(users.map(({ token }) => fetch(`${cluster.url}/api/rooms`, { headers: { authorization: `Bearer ${token}` } }).then((answer) => answer.text()).catch(() => {})));
    await cluster.postgres.start();
    await scrape();
  }, { timeout: 120_000 });

  after(async () => {
    sockets.forEach((socket) => socket.disconnect());
    await cluster?.stop();
  });

  /** Only what goes wrong very seldom, and can't be made to, is looked up in the source instead. */
  const RARE = new Set(['starling_redis_silences_total', 'starling_room_cache_dropped_total']);

  function exists(name) {
    if (seen.has(name) || seen.has(family(name))) return true;
    return RARE.has(name) && readdirSync(path.join(ROOT, 'crates/redis/src')).some((file) => readFileSync(path.join(ROOT, 'crates/redis/src', file), 'utf8').includes(`"${name}"`));
  }

  test('every panel and every alert names metrics that a server has', (t) => {
    const missing = [];
    const named = new Set();
    for (const [where, expr] of EXPRESSIONS) {
      const names = metricsOf(expr);
      assert.ok(names.length > 0, `${where}: ${expr}`);
      for (const name of names.filter((each) => !NOT_OURS.has(each))) {
        named.add(name);
        if (!exists(name) && !WANTED.has(family(name))) missing.push(`${where}: ${name}`);
      }
    }
    assert.deepEqual(missing, []);
    t.diagnostic(`${EXPRESSIONS.length} expressions, ${named.size} metrics`);
    const here = [...WANTED].filter(exists);
    if (here.length > 0) t.diagnostic(`no longer only wanted, take them out of dashboards/wanted.json: ${here.join(', ')}`);
  });

  test('labels that they choose by are there', () => {
    const missing = [];
    for (const [where, expr] of EXPRESSIONS) {
      for (const [, name, labels] of expr.matchAll(/(starling_\w+)\{([^}]*)\}/g)) {
        if (WANTED.has(family(name))) continue;
        for (const [, label] of labels.matchAll(/(\w+)\s*=/g)) {
          if (!seen.get(name)?.has(label)) missing.push(`${where}: ${name} has no label ${label}`);
        }
      }
    }
    assert.deepEqual(missing, []);
  });

  test('no metric of a server is without a panel or an alert', (t) => {
    const named = new Set(EXPRESSIONS.flatMap(([, expr]) => metricsOf(expr)).flatMap((name) => [name, family(name)]));
    const unseen = [...seen.keys()].filter((name) => name.startsWith('starling_') && !named.has(name) && !named.has(family(name)));
    if (unseen.length > 0) t.diagnostic(`not shown anywhere: ${unseen.join(', ')}`);
  });
});
