// Dashboards and alerts: well-formed, fresh, and about metrics that a real server has.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, readdirSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { parse, stringify } from 'yaml';
import { until } from '../../crates/server/e2e/support/wait.mjs';
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
/** The table for operators: name → labels, each with its values if they are listed. */
const TABLE = new Map(read('METRICS.md').split('\n')
  .map((line) => /^\| `(starling_\w+)` \| \w+ \| (.*?) \| /.exec(line)).filter(Boolean)
  .map(([, name, labels]) => [name, labels]));

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

  // Everything is there from the start; a conversation, and each label that is counted has a value.
  before(async () => {
    cluster = await Cluster.start({ instances: 2, env: { DB_MAX_CONNECTIONS: '10', MESSAGE_RATE_PER_USER: '5' } });
    const users = readFileSync(await cluster.seed({ users: 2, rooms: 1, members: 2 }), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const [room] = users[0].roomIds;
    const one = await connect(users[0], cluster.instances[0]);
    const other = await connect(users[1], cluster.instances[1]);
    const heard = once(other, 'message:new');
    await Promise.all(Array.from({ length: 8 }, (_, i) => send(one, room, `hello ${i}`)));
    const [{ id }] = await heard;
    await other.timeout(10_000).emitWithAck('message:delivered', { roomId: room, messageIds: [id] });
    await scrape();
  }, { timeout: 120_000 });

  after(async () => {
    sockets.forEach((socket) => socket.disconnect());
    await cluster?.stop();
  });

  const exists = (name) => seen.has(name) || seen.has(family(name));

  test('every panel and every alert names metrics that a server has', (t) => {
    const missing = [];
    const named = new Set();
    for (const [where, expr] of EXPRESSIONS) {
      const names = metricsOf(expr);
      assert.ok(names.length > 0, `${where}: ${expr}`);
      for (const name of names.filter((each) => !NOT_OURS.has(each))) {
        named.add(name);
        if (!exists(name)) missing.push(`${where}: ${name}`);
      }
    }
    assert.deepEqual(missing, []);
    t.diagnostic(`${EXPRESSIONS.length} expressions, ${named.size} metrics`);
  });

  test('labels that they choose by are there', () => {
    const missing = [];
    for (const [where, expr] of EXPRESSIONS) {
      for (const [, name, labels] of expr.matchAll(/(starling_\w+)\{([^}]*)\}/g)) {
        for (const [, label] of labels.matchAll(/(\w+)\s*=/g)) {
          if (!seen.get(name)?.has(label)) missing.push(`${where}: ${name} has no label ${label}`);
        }
      }
    }
    assert.deepEqual(missing, []);
  });

  test('no metric of a server is without a panel or an alert', () => {
    const named = new Set(EXPRESSIONS.flatMap(([, expr]) => metricsOf(expr)).flatMap((name) => [name, family(name)]));
    assert.deepEqual([...TABLE.keys()].filter((name) => !named.has(name)), []);
  });

  test('the table has what a server has, and nothing else; a label has the values that stand there', async () => {
    const ours = new Set([...seen.keys()].map(family).filter((name) => name.startsWith('starling_')));
    assert.deepEqual([...ours].sort(), [...TABLE.keys()].sort());
    for (const line of (await cluster.instances[0].metrics()).split('\n')) {
      const [, name, labels] = /^(starling_\w+)\{(.*)\} /.exec(line) ?? [];
      if (!name) continue;
      const told = TABLE.get(family(name));
      for (const [, label, value] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
        if (label === 'le') continue;
        assert.ok(told.includes(`\`${label}\``), `${name}: ${label}`);
        const values = new RegExp(`\`${label}\`: ([\\w, ]+)`).exec(told)?.[1].split(', ');
        if (values) assert.ok(values.includes(value), `${name}: ${label}="${value}"`);
      }
    }
  });
});
