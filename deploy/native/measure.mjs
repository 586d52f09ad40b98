// Measures what a deployment is sized by and no benchmark of the crates says: memory of NGINX and Starling for a
// connection, and what a message leaves in PostgreSQL.
//
//   node deploy/native/measure.mjs [CONNECTIONS, 4000 without it] [MESSAGES, 10000]
//   RECEIPT_ROWS_MAX_MEMBERS=1 node deploy/native/measure.mjs 600 2000      without rows for receipts

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Crowd } from '../smoke/crowd.mjs';
import { Cluster } from './cluster.mjs';

const connections = Number(process.argv[2] ?? 4_000);
const messages = Number(process.argv[3] ?? 10_000);

/** KiB of a process and its children that are theirs alone, or their share (PSS). */
function memory(pid) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean);
  const own = Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]);
  return own + children.reduce((sum, child) => sum + memory(child), 0);
}

/** Memory of TCP in the kernel, in KiB: both ends of every connection here. */
const kernel = () => 4 * Number(/^TCP: .* mem (\d+)/m.exec(readFileSync('/proc/net/sockstat', 'utf8'))[1]);
const slab = () => Number(/^Slab:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))[1]);

function open(url, token) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${url}/socket.io/?EIO=4&transport=websocket`, {
      agent: false,
      headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' },
    });
    request.on('upgrade', (_, socket) => {
      // CONNECT, in a frame with an empty mask.
      const text = Buffer.from(`40${JSON.stringify({ token })}`);
      const length = Buffer.alloc(2);
      length.writeUInt16BE(text.length);
      socket.write(Buffer.concat([Buffer.from([0x81, 0xfe]), length, Buffer.alloc(4), text]));
      socket.on('error', () => {});
      socket.on('data', () => {});
      resolve(socket);
    });
    request.on('response', (response) => reject(new Error(`HTTP ${response.statusCode}`)));
    request.on('error', reject);
    request.end();
  });
}

const cluster = await Cluster.start({
  instances: 2,
  env: {
    CONNECT_RATE_PER_INSTANCE: '0', MESSAGE_RATE_PER_USER: '0', PING_INTERVAL_MS: '600000', DB_MAX_CONNECTIONS: '20',
    RECEIPT_ROWS_MAX_MEMBERS: process.env.RECEIPT_ROWS_MAX_MEMBERS ?? '64',
  },
});
try {
  const tokens = await cluster.seed({ users: connections, rooms: Math.ceil(connections / 10), members: 30 });
  const users = readFileSync(tokens, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const read = () => ({
    nginx: memory(cluster.nginx.process.pid),
    starling: cluster.instances.reduce((sum, { process: { pid } }) => sum + memory(pid), 0),
    tcp: kernel(),
    slab: slab(),
  });
  // The first ones make what all share.
  const warm = [];
  for (let i = 0; i < 200; i += 1) warm.push(await open(cluster.url, users[i].token));
  const before = read();
  const sockets = [];
  for (let i = 200; i < connections; i += 50) {
    sockets.push(...await Promise.all(users.slice(i, i + 50).map(({ token }) => open(cluster.url, token))));
  }
  const connected = async () => (await Promise.all(cluster.instances.map((instance) => instance.metrics())))
    .flatMap((text) => [...text.matchAll(/^starling_connections\{.*\} (\d+)$/gm)])
    .reduce((sum, [, count]) => sum + Number(count), 0);
  await until(async () => await connected() === connections, { ms: 120_000, every: 500, what: 'everybody to be connected' });
  const after = read();
  const each = (what) => ((after[what] - before[what]) / sockets.length).toFixed(1);
  console.log(`${sockets.length} connections through NGINX, each in three rooms, KiB a connection:`);
  console.log(`  NGINX ${each('nginx')}, Starling ${each('starling')}, kernel (slab of all six ends) ${each('slab')}`);
  [...warm, ...sockets].forEach((socket) => socket.destroy());
  await until(async () => await connected() === 0, { ms: 60_000, every: 500, what: 'everybody to be gone' });

  for (const members of [2, 10, 50]) {
    const file = await cluster.seed({ users: members, rooms: 1, members });
    const crowd = await Crowd.gather(cluster, file, { more: { reads: false } });
    const { postgres } = cluster;
    await postgres.query('CHECKPOINT');
    const size = async () => Number((await postgres.query("SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['messages', 'message_receipts']::regclass[]) c"))[0]);
    const [lsn] = await postgres.query('SELECT pg_current_wal_lsn()');
    const start = await size();
    const count = Math.min(messages, Math.ceil(messages * 4 / members));
    const [{ id: roomId }] = crowd.people.rooms;
    const text = 'x'.repeat(200);
    // Senders side by side, each one after the other.
    await Promise.all(crowd.devices.map(async (device, i) => {
      for (let n = i; n < count; n += crowd.devices.length) {
        const answer = await device.ask('message:send', { roomId, content: text, clientId: randomUUID() });
        if (!answer?.ok) throw new Error(`a message was not taken: ${JSON.stringify(answer)}`);
      }
    }));
    await crowd.quieten();
    const [wal] = await postgres.query(`SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '${lsn}')`);
    const bytes = (await size()) - start;
    console.log(`${count} messages of 200 bytes in a room of ${members}, all delivered: ${Math.round(bytes / count)} bytes of tables and indexes, ${Math.round(Number(wal) / count)} bytes of log each`);
    await crowd.close();
  }
} finally {
  await cluster.stop();
}
process.exit();
