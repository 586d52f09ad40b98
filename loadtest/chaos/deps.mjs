// The end-to-end tests' packages and tools serve here too: one place to install them.

import { createRequire } from 'node:module';

const require = createRequire(new URL('../../crates/server/e2e/package.json', import.meta.url));

export const { io } = require('socket.io-client');
export { register } from '../../crates/server/e2e/support/client.mjs';
export { createDatabase, databasePool, freePort, run, spawnBinary, startRedis } from '../../crates/server/e2e/support/server.mjs';
export { sleep, until, within } from '../../crates/server/e2e/support/wait.mjs';
