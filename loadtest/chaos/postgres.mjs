// A private PostgreSQL with fsync, to be stopped in any way and started again on the same data.

import { execFile, execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './deps.mjs';

const call = promisify(execFile);
const VERSIONS = '/usr/lib/postgresql';

function programs() {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a)) : [];
  for (const version of versions) {
    const bin = path.join(VERSIONS, version, 'bin');
    if (existsSync(path.join(bin, 'initdb'))) return bin;
  }
  return path.dirname(execFileSync('which', ['initdb'], { encoding: 'utf8' }).trim());
}

/** initdb and postgres refuse to run as root: an ordinary user runs them then. */
function ordinaryUser() {
  if (process.getuid() !== 0) return undefined;
  const id = (name, flag) => Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  for (const name of ['postgres', 'nobody']) {
    try {
      return { name, uid: id(name, '-u'), gid: id(name, '-g') };
    } catch { /* the next one */ }
  }
  throw new Error('neither the user postgres nor nobody is there to run PostgreSQL');
}

export async function startPostgres() {
  const bin = programs();
  const user = ordinaryUser();
  const dir = mkdtempSync(path.join(tmpdir(), 'starling-chaos-'));
  if (user) chownSync(dir, user.uid, user.gid);
  const data = path.join(dir, 'data');
  const port = await freePort();
  const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${dir} -c fsync=on `
    + '-c synchronous_commit=on -c max_connections=100';
  const command = (name, args) => {
    const program = path.join(bin, name);
    return user ? ['runuser', ['-u', user.name, '--', program, ...args]] : [program, args];
  };
  const ctl = (...args) => call(...command('pg_ctl', ['-D', data, '-w', '-t', '60', ...args]), { cwd: '/' });
  const atExit = () => {
    try {
      execFileSync(...command('pg_ctl', ['-D', data, '-m', 'immediate', 'stop']), { cwd: '/', stdio: 'ignore' });
    } catch { /* it was stopped */ }
    rmSync(dir, { recursive: true, force: true });
  };
  process.on('exit', atExit);

  const postgres = {
    port,
    url: `postgres://starling@127.0.0.1:${port}/postgres`,
    start: () => ctl('-l', path.join(dir, 'server.log'), '-o', options, 'start'),
    /** `immediate` is a crash: what is not in the log of the database is lost; `fast` ends sessions first. */
    stop: (mode) => ctl('-m', mode, 'stop'),
    end() {
      process.off('exit', atExit);
      atExit();
    },
  };
  try {
    await call(...command('initdb', ['-D', data, '-U', 'starling', '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C.UTF-8']), { cwd: '/' });
    await postgres.start();
  } catch (error) {
    atExit();
    throw error;
  }
  return postgres;
}
