// The herd from the command line: figures as JSON, exit code 1 when a client lacks something or has it twice.
//
//   node loadtest/herd/run.mjs [--clients 5000] [--instances 3]
//
// TEST_DATABASE_URL names a PostgreSQL, STARLING_BIN the server; `just herd` sees to both.

import { parseArgs } from 'node:util';
import { runHerd } from './herd.mjs';

const { values } = parseArgs({ options: { clients: { type: 'string', default: '5000' }, instances: { type: 'string', default: '3' } } });
const figures = await runHerd({ clients: Number(values.clients), instances: Number(values.instances), say: console.error });
console.log(JSON.stringify(figures, undefined, 2));
