// Images, Compose, Kubernetes and systemd: valid by their own schemas, and in agreement with each other.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { parse, parseAllDocuments } from 'yaml';
import { SETTINGS } from '../native/postgres.mjs';
import { Cluster } from '../native/cluster.mjs';
import { Process, ROOT, TOOLS, freePort, program, run } from '../native/tools.mjs';
import { DEFAULTS, TEMPLATE, render } from '../nginx/render.mjs';
import { until } from '../../crates/server/e2e/support/wait.mjs';

const at = (file) => path.join(ROOT, 'deploy', file);
const read = (file) => readFileSync(at(file), 'utf8');
const tool = (name) => path.join(TOOLS, 'venv/bin', name);
const KUBERNETES = '1.34.0';
/** What is kept for migrations, backups and people. */
const SPARE_CONNECTIONS = 50;

let folder;
before(() => { folder = mkdtempSync(path.join(tmpdir(), 'starling-manifests-')); });
after(() => rmSync(folder, { recursive: true, force: true }));

describe('images', () => {
  for (const name of ['Dockerfile', 'Dockerfile.nginx']) {
    test(`the linter has nothing to say about ${name}`, () => run(tool('hadolint'), [at(`docker/${name}`)]));
  }

  const stages = [...read('docker/Dockerfile').matchAll(/^FROM \S+ AS (\w+)/gm)].map(([, stage]) => stage);

  test('dependencies have a layer of their own, and a plain user runs the server', () => {
    assert.deepEqual(stages, ['web', 'manifests', 'build', 'runtime']);
    const dockerfile = read('docker/Dockerfile');
    const build = dockerfile.slice(dockerfile.indexOf(' AS build'));
    assert.ok(build.indexOf('COPY --from=manifests') < build.indexOf('steps/build release'));
    assert.ok(build.indexOf('steps/build release') < build.indexOf('COPY . .'));
    assert.match(dockerfile, /^USER 10001:10001$/m);
    assert.match(dockerfile, /^HEALTHCHECK /m);
    assert.ok(!/^(ARG|ENV).*(SECRET|PASSWORD|TOKEN)\w*=/mi.test(dockerfile), 'a secret in a layer');
  });

  test('the web app lies where the server embeds it from', () => {
    const [web, , build] = read('docker/Dockerfile').split(/^FROM /m).slice(1);
    assert.match(web, /^WORKDIR \/src\/frontend$/m);
    const built = /^COPY --from=web \/src\/frontend\/dist (\S+)$/m.exec(build);
    // Beside the crates, and after the checkout, which has none.
    assert.match(readFileSync(path.join(ROOT, 'crates/server/build.rs'), 'utf8'), /join\("\.\.\/\.\.\/frontend"\)[\s\S]*join\("dist"\)/);
    assert.equal(built[1], 'frontend/dist');
    assert.ok(build.indexOf('COPY . .') < built.index && built.index < build.lastIndexOf('steps/build release'));
  });

  test('the context has what is built, and no secrets', () => {
    const allowed = read('docker/Dockerfile.dockerignore').split('\n').filter((line) => line.startsWith('!')).map((line) => line.slice(1));
    for (const name of allowed) assert.ok(existsSync(path.join(ROOT, name)), name);
    assert.equal(read('docker/Dockerfile.dockerignore').split('\n').find((line) => line && !line.startsWith('#')), '*');
    assert.ok(!allowed.some((name) => 'deploy/docker/secrets'.startsWith(`${name}/`)));
  });

  test('the skeleton is a workspace with the same crates and targets', async () => {
    const to = path.join(folder, 'skeleton');
    await run(at('docker/steps/skeleton'), [ROOT, to]);
    const metadata = async (cwd) => {
      const { stdout } = await run('cargo', ['metadata', '--locked', '--offline', '--no-deps', '--format-version', '1'], { cwd, env: { CARGO_HOME: process.env.CARGO_HOME ?? path.join(process.env.HOME, '.cargo'), RUSTUP_HOME: process.env.RUSTUP_HOME ?? path.join(process.env.HOME, '.rustup') } });
      return JSON.parse(stdout).packages
        .map(({ name, targets }) => [name, targets.map((target) => `${target.kind} ${target.name}`).filter((text) => /^(lib|bin|custom-build)/.test(text)).sort()])
        .sort();
    };
    assert.deepEqual(await metadata(to), await metadata(ROOT));
    // No code: it changes when a manifest does, and only then.
    const sizes = readdirSync(path.join(to, 'crates/chat/src')).map((file) => statSync(path.join(to, 'crates/chat/src', file)).size);
    assert.deepEqual(sizes, [0]);
  });

  test('the check of health needs nothing but a shell, and sees life and death', async () => {
    let status = 200;
    const server = createServer((request, response) => { response.writeHead(request.url === '/healthz' ? status : 404); response.end('ok'); });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const env = { BIND_ADDR: `0.0.0.0:${server.address().port}` };
    await run(at('docker/steps/health'), [], { env });
    status = 503;
    await assert.rejects(run(at('docker/steps/health'), [], { env }));
    server.closeAllConnections();
    server.close();
    await assert.rejects(run(at('docker/steps/health'), [], { env: { BIND_ADDR: `0.0.0.0:${await freePort()}` } }));
  });

  test('envsubst makes of the template what render.mjs makes', async () => {
    const dockerfile = read('docker/Dockerfile.nginx');
    const [, block] = /^ENV ((?:.*\\\n)*.*)$/m.exec(dockerfile);
    const env = Object.fromEntries([...block.matchAll(/(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))/g)].map(([, name, quoted, plain]) => [name, (quoted ?? plain).replace(/\\\$/g, '$')]));
    const values = Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith('STARLING_')));
    assert.deepEqual(Object.keys(values).sort(), Object.keys(DEFAULTS).sort());
    for (const name of Object.keys(DEFAULTS).filter((each) => !/_(DIR|RESOLVER|SERVERS)$/.test(each))) assert.equal(values[name], DEFAULTS[name], name);
    const names = Object.keys(values).map((name) => `\${${name}}`).join(' ');
    const { stdout } = await run(program('envsubst', path.join(TOOLS, 'debian/usr/bin/envsubst')), [names], { env: values, input: readFileSync(TEMPLATE, 'utf8') });
    assert.equal(stdout, render(values));
  });
});

