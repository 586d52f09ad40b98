// Servers whose clients speak `socket.io-msgpack-parser`: the servers' own language
// is the same for all.

import { describe, test } from 'node:test';
import { compare, run } from '../support/scenario.mjs';

const msgpack = { PARSER: 'msgpack' };

describe('clients of both parsers', () => {
  test('on 2 Node.js and 2 Rust servers', async (t) => {
    const senders = [0, 3];
    const expected = await run([['node', msgpack], 'node', 'ioredis', ['ioredis', msgpack]], { senders });
    await compare(t, await run([['rust', msgpack], 'rust', 'ioredis', ['ioredis', msgpack]], { senders }), expected);
  });
});
