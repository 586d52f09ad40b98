// The command line of the suite: see README.md.

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { NEMESES } from './nemesis.mjs';
import { runSuite } from './suite.mjs';

const BASE = fileURLToPath(new URL('../../.starling/chaos', import.meta.url));
const USAGE = `node run.mjs [--seconds 600] [--seed N] [--only ${NEMESES.slice(0, 2)},…] [--rate 60] [--adapter node|socketioxide] [--short]
faults: ${NEMESES.join(', ')}`;

function options() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '600' },
      seed: { type: 'string' },
      only: { type: 'string' },
      rate: { type: 'string', default: '60' },
      adapter: { type: 'string' },
      short: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const number = (name) => {
    const value = Number(values[name]);
    if (!Number.isFinite(value) || value < 0) throw new Error(`--${name} must be a number`);
    return value;
  };
  const only = values.only?.split(',');
  const unknown = only?.find((kind) => !NEMESES.includes(kind));
  if (unknown) throw new Error(`unknown fault: ${unknown}`);
  return {
    help: values.help,
    form: values.short ? 'short' : 'long',
    seconds: number('seconds'),
    rate: number('rate'),
    ...(values.seed && { seed: number('seed') }),
    ...(only && { only }),
    ...(values.adapter && { env: { ADAPTER: values.adapter } }),
  };
}

let wanted;
try {
  wanted = options();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
if (wanted.help) {
  console.log(USAGE);
  process.exit(0);
}
process.on('SIGINT', () => process.exit(130));
wanted.seed ??= Math.floor(Math.random() * 1e6);
console.log(`seed ${wanted.seed}`);
const { text, violations } = await runSuite({ ...wanted, base: BASE, say: console.log });
console.log(text);
process.exit(violations.length > 0 ? 1 : 0);