describe('Compose', () => {
  const compose = parse(read('docker/compose.yaml'), { merge: true });
  const { services } = compose;

  test('is what the schema allows', () => run(tool('check-jsonschema'), [
    '--builtin-schema', 'vendor.compose-spec', at('docker/compose.yaml'), at('docker/compose.tls.yaml'),
  ]));

  test('has the versions that were asked for', () => {
    assert.match(services.postgres.image, /^postgres:15\b/);
    assert.match(services.redis.image, /^redis:7\b/);
    for (const [name, { image }] of Object.entries(services)) assert.ok(!/:latest$|^[^:]+$/.test(image), `${name}: ${image}`);
  });

  test('PostgreSQL has connections for every instance', () => {
    const flags = services.postgres.command.join(' ');
    const [, max] = /max_connections=(\d+)/.exec(flags);
    const { replicas } = services.backend.deploy;
    assert.equal(replicas, 4);
    assert.ok(Number(max) >= replicas * Number(services.backend.environment.DB_MAX_CONNECTIONS) + SPARE_CONNECTIONS);
    assert.equal(SETTINGS.max_connections, max, 'the cluster on one machine is another');
  });

  test('Redis never evicts, and has room for more than it may hold', () => {
    const conf = read('redis/redis.conf');
    assert.match(conf, /^maxmemory-policy noeviction$/m);
    const [, limit] = /^maxmemory (\d+)mb$/m.exec(conf);
    assert.ok(parseInt(services.redis.deploy.resources.limits.memory, 10) > Number(limit));
  });

  test('an instance has time to drain', () => {
    assert.ok(parseInt(services.backend.stop_grace_period, 10) > Number(services.backend.environment.DRAIN_TIMEOUT_SECONDS) + 5);
  });

  test('every file is there, but for secrets, which git ignores and make-secrets makes', async () => {
    for (const { file } of Object.values(compose.configs)) assert.ok(existsSync(path.join(at('docker'), file)), file);
    const made = path.join(folder, 'secrets');
    await run(at('docker/make-secrets'), [made]);
    for (const { file } of Object.values(compose.secrets)) {
      assert.ok(file.startsWith('secrets/'), file);
      assert.ok(existsSync(path.join(made, path.basename(file))), file);
    }
    await run('git', ['check-ignore', '-q', 'deploy/docker/secrets/jwt_secret'], { cwd: ROOT, env: { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' } });
    const before = readFileSync(path.join(made, 'jwt_secret'), 'utf8');
    assert.ok(before.length >= 32);
    assert.equal(statSync(made).mode & 0o077, 0);
    await run(at('docker/make-secrets'), [made]);
    assert.equal(readFileSync(path.join(made, 'jwt_secret'), 'utf8'), before, 'secrets are made once');
    for (const [name, { environment = {} }] of Object.entries(services)) {
      for (const [key, value] of Object.entries(environment)) {
        assert.ok(!/(PASSWORD|SECRET|TOKEN|URL)$/.test(key) || !value, `${name}: ${key} is in plain sight`);
      }
    }
  });

  test('only NGINX and Grafana can be reached', () => {
    const open = Object.entries(services).filter(([, { ports }]) => ports).map(([name]) => name);
    assert.deepEqual(open.sort(), ['grafana', 'nginx']);
    assert.equal(compose.networks.inside.internal, true);
    assert.ok(services.grafana.ports.every((port) => port.startsWith('127.0.0.1:')));
  });

  test('what Starling needs of Redis is allowed to it there, and nothing else', async () => {
    const made = path.join(folder, 'secrets-redis');
    await run(at('docker/make-secrets'), [made]);
    const port = await freePort();
    const redis = new Process('redis', program('redis-server'), [
      at('redis/redis.conf'), '--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--aclfile', path.join(made, 'redis_users.acl'),
    ], { log: path.join(folder, 'redis.log') });
    redis.start();
    const url = new URL(readFileSync(path.join(made, 'redis_url'), 'utf8'));
    url.hostname = '127.0.0.1';
    url.port = String(port);
    const cli = (...args) => run(program('redis-cli'), ['-u', url.href, '--no-auth-warning', ...args]).then(({ stdout }) => stdout.trim());
    await until(async () => (await cli('ping')) === 'PONG', { ms: 10_000 });
    let cluster;
    const sockets = [];
    try {
      cluster = await Cluster.start({ instances: 2, env: { REDIS_URL: url.href, DB_MAX_CONNECTIONS: '5' } });
      // Both are subscribed and answer each other: what the adapter and presence do passes.
      const users = readFileSync(await cluster.seed({ users: 2, rooms: 1, members: 2 }), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
      sockets.push(...users.map(({ token }, i) => io(cluster.instances[i].url, { auth: { token }, forceNew: true, transports: ['websocket'] })));
      const heard = once(sockets[1], 'message:new');
      await Promise.all(sockets.map((socket) => once(socket, 'session:ready')));
      await sockets[0].timeout(5_000).emitWithAck('message:send', { roomId: users[0].roomIds[0], content: 'hello' });
      assert.equal((await heard)[0].content, 'hello');
      const { presence } = await sockets[0].timeout(5_000).emitWithAck('presence:query', { userIds: [users[1].userId] });
      assert.equal(presence[0].status, 'online');
      for (const instance of cluster.instances) {
        assert.ok(!/NOPERM/.test(readFileSync(cluster.log(instance.name), 'utf8')), 'Redis forbids something that Starling asks for');
        assert.ok(!/redis_errors_total [1-9]/.test(await instance.metrics()));
      }
      assert.match(await cli('flushall').catch(({ stdout }) => stdout), /NOPERM|no permissions/i);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
      await cluster?.stop();
      await redis.stop();
    }
  });
});

describe('Kubernetes', () => {
  const kubectl = path.join(TOOLS, 'bin/kubectl');
  const overlays = readdirSync(at('kubernetes/overlays'));
  const objects = {};

  before(async () => {
    for (const overlay of overlays) {
      const { stdout } = await run(kubectl, ['kustomize', at(`kubernetes/overlays/${overlay}`)]);
      writeFileSync(path.join(folder, `${overlay}.yaml`), stdout);
      objects[overlay] = parseAllDocuments(stdout).map((document) => document.toJS());
    }
  });

  const find = (overlay, kind, name = 'starling') => objects[overlay].find((object) => object.kind === kind && object.metadata.name === name);

  for (const overlay of overlays) {
    test(`${overlay} is what Kubernetes ${KUBERNETES} takes`, () => run(tool('kubernetes-validate'), [
      '--strict', '--quiet', '-k', KUBERNETES, path.join(folder, `${overlay}.yaml`),
    ]));

    test(`${overlay}: plain users, read-only roots, nothing more than needed, no secrets`, () => {
      for (const { kind, metadata: { name }, spec } of objects[overlay]) {
        assert.notEqual(kind, 'Secret', name);
        if (!['Deployment', 'Job'].includes(kind)) continue;
        const pod = spec.template.spec;
        assert.equal(pod.securityContext.runAsNonRoot, true, name);
        assert.equal(pod.automountServiceAccountToken, false, name);
        for (const container of pod.containers) {
          assert.equal(container.securityContext.readOnlyRootFilesystem, true, name);
          assert.equal(container.securityContext.allowPrivilegeEscalation, false, name);
          assert.deepEqual(container.securityContext.capabilities.drop, ['ALL'], name);
          assert.ok(container.resources.requests && container.resources.limits.memory, name);
          assert.ok(!/:latest$|^[^:]+$/.test(container.image), `${name}: ${container.image}`);
        }
      }
    });

    test(`${overlay}: every selector finds its pods, every volume its source`, () => {
      const labels = find(overlay, 'Deployment').spec.template.metadata.labels;
      const matches = (selector) => Object.entries(selector).every(([key, value]) => labels[key] === value);
      assert.ok(matches(find(overlay, 'Service').spec.selector));
      assert.ok(matches(find(overlay, 'PodDisruptionBudget').spec.selector.matchLabels));
      assert.ok(matches(find(overlay, 'NetworkPolicy').spec.podSelector.matchLabels));
      const maps = objects[overlay].filter(({ kind }) => kind === 'ConfigMap').map(({ metadata }) => metadata.name);
      for (const { spec } of objects[overlay].filter(({ kind }) => kind === 'Deployment')) {
        const pod = spec.template.spec;
        for (const { envFrom = [] } of pod.containers) envFrom.forEach(({ configMapRef }) => assert.ok(maps.includes(configMapRef.name)));
        pod.volumes.forEach(({ configMap }) => assert.ok(!configMap || maps.includes(configMap.name)));
      }
    });

    test(`${overlay}: a pod has time to drain`, () => {
      const pod = find(overlay, 'Deployment').spec.template.spec;
      const [container] = pod.containers;
      const { data } = objects[overlay].find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === container.envFrom[0].configMapRef.name);
      const wait = Number(container.lifecycle.preStop.exec.command[1]);
      assert.ok(pod.terminationGracePeriodSeconds > wait + Number(data.DRAIN_TIMEOUT_SECONDS) + 5);
    });
  }

  test('as many pods as there may be fit into PostgreSQL', () => {
    const { data } = objects.production.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name.startsWith('starling'));
    // One more while a new version rolls out.
    const pods = find('production', 'HorizontalPodAutoscaler').spec.maxReplicas + 1;
    assert.ok(pods * Number(data.DB_MAX_CONNECTIONS) + SPARE_CONNECTIONS <= Number(SETTINGS.max_connections));
  });

  test('pods are scaled by a metric that servers have and the adapter passes on', () => {
    const { metric } = find('production', 'HorizontalPodAutoscaler').spec.metrics.find(({ type }) => type === 'Pods').pods;
    const [rule] = parse(read('kubernetes/prometheus-adapter.yaml')).rules.custom;
    assert.equal(rule.name.as, metric.name);
    assert.equal(metric.name, 'starling_connections');
  });

  test('apply migrates before it changes what serves', async () => {
    const bin = path.join(folder, 'bin');
    mkdirSync(bin);
    writeFileSync(path.join(bin, 'kubectl'), `#!/bin/sh
if [ "$1" = kustomize ]; then exec ${kubectl} "$@"; fi
echo "$*" >>"${folder}/calls"
case $* in *--filename*) cat >/dev/null ;; esac
`);
    chmodSync(path.join(bin, 'kubectl'), 0o755);
    await run(at('kubernetes/apply'), ['production'], { env: { PATH: `${bin}:${process.env.PATH}` } });
    const calls = readFileSync(path.join(folder, 'calls'), 'utf8').trim().split('\n');
    assert.deepEqual(calls.map((call) => call.replace('--namespace starling ', '').split(' ')[0]), ['delete', 'apply', 'wait', 'apply', 'rollout']);
  });
});

describe('systemd', () => {
  const analyze = ['/usr/bin/systemd-analyze', '/bin/systemd-analyze'].find(existsSync);

  test('the units are valid, and leave little to attack', { skip: !analyze && 'no systemd here' }, async () => {
    const units = path.join(folder, 'units');
    mkdirSync(units);
    const server = path.join(units, 'starling');
    writeFileSync(server, '#!/bin/sh\n');
    chmodSync(server, 0o755);
    for (const [from, to] of [['starling@.service', 'starling@3001.service'], ['starling-migrate.service', 'starling-migrate.service']]) {
      writeFileSync(path.join(units, to), read(`systemd/${from}`).replaceAll('/usr/local/bin/starling', server));
      const { stderr } = await run(analyze, ['verify', '--man=no', path.join(units, to)]);
      assert.equal(stderr.split('\n').filter((line) => line.includes(to)).join('\n'), '');
      await run(analyze, ['security', '--offline=true', '--threshold=25', path.join(units, to)]);
    }
    const unit = read('systemd/starling@.service');
    assert.ok(Number(/TimeoutStopSec=(\d+)/.exec(unit)[1]) > 25 + 5);
  });
});

describe('scripts', () => {
  test('are scripts, and can be run', async () => {
    const files = [
      ...readdirSync(at('docker/steps')).map((name) => at(`docker/steps/${name}`)),
      at('docker/build-natively'), at('docker/make-secrets'), at('kubernetes/apply'), at('backup/restore-drill'),
      path.join(ROOT, 'script/cluster'), path.join(ROOT, 'script/cluster-smoke'),
    ];
    for (const file of files) {
      assert.ok(statSync(file).mode & 0o100, file);
      await run('bash', ['-n', file]);
    }
  });
});
