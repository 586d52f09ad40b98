// `script/cluster`: a cluster on this machine until Ctrl-C.
//
//   node deploy/native/main.mjs [INSTANCES] [--port 8080] [--tls-port 8443]

import { mkdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import { parseArgs } from 'node:util';
import { Cluster, LOGS } from './cluster.mjs';
import { people } from './people.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { port: { type: 'string', default: '8080' }, 'tls-port': { type: 'string', default: '8443' } },
});
const instances = Number(positionals[0] ?? 4);
if (!Number.isInteger(instances) || instances < 1 || instances > 64) {
  console.error('usage: script/cluster [INSTANCES, 1 to 64] [--port PORT] [--tls-port PORT]');
  process.exit(2);
}

/** This port, or the next one that is free. */
async function freeFrom(first) {
  for (let port = Number(first); port < Number(first) + 100; port += 1) {
    const free = await new Promise((resolve) => {
      const probe = net.createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error(`no free port from ${first} on`);
}

rmSync(LOGS, { recursive: true, force: true });
mkdirSync(LOGS, { recursive: true });

const asked = new Promise((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => resolve(signal));
});

const port = await freeFrom(values.port);
const starting = Cluster.start({
  instances, port, tlsPort: await freeFrom(Math.max(Number(values['tls-port']), port + 1)), logs: LOGS,
  say: (what) => console.log(`starting ${what}`),
});
try {
  const cluster = await starting;
  const { names, password } = await people(cluster.url);
  console.log(`
  ${cluster.url}   ${cluster.nginx.tlsUrl} (a certificate of its own)
  log in as ${names.join(', ')}; the password is ${password}

  PostgreSQL  ${cluster.postgres.url}
  Redis       ${cluster.redis.url}
${cluster.instances.map(({ name, url, process: { pid } }) => `  ${name.padEnd(11)} ${url}  (process ${pid})`).join('\n')}
  logs        ${LOGS}

Ctrl-C stops all of it and forgets the data.`);
  await asked;
  console.log('\nstopping');
  await cluster.stop();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
process.exit();
