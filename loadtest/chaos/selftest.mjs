// Whether the suite can fail: a run in which things are really lost, each of which must be found, and nothing else.

import assert from 'node:assert/strict';
import { startDeafProxy } from './deaf.mjs';
import { runSuite } from './suite.mjs';

/** What each of the things that are broken below must be found as. */
const EXPECTED = {
  'a message:new lost between an instance and a client': ['gap-on-connection'],
  'an acknowledged message deleted from PostgreSQL': ['acknowledged-lost', 'received-not-stored', 'last-seq'],
  'a watermark set back': ['watermark-went-back', 'read-lost'],
  'a receipt that nobody gave': ['read-unsaid'],
  'a row of a socket that is not there': ['ghost-sessions'],
};
/** What may follow from them. */
const BESIDE = ['seq-gap', 'missing-for-member', 'status-of-nothing', 'receipt-of-nothing', 'never-sent-by-itself', 'read-not-delivered', 'delivered-lost', 'delivered-unsaid'];

let deaf;
const { violations, text } = await runSuite({
  form: 'short',
  only: ['slow'],
  say: console.log,
  async prepare({ cluster, people }) {
    const device = people.devices.find(({ name }) => name === 'u1');
    deaf = await startDeafProxy(cluster.urls[0], 10);
    device.socket.io.uri = deaf.url;
    device.socket.io.opts.transports = ['websocket'];
    // Nobody beats for this one: in time it would be swept, were its time not in the future.
    await cluster.pool.query(`INSERT INTO user_sessions (user_id, socket_id, server_instance, connected_at, last_heartbeat)
      VALUES ($1, 'nobody', 'z-1', now(), now() + interval '1 hour')`, [device.user.id]);
  },
  async tamper({ cluster, people, history }) {
    const room = people.rooms.at(-1).id;
    await cluster.pool.query('DELETE FROM messages WHERE room_id = $1 AND seq = (SELECT last_seq FROM rooms WHERE id = $1)', [room]);
    await cluster.pool.query('UPDATE room_members SET last_read_seq = last_read_seq - 1 WHERE room_id = $1 AND last_read_seq > 0', [people.rooms[2].id]);
    const said = new Set(history.records.filter(({ kind, what }) => kind === 'say' && what === 'read').map(({ user }) => user));
    const silent = people.users.find(({ id }) => !said.has(id)) ?? people.users[0];
    await cluster.pool.query('UPDATE message_receipts SET read_at = now(), delivered_at = coalesce(delivered_at, now()) WHERE user_id = $1', [silent.id]);
  },
});
deaf.close();
console.log(text);

const found = new Set(violations.map(({ kind }) => kind));
for (const [what, kinds] of Object.entries(EXPECTED)) {
  const missed = kinds.filter((kind) => !found.has(kind));
  assert.deepEqual(missed, [], `${what} was not found`);
}
const known = new Set([...Object.values(EXPECTED).flat(), ...BESIDE]);
assert.deepEqual([...found].filter((kind) => !known.has(kind)), [], 'what nobody broke');
assert.equal(deaf.lost > 0, true);
console.log('everything that was broken was found');
process.exit(0);
