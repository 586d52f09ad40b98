/** Fails when what a browser fetches before the first page is larger than it may be. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const LIMIT_KB = 200;
const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const assets = readdirSync(`${dist}assets`);

/** A page's script and all that it imports before it runs. */
function closure(name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  const text = readFileSync(`${dist}assets/${name}`, 'utf8');
  for (const [, other] of text.matchAll(/(?:from|import)\s*["']\.\/([^"']+\.js)["']/g)) if (other) closure(other, found);
  return found;
}

const size = (names) =>
  [...names].reduce((sum, name) => sum + gzipSync(readFileSync(`${dist}assets/${name}`), { level: 9 }).length, 0);

const index = readFileSync(`${dist}index.html`, 'utf8');
const entry = [...index.matchAll(/(?:src|href)="\/assets\/([^"]+)"/g)].map(([, name]) => name ?? '');
let failed = false;
for (const part of ['entrance', 'home']) {
  const script = assets.find((name) => name.startsWith(`${part}-`) && name.endsWith('.js'));
  if (!script) throw new Error(`there is no ${part}-*.js: the build has changed, and so must this script`);
  const names = new Set([...entry.filter((name) => name.endsWith('.css')), ...closure(script)]);
  for (const name of entry.filter((one) => one.endsWith('.js'))) closure(name, names);
  const kb = size(names) / 1000;
  failed ||= kb > LIMIT_KB;
  console.log(`${part}: ${kb.toFixed(1)} kB gzip of ${LIMIT_KB} (${names.size} files)`);
}
if (failed) process.exitCode = 1;
